"""`embedcache serve` as its user runs it: one line when it listens, clean ends, one line for each mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.conftest import fails, invoke, make_cache


@contextmanager
def command(
    *arguments: Any, name: str = "serve", **environment: str
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """The running command and the line that it printed."""
    line = [
        sys.executable,
        "-m",
        "embedcache",
        name,
        *map(str, arguments),
        "--port",
        "0",
        "--json",
        "--device",
        "cpu",
    ]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, **pipes, env={**os.environ, **environment}, start_new_session=True)
    try:
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        assert first, process.stderr.read()
        yield process, json.loads(first)
    finally:
        process.kill()
        process.communicate()


def stopped(process: subprocess.Popen[str]) -> str:
    """stderr of a process that has ended well."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out == "", (process.returncode, out, err)
    assert "Traceback" not in err and err.splitlines()[-1] == "Stopped."
    return err


def test_it_says_where_answers_and_stops(copy: Path) -> None:
    with command(copy / "reviews.h5", "--run", copy / "run", "--verbose") as (process, about):
        assert about["rows"] == 162 and about["token"] is False
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", about["url"])
        answer = httpx.post(f"{about['url']}predict", json={"texts": ["a secret text"]})
        assert answer.status_code == 200
        process.send_signal(signal.SIGINT)
        err = stopped(process)
    assert "POST /predict 200" in err and "secret" not in err


def test_what_is_in_flight_is_finished(copy: Path) -> None:
    statuses: list[int] = []

    def ask(url: str) -> None:
        statuses.append(httpx.post(f"{url}predict", json={"texts": ["good " * 200] * 256}, timeout=60).status_code)

    with command(copy / "reviews.h5", "--run", copy / "run") as (process, about):
        threads = [threading.Thread(target=ask, args=(about["url"],)) for _ in range(8)]
        for thread in threads:
            thread.start()
        while True:
            (flying,) = re.findall(r"in_flight ([\d.]+)", httpx.get(f"{about['url']}metrics").text)
            if float(flying) + len(statuses) > 8:
                break
        process.send_signal(signal.SIGTERM)
        stopped(process)
        for thread in threads:
            thread.join()
    assert statuses and set(statuses) == {200}


def children(pid: int) -> list[str]:
    """The processes that a process's threads have started, by Linux's /proc."""
    return [child for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text("ascii").split()]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize(
    "seconds", [0, *(pytest.param(at, marks=pytest.mark.slow) for at in (0.2, 0.5, 1))]
)  # after its process has begun: it starts, imports, is at work
def test_the_map_in_the_making_does_not_outlive_it(tmp_path: Path, seconds: float) -> None:
    vectors = np.random.default_rng(0).normal(size=(20_000, 16)).astype(np.float16)
    cache = make_cache(tmp_path / "made.h5", [f"text {i}" for i in range(20_000)], vectors)
    with command(cache) as (process, about):
        assert httpx.get(f"{about['url']}map").json()["status"] == "computing"
        deadline = time.monotonic() + 60
        while not children(process.pid):
            assert time.monotonic() < deadline
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal's Ctrl-C, which every process of the group hears
        err = stopped(process)
    assert "only rows can be searched" in err
    assert [file.name for file in tmp_path.iterdir()] == ["made.h5"]
    for _ in range(100):  # Python's own helper of processes ends a little later
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("a process is left")


def test_a_token_from_the_environment(copy: Path) -> None:
    with command(copy / "reviews.h5", "--host", "0.0.0.0", EMBEDCACHE_TOKEN="open-sesame") as (process, about):
        assert about["token"] is True and "sesame" not in json.dumps(about)
        assert httpx.get(f"{about['url']}info").status_code == 401
        headers = {"Authorization": "Bearer open-sesame"}
        assert httpx.get(f"{about['url']}info", headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert "sesame" not in stopped(process)


# ---- mistakes ----


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_another_host_without_a_token_is_refused(shown: Path, host: str) -> None:
    assert "--token" in fails("serve", shown / "reviews.h5", "--host", host, code=2)


@pytest.mark.parametrize("token", ["", " ", "two words", "t\u00e9", "a\nb"])
def test_odd_tokens_are_refused(shown: Path, token: str) -> None:
    assert "printable ASCII" in fails("serve", shown / "reviews.h5", "--token", token, code=2)


@pytest.mark.parametrize("port", ["-1", "65536", "http", "1.5"])
def test_odd_ports_are_refused(shown: Path, port: str) -> None:
    assert port in fails("serve", shown / "reviews.h5", "--port", port, code=2)


def test_a_port_that_is_taken(shown: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = fails("serve", shown / "reviews.h5", "--port", port)
    assert f"port {port}" in line and "another --port" in line


def test_an_address_that_is_not_there(shown: Path) -> None:
    line = fails("serve", shown / "reviews.h5", "--host", "no.such.host.invalid", "--token", "x", "--port", "0")
    assert "no.such.host.invalid" in line and "--host" in line


def test_what_cannot_be_served(shown: Path, tmp_path: Path) -> None:
    def line(*arguments: Any) -> str:
        return fails("serve", *arguments, "--port", "0", "--device", "cpu")

    cache, run = shown / "reviews.h5", shown / "run"
    assert "no such file" in line(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("not a cache")
    assert "not an HDF5 file" in line(tmp_path / "text.h5")
    assert "no run at" in line(cache, "--run", tmp_path / "missing")
    assert "has no mean vectors" in line(cache, "--pooling", "mean")
    assert "missing" in line(cache, "--model", tmp_path / "missing")
    assert "missing.index" in line(cache, "--index", tmp_path / "missing.index")
    assert "device" in fails("serve", cache, "--run", run, "--port", "0", "--device", "abacus")
    assert "no rows" in line(make_cache(tmp_path / "empty.h5", [], np.empty((0, 4), np.float32)))


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_without_the_extra(shown: Path, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nfrom embedcache.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", str(shown / "reviews.h5")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"Error: serve needs {package}, which is not installed: pip install 'embedcache[serve]'\n"


def test_help_has_examples() -> None:
    text = invoke("serve", "--help").output
    assert "embedcache serve reviews.h5 --run heads" in text and "EMBEDCACHE_TOKEN" in text
