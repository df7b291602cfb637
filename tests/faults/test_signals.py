"""Real signals to the real command line: what is saved is said, and the same command goes on to the same file."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from tests.faults.conftest import Command

ROWS = 6000


def wait_for(process, condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.finish()
        assert time.monotonic() < end
        time.sleep(0.002)


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file. It is there a moment before; to try the lock would be in their way."""
    if not path.exists():
        return False
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any(one[1] == "FLOCK" and one[5].endswith(f":{path.stat().st_ino}") for one in held)


def some_saved(path: Path) -> bool:
    try:
        with open_cache(path) as cache:
            return 0 < cache.missing_rows() < cache.rows
    except EmbedcacheError:
        return False


def interrupted(process: Command, number: int = signal.SIGINT) -> str:
    """The one line that an interrupted command leaves; its exit code is what a shell has for the signal."""
    code, stdout, stderr = process.finish()
    assert (code, stdout) == (128 + number, "") and "Traceback" not in stderr, (code, stdout, stderr)
    assert stderr.startswith("Interrupted") and stderr.count("\n") == 1, stderr
    return stderr


@pytest.fixture(scope="module")
def undisturbed(tiny_bert, tmp_path_factory):
    """bytes of the vectors that a run without trouble gives"""
    from tests.conftest import make_reviews, write_csv

    folder = tmp_path_factory.mktemp("undisturbed")
    table = write_csv(folder / "table.csv", make_reviews(ROWS))
    command = Command("extract", table, "-o", folder / "cache.h5", "--model", tiny_bert, "--device", "cpu")
    assert command.finish()[0] == 0
    with open_cache(folder / "cache.h5") as cache:
        return cache.embeddings().tobytes()


SIGNALS = [pytest.param(signal.SIGINT, id="SIGINT"), pytest.param(signal.SIGTERM, id="SIGTERM")]


@pytest.mark.parametrize("number", SIGNALS)
def test_while_encoding(extract_command, undisturbed, tmp_path, number):
    path = tmp_path / "cache.h5"
    process = extract_command(ROWS)
    wait_for(process, lambda: some_saved(path))
    process.send_signal(number)
    line = interrupted(process, number)
    with open_cache(path) as cache:
        assert f"{cache.rows - cache.missing_rows():,} of {ROWS:,} rows are saved" in line
    assert sorted(left.name for left in tmp_path.glob(".*")) == []
    assert extract_command(ROWS).finish()[0] == 0
    with open_cache(path) as cache:
        assert cache.embeddings().tobytes() == undisturbed


@pytest.mark.parametrize("number", SIGNALS)
def test_while_planning(extract_command, tmp_path, number):
    """Before there is a cache; the lock is there from the beginning to the end."""
    process = extract_command(ROWS)
    wait_for(process, (tmp_path / ".cache.h5.lock").exists)
    process.send_signal(number)
    assert "before the first vector" in interrupted(process, number)
    assert [left.name for left in tmp_path.iterdir()] == [f"table-{ROWS}.csv"]


PUBLISH = """
    import os, signal, sys
    from pathlib import Path
    from embedcache.cli import main
    replace, count = Path.replace, 0
    def interrupted(self, target):
        global count
        count += 1
        if count == {at} and {before}:
            os.kill(os.getpid(), {number})
        replaced = replace(self, target)
        if count == {at} and not {before}:
            os.kill(os.getpid(), {number})
        return replaced
    Path.replace = interrupted
    main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("at", [1, 2], ids=["the new file", "in the place of the old one"])
def test_while_a_file_gets_its_name(extract_command, tmp_path, at, before):
    """An append: the file beside the old one is named once it is made, and again once it is complete."""
    path = tmp_path / "cache.h5"
    assert extract_command(1500).finish()[0] == 0
    old = path.read_bytes()
    script = tmp_path / "interrupt.py"
    script.write_text(textwrap.dedent(PUBLISH).format(at=at, before=before, number=int(signal.SIGINT)))
    process = extract_command(2500, script=script)
    interrupted(process)
    assert verify(path).ok
    if at == 1 or before:
        assert path.read_bytes() == old
    assert extract_command(2500).finish()[0] == 0
    with open_cache(path) as cache:
        assert (cache.rows, cache.complete) == (2500, True)
        assert np.isfinite(cache.embeddings()).all()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_at_random_moments(extract_command, undisturbed, tmp_path):
    """From the first import to the last rename, twice in a row too."""
    rng, path = random.Random(0), tmp_path / "cache.h5"
    begun = time.monotonic()
    assert extract_command(ROWS).finish()[0] == 0
    seconds = time.monotonic() - begun
    for turn in range(24):
        if turn % 3 == 0:
            path.unlink(missing_ok=True)
        process = extract_command(ROWS)
        time.sleep(seconds * rng.uniform(0.15, 1))
        process.send_signal(rng.choice([signal.SIGINT, signal.SIGTERM]))
        if rng.random() < 0.3:
            time.sleep(rng.random() / 10)
            process.send_signal(signal.SIGINT)
        code, _, stderr = process.finish()
        assert code in (0, 130, 143, -signal.SIGINT, -signal.SIGTERM), stderr
        if path.exists():
            assert verify(path).ok
    assert extract_command(ROWS).finish()[0] == 0
    with open_cache(path) as cache:
        assert cache.embeddings().tobytes() == undisturbed
    assert not list(tmp_path.glob(".*"))


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    """The signal comes as a module is looked for, where none of the commands' own handlers is there yet."""
    script = """
        import os, runpy, signal, sys

        class Stop:
            def find_spec(self, name, *more):
                if name == "embedcache.commands.doctor":
                    os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.meta_path.insert(0, Stop())
        sys.argv = ["embedcache", "--help"]
        runpy.run_module("embedcache", run_name="__main__")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "") and done.stderr.startswith("Interrupted"), done
    assert done.stderr.count("\n") == 1
