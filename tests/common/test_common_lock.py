"""A lock on a hidden file, across processes; tests/cache/test_lock.py has the same for a cache's writer."""

from __future__ import annotations

import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import FrameType

import pytest

from embedcache.cache.lock import writer_lock
from embedcache.common import lock as lock_file_module
from embedcache.common.lock import BusyError, locked
from embedcache.common.whole_file import open_output
from embedcache.common.whole_folder import folder_lock
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


def test_what_is_in_the_file_stays_until_it_is_done_with(tmp_path: Path) -> None:
    path = tmp_path / ".out.csv.partial"
    path.write_bytes(b"saved")
    for keep in (True, True, False):
        with locked(path, busy) as lock:
            lock.keep = keep
        assert path.exists() == keep


# ---- Ctrl-C at each moment ----

# Before Python 3.12 what a profiler raises where a generator goes on ends it without its finally; a signal does not.
BARRED = sys.version_info < (3, 12)


def interrupted_at(moment: int, work: Callable[[], object]) -> bool:
    """Whether the work was interrupted: SIGINT comes at its moment number ``moment``.

    Python looks for signals where a function begins and after each call of one that is written in C; a profiler sees
    just these. Everything up to the end of ``work`` counts.
    """
    seen = 0

    def profiler(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        if BARRED and event == "call" and frame.f_code.co_flags & inspect.CO_GENERATOR:
            return
        if event in ("call", "c_return", "c_exception"):
            seen += 1
            if seen == moment:
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(profiler)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


@contextmanager
def output(path: Path) -> Iterator[None]:
    with open_output(path) as place, place.binary() as file:
        yield
        file.write(b"new")


HOLDERS: dict[str, Callable[[Path], AbstractContextManager[object]]] = {
    "lock": lambda folder: locked(folder / ".x.lock", busy),
    "cache": lambda folder: writer_lock(folder / "c.h5"),
    "folder": lambda folder: folder_lock(folder / "above" / "run"),
    "output": lambda folder: output(folder / "out.csv"),
}


@pytest.mark.parametrize(("name", "saved"), [*((name, b"") for name in HOLDERS), ("output", b"an earlier command's")])
def test_ctrl_c_at_any_moment_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, saved: bytes
) -> None:
    """Nor a file of one; what an earlier command saved stays until the output is there."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the disk's time
    hold, partial = HOLDERS[name], tmp_path / ".out.csv.partial"

    def work() -> None:
        with hold(tmp_path):
            pass

    for moment in range(1, 2000):
        if saved:
            partial.write_bytes(saved)
        stopped = interrupted_at(moment, work)
        left = sorted(file.name for file in tmp_path.rglob(".*"))
        if saved and stopped and left:
            assert left == [partial.name] and partial.read_bytes() == saved, moment
            partial.unlink()
        else:
            assert left == [], moment
        if saved and not left:
            assert (tmp_path / "out.csv").read_bytes() == b"new", moment
        (tmp_path / "out.csv").unlink(missing_ok=True)
        work()  # nobody holds it
        if not stopped:
            break
    assert 20 < moment < 1999


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="no such folder"), locked(tmp_path / "none" / ".x.lock", busy):
        pass


@pytest.mark.parametrize("keep", [False, True])
def test_where_open_files_cannot_be_removed_the_lock_is_closed_first(
    keep: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setattr(lock_file_module, "sys", type("Windows", (), {"platform": "win32"}))
    path, open_now = tmp_path / ".run.lock", []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda self, **more: (open_now.append(held.handle), unlink(self, **more)))
    with locked(path, busy) as held:
        os.write(held.handle, b"what is left to do")
        held.keep = keep
        with pytest.raises(BusyError), locked(path, busy):
            pass
    assert path.exists() == keep and open_now == [-1] * (not keep)
    with locked(path, busy) as held:
        held.keep = False
    assert not path.exists()
