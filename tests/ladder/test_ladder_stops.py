"""A ladder is stopped by Ctrl-C or killed: what is done stays."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import document


@pytest.mark.slow
def test_ctrl_c_ends_the_rung_and_keeps_the_others(table, tiny_bert, tmp_path) -> None:
    folder = tmp_path / "ladder"
    arguments = ["ladder", table, "-o", folder, "--model", tiny_bert, "--rungs", "tfidf,head", "--test", "0.3"]
    command = [sys.executable, "-m", "embedcache", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("tfidf: begins"))
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 130 and said.strip().endswith("the same command with --resume goes on."), said
    assert (folder / "majority.json").exists() and not (folder / "ladder.json").exists()


@pytest.mark.slow
def test_each_rung_in_a_process_of_its_own(table, tiny_bert, tmp_path) -> None:
    """By the command; killed while a rung runs, what is done stays."""
    folder = tmp_path / "ladder"
    arguments = [
        "ladder", table, "-o", folder, "--model", tiny_bert, "--rungs", "tfidf,head,last", "--test", "0.3", "--json"
    ]  # fmt: skip
    command = [sys.executable, "-m", "embedcache", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("head: begins"):
            while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGKILL)
            break
    process.communicate()
    assert (folder / "tfidf.json").exists() and not (folder / "ladder.json").exists()
    before = (folder / "tfidf.json").stat().st_mtime_ns
    gone = Path("/proc", children[0])
    for _ in range(240):  # a busy machine loads libraries slowly, and is interrupted after that
        if not gone.exists():
            break
        time.sleep(0.5)
    assert not gone.exists()
    line = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert line.returncode == 0, line.stderr
    report = json.loads(line.stdout)
    assert (folder / "tfidf.json").stat().st_mtime_ns == before
    assert all(one["peak_memory"] > 1 << 26 for one in report["rungs"])
    assert re.search(r"plan: head", line.stderr) is None or not (folder / "head.json").exists()
    assert document(*arguments[:-1], "--resume")["stop_at"] == report["stop_at"]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_step_stops_where_a_script_ignores_ctrl_c(table, tiny_bert) -> None:
    """The background jobs of a script ignore it, and their children would, too."""
    values = {
        "source": str(table), "model": str(tiny_bert), "device": "cpu", "trust_remote_code": False, "trains": True,
        "text": "text", "max_length": None,
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "embedcache.ladder.child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        text=True,
    )
    out, _ = process.communicate(json.dumps({"kind": "measure", "values": values}) + "\n", timeout=120)
    assert process.returncode == 130 and list(json.loads(out.splitlines()[-1])) == ["stopped"]
