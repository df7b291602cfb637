"""import is killed again and again: the same call continues, and the cache is in the end that of an undisturbed one."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import open_cache, verify
from embedcache.vectors import fill
from tests.conftest import write_csv

ROWS, WIDTH = 30_000, 64
OLD = 20_000  # rows of the cache that the import replaces


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """v.npy, t.csv; old.h5, of its first rows; whole.h5, undisturbed."""
    folder = tmp_path_factory.mktemp("vectors")
    vectors = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    rows = [(f"text {i}", "yes" if i % 3 else "no") for i in range(ROWS)]
    for name, n in (("v", ROWS), ("old", OLD)):
        np.save(folder / f"{name}.npy", vectors[:n])
        write_csv(folder / f"{name}.csv", rows[:n])
    take(folder, "old", folder / "old.h5")
    take(folder, "v", folder / "whole.h5")
    return folder


def take(source: Path, name: str, cache: Path) -> None:
    ec.import_vectors(source / f"{name}.npy", cache, table=source / f"{name}.csv", encoder="e")


def forked(source: Path, cache: Path, kill_after: float | None) -> int:
    """The import in a child; returns its status as ``waitpid`` does."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            take(source, "v", cache)
            status = 0
        finally:
            os._exit(status)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def kill_often(source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, kills: int, seed: int) -> int:
    """Half of them on top of an older cache. Returns how many imports found the work of a killed one."""
    monkeypatch.setattr(fill, "TOGETHER", fill.BLOCK_ROWS)  # many steps
    rng, continued, killed = random.Random(seed), 0, 0
    started = time.perf_counter()
    assert forked(source, folder / "c.h5", None) == 0
    seconds = time.perf_counter() - started
    with open_cache(source / "whole.h5") as whole, open_cache(source / "old.h5") as old:
        while killed < kills:
            (folder / "c.h5").unlink(missing_ok=True)
            if rng.random() < 0.5:
                (folder / "c.h5").write_bytes((source / "old.h5").read_bytes())
            before = (folder / "c.h5").exists()
            for _ in range(3):
                status = forked(source, folder / "c.h5", rng.uniform(0, seconds))
                assert status in (0, signal.SIGKILL)
                killed += status != 0
                if before:  # the old cache or the new one, whole
                    with open_cache(folder / "c.h5") as found:
                        n = min(found.rows, OLD)
                        assert (found.embeddings("model")[:n] == old.embeddings("model")[:n]).all()
                continued += any(".new" in path.name for path in folder.iterdir())
            assert forked(source, folder / "c.h5", None) == 0
            assert verify(folder / "c.h5").ok
            with open_cache(folder / "c.h5") as found:
                assert (found.embeddings("model") == whole.embeddings("model")).all()
                assert found.texts[:] == whole.texts[:] and found.fingerprint == whole.fingerprint
                assert (found.labels("label")[0] == whole.labels("label")[0]).all()
            left = {path.name for path in folder.iterdir()}
            assert left <= {"c.h5", ".c.h5.lock"}, left
    return continued


@pytest.mark.timeout(280)
def test_killed_at_random_moments(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill_often(source, tmp_path, monkeypatch, kills=4, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_100_kills(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kill_often(source, tmp_path, monkeypatch, kills=100, seed=1) > 5
