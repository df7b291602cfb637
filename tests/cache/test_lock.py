"""One writer at a time, across processes, and no lock file left behind."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from embedcache.cache.lock import writer_lock
from embedcache.errors import EmbedcacheError

HOLD = """
import sys
from pathlib import Path
from embedcache.cache.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path / "c.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_holds_it(tmp_path, holder):
    with pytest.raises(EmbedcacheError, match="another extract is writing"), writer_lock(tmp_path / "c.h5"):
        pass
    with writer_lock(tmp_path / "other.h5"):
        pass
    holder.communicate("")
    with writer_lock(tmp_path / "c.h5"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_blocks_nobody(tmp_path, holder):
    holder.kill()
    holder.wait()
    with writer_lock(tmp_path / "c.h5"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_released_on_errors(tmp_path):
    with pytest.raises(ZeroDivisionError), writer_lock(tmp_path / "c.h5"):
        _ = 1 / 0
    with writer_lock(tmp_path / "c.h5"):
        pass


def test_a_lock_file_that_vanishes_is_not_trusted(tmp_path, monkeypatch):
    """The last writer removes the file between our open and our lock: we must lock the one that others will see."""
    import fcntl

    plain, calls = fcntl.flock, []

    def flock(handle, how):
        if not calls:
            (tmp_path / ".c.h5.lock").unlink()
        calls.append(handle)
        plain(handle, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with writer_lock(tmp_path / "c.h5"):
        assert len(calls) == 3 and (tmp_path / ".c.h5.lock").exists()


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(EmbedcacheError, match="refuses locks"), writer_lock(tmp_path / "c.h5"):
        pass


def test_file_systems_that_only_pretend(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", lambda handle, how: None)
    with (
        pytest.raises(EmbedcacheError, match=r"refuses locks .it gives one lock twice"),
        writer_lock(tmp_path / "c.h5"),
    ):
        pass


def test_a_fork_that_ends_early_leaves_the_lock_alone(tmp_path):
    """Its finally clauses run, too."""
    parent, status = os.getpid(), None
    try:
        with writer_lock(tmp_path / "c.h5"):
            if child := os.fork():
                status = os.waitpid(child, 0)[1]
                with pytest.raises(EmbedcacheError, match="another extract is writing"):
                    writer_lock(tmp_path / "c.h5").__enter__()
    finally:
        if os.getpid() != parent:
            os._exit(0)
    assert status == 0 and list(tmp_path.iterdir()) == []
