"""A lock on a hidden file, across processes; tests/cache/test_lock.py has the same for a cache's writer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from embedcache.common.lock import BusyError, locked
from embedcache.errors import EmbedcacheError

HOLD = """
import sys
from pathlib import Path
from embedcache.common.lock import locked
with locked(Path(sys.argv[1]), str):
    print("held", flush=True)
    sys.stdin.read()
"""


def busy(who: str) -> str:
    return f"{who} is at it"


def test_the_second_hears_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / ".run.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(BusyError) as raised, locked(path, busy):
            pass
        assert str(raised.value) in (f"process {holder.pid} is at it", "another process is at it")
        holder.kill()
    assert path.exists()  # what a kill leaves
    with locked(path, busy) as lock:
        assert lock.path == path
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_may_be_kept(tmp_path: Path) -> None:
    path = tmp_path / ".out.csv.partial"
    for _ in range(2):
        with locked(path, busy) as lock:
            lock.keep = True
        assert path.exists()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="no such folder"), locked(tmp_path / "none" / ".x.lock", busy):
        pass
