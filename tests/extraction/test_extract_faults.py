"""Kills, flipped bits, full disks, second writers: what extract must survive, and say."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from embedcache.cache import open_cache, verify
from embedcache.cache.lock import writer_lock
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from embedcache.extraction.local import LocalWorker
from tests.conftest import make_reviews, write_csv

ROWS = 2500  # three blocks, so that one can be damaged and the others not


@pytest.fixture
def run(tiny_bert, tmp_path):
    """extract(n rows of reviews) into cache.h5 of this test's folder."""

    def run(rows, **options):
        table = write_csv(tmp_path / "table.csv", make_reviews(rows))
        return extract(table, tmp_path / "cache.h5", **{"model": tiny_bert, "device": "cpu", **options})

    return run


@pytest.fixture
def cache_path(tmp_path):
    return tmp_path / "cache.h5"


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("table.csv", "cache.h5"))


class Stop(BaseException):
    pass


def stop_after(texts):
    def progress(done, total, count):
        if count >= texts:
            raise Stop

    return progress


@pytest.mark.parametrize("signal", [KeyboardInterrupt, Stop])
def test_an_interrupt_keeps_what_is_done(run, cache_path, tmp_path, monkeypatch, signal):
    """It comes with the last batch of the second block, while the third is not encoded yet."""
    compute = LocalWorker.compute

    def held(worker, window, prepared, tell):
        while window.start == 2048:
            tell(0, window.new)  # raises once the pass has ended
        return compute(worker, window, prepared, tell)

    def progress(done, total, count):
        if count == 2048:
            raise signal

    with monkeypatch.context() as patch, pytest.raises(signal):
        patch.setattr(LocalWorker, "compute", held)
        run(ROWS, progress=progress)
    assert left_behind(tmp_path) == []
    with open_cache(cache_path) as cache:
        assert cache.missing_rows() == 452
        with pytest.raises(EmbedcacheError, match="452 of 2,500 rows have no vector"):
            cache.embeddings()
    report = run(ROWS)
    assert (report.encoded, report.reused) == (452, 2048)


def test_an_interrupted_append_leaves_the_old_cache_whole(run, cache_path, tmp_path):
    run(1000)
    before = cache_path.read_bytes()
    with pytest.raises(Stop):
        run(ROWS, progress=stop_after(1200))
    assert cache_path.read_bytes() == before and left_behind(tmp_path) == [".cache.h5.new"]
    assert run(ROWS).encoded <= 2500 - 2048  # the blocks that were complete beside the old cache are gone on with
    assert left_behind(tmp_path) == []
    with pytest.raises(Stop):
        run(5000, progress=stop_after(2000))
    assert run(4999).encoded < ROWS - 1000  # another input, but what was encoded for the first still counts
    assert verify(cache_path).ok and left_behind(tmp_path) == []


def test_a_second_writer_is_told_at_once(run, cache_path):
    run(10)
    with writer_lock(cache_path), pytest.raises(EmbedcacheError, match="another extract is writing"):
        run(20)
    assert run(20).encoded == 10


def test_locks_refused(run, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(EmbedcacheError, match="refuses locks"):
        run(10)


def test_readers_see_whole_rows_while_a_writer_works(run, cache_path):
    seen = []

    def progress(done, total, count):
        with open_cache(cache_path) as cache:
            seen.append((cache.rows, cache.missing_rows()))
            done_rows = cache.rows - cache.missing_rows()
            assert cache.embeddings(allow_incomplete=True)[:done_rows].any(axis=1).all()

    run(ROWS, progress=progress)
    assert seen[0] == (ROWS, ROWS) and (ROWS, ROWS - 1024) in seen
    seen.clear()
    run(ROWS + 50, progress=progress)
    assert set(seen) == {(ROWS, 0)}


def test_removed_or_replaced_while_running(run, cache_path):
    with pytest.raises(EmbedcacheError, match="removed or replaced"):
        run(50, progress=lambda *_: cache_path.unlink(missing_ok=True))
    run(50)
    other = cache_path.with_name("table.csv")

    def replace(*_):
        shutil.copy(other, cache_path.with_name("x"))
        cache_path.with_name("x").replace(cache_path)

    with pytest.raises(EmbedcacheError, match="was replaced during this run"):
        run(60, progress=replace)
    assert cache_path.read_bytes() == other.read_bytes()


def test_disk_full_is_said_before_any_encoding(run, cache_path, tmp_path, monkeypatch):
    run(20)
    before = cache_path.read_bytes()

    def full(handle, offset, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(EmbedcacheError, match=r"not enough space .*: [\d,]+ bytes are needed, [\d,]+ are free"):
        run(5000, progress=lambda *_: pytest.fail("encoded"))
    assert cache_path.read_bytes() == before and left_behind(tmp_path) == []


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, None])
def test_file_systems_that_cannot_reserve(run, monkeypatch, code):
    def refuse(handle, offset, size):
        raise OSError(code, "not supported")

    if code is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    assert run(10).encoded == 10
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 99, 99))
    with pytest.raises(EmbedcacheError, match="99 are free"):
        run(20)


def test_a_disk_that_fails_midway(run, cache_path, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(EmbedcacheError, match=r"cannot write .*run extract again"):
        run(ROWS, progress=lambda done, total, count: count > 2000 and patch.setattr(os, "pwrite", fail))
    assert 0 < run(ROWS).encoded < ROWS and verify(cache_path).ok


def test_no_such_folder(run, tmp_path, tiny_bert):
    table = write_csv(tmp_path / "table.csv", make_reviews(3))
    with pytest.raises(EmbedcacheError, match="no such folder"):
        extract(table, tmp_path / "no" / "c.h5", model=tiny_bert)
    with pytest.raises(EmbedcacheError, match="it is a folder"):
        extract(table, tmp_path, model=tiny_bert)
