"""A driver that is killed: everything that it has started ends, and the next run goes on and cleans up."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from embedcache.cache import open_cache
from embedcache.cache.layout import sibling
from embedcache.common import reaper
from tests.conftest import document, make_reviews, write_csv
from tests.faults.conftest import Command

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
SOON = 20  # seconds


def alive(mark: str) -> list[str]:
    """Commands of processes that have inherited TEST_MARK=mark and are no zombies."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"TEST_MARK={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found


def wait_for_none(mark: str) -> list[str]:
    end = time.monotonic() + SOON
    while (left := alive(mark)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


DAEMON = "import os, time; os.setsid(); os.fork() and os._exit(0); time.sleep(300)"
DRIVER = f"""
import subprocess, sys, time
from embedcache.common.reaper import Reaper
with Reaper() as reaper:
    subprocess.Popen([sys.executable, "-c", {DAEMON!r}])
time.sleep(1)
print("ready", flush=True)
if sys.argv[1] == "close":
    reaper.close()
else:
    time.sleep(300)
"""


@pytest.mark.parametrize("end", ["close", "kill"])
def test_a_daemon_ends_with_who_started_it(end: str) -> None:
    mark = uuid.uuid4().hex
    environment = {**os.environ, "TEST_MARK": mark}
    with subprocess.Popen([sys.executable, "-c", DRIVER, end], stdout=subprocess.PIPE, env=environment) as driver:
        assert driver.stdout is not None and driver.stdout.readline() == b"ready\n"
        assert len(alive(mark)) == 3 if end == "kill" else alive(mark)  # the driver, the daemon, the reaper
        if end == "kill":
            driver.kill()
    if end == "kill":
        assert wait_for_none(mark) == []
        return
    time.sleep(1)
    left = alive(mark)  # all ended in good order: what stays is not the reaper's business
    assert len(left) == 1 and "time.sleep(300)" in left[0]
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and f"TEST_MARK={mark}".encode() in _environ(folder):
            os.kill(int(folder.name), signal.SIGKILL)


def _environ(folder: Path) -> bytes:
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""


def test_others_are_left_alone() -> None:
    assert reaper.marked(uuid.uuid4().hex) == []


def kill_once(folder: Path, encoder: Path, rng: random.Random) -> None:
    """Kill an extract on two workers of Ray at a random moment, look who lives, go on without Ray."""
    pytest.importorskip("ray")
    table, cache = folder / "table.csv", folder / "cache.h5"
    if not table.exists():
        write_csv(table, make_reviews(20_000))
    cache.unlink(missing_ok=True)
    mark = uuid.uuid4().hex
    arguments = ["extract", table, "-o", cache, "--model", encoder, "--device", "cpu", "--batch-tokens", "256"]
    command = Command(*arguments, "--workers", "2", environment={"TEST_MARK": mark})
    time.sleep(rng.uniform(2, 14))
    command.kill()
    command.communicate()
    assert wait_for_none(mark) == []
    if cache.exists():
        with open_cache(cache) as opened:
            assert opened.rows == 20_000
    document(*arguments)
    assert document("verify", cache)["damaged"] == []
    assert not sibling(cache, "ray").exists() and not list(folder.glob(".cache.h5.new*"))


@pytest.fixture
def kill(tmp_path: Path, tiny_bert: Path) -> Callable[[random.Random], None]:
    return lambda rng: kill_once(tmp_path, tiny_bert, rng)


def test_nothing_of_ray_outlives_a_killed_driver(kill: Callable[[random.Random], None]) -> None:
    kill(random.Random(4))  # after five seconds


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_24_kills(kill: Callable[[random.Random], None]) -> None:
    rng = random.Random(1)
    for _ in range(24):
        kill(rng)
