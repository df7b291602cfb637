"""Weights of a bank that memory does not hold are in a file: the same heads, to the bit."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import memory as room
from embedcache.heads.engine import EngineWarning
from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((300, 24), dtype=np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int32)


def train(data: tuple[np.ndarray, np.ndarray], **options: Any) -> Any:
    grid = head_grid(hidden=[0, 16], seed=range(2))
    return train_heads(*data, grid, validation=data, epochs=2, standardize=True, device="cpu", threads=1, **options)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_in_a_file_as_in_memory(
    data: tuple[np.ndarray, np.ndarray], engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(data, engine=engine)
    monkeypatch.setattr(room, "memory_free", lambda: 100.0)
    with pytest.warns(EngineWarning, match=r"4 heads take .* of memory are free: their weights are kept in a file"):
        found = train(data, engine=engine)
    for one, other in zip(found.heads, expected.heads, strict=True):
        assert not one.weights["w2"].flags.owndata
        for name, array in other.weights.items():
            assert np.array_equal(one.weights[name], array)
    assert found.best.spec == expected.best.spec


def test_neither_memory_nor_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(room, "memory_free", lambda: 0.0)
    with pytest.raises(EmbedcacheError, match=r"2,000 heads take .* has no room for them either"):
        room.WeightRoom(1 << 55, 2000, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fewer_threads_where_heads_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "usable_cores", lambda: 8)
    assert room.fitting_threads(0, 1000) == 0 and room.fitting_threads(3, 1000) == 3
    monkeypatch.setattr(room, "memory_free", lambda: 2.5e9)
    monkeypatch.setattr("embedcache.common.machine.memory_free", lambda: 2.5e9)
    weights = 10**9 // room.STATE
    assert room.fitting_threads(0, weights) == 2 and room.fitting_threads(1, weights) == 1
    with pytest.raises(EmbedcacheError, match=r"weights need about 3\.0 GB of memory, 2\.5 GB are free: use a smaller"):
        room.fitting_threads(0, 3 * weights)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="needs a system that takes pages back")
def test_a_head_that_goes_gives_its_memory_back() -> None:
    """However many others of its bank stay; and those keep their weights."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE

    place, shapes = room.WeightRoom(4 << 24, 4), {"w2": (2, 2**21 - 64), "b2": (2,)}
    heads = [place.zeros(shapes) for _ in range(4)]
    assert not any(array.any() for head in heads for array in head.values())
    for i, head in enumerate(heads):
        for array in head.values():
            array[...] = i
    before = resident()
    kept = heads[2]["w2"]
    del heads, head, array, place
    assert before - resident() > 2.5 * 2**24
    assert (kept == 2).all()


def test_arrays_of_a_head_stand_one_after_the_other() -> None:
    """So that an engine can copy a head at once; each head begins on a cache line."""
    place = room.WeightRoom(4 * 2 * 7, 2)
    one, other = (place.zeros({"w2": (2, 3), "b2": (1,)}) for _ in range(2))
    assert one["b2"].ctypes.data == one["w2"].ctypes.data + 24
    assert other["w2"].ctypes.data == one["w2"].ctypes.data + room.LINE
