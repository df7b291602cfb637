"""The branch for GPUs, with a stand-in for FAISS's GPU classes that computes on the CPU: no GPU is needed, and none of
these tests shows that a real one gives the same. It has the interface of faiss-gpu: no filters, one search at a time.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex, build
from tests.search.brute_force import assert_exact, cosines


class OnGpu:
    """A clone: float16 vectors, searched by one thread at a time."""

    def __init__(self, index: Any) -> None:
        self._index, self._busy, self.nprobe = index, threading.Lock(), 1
        OnGpu.made.append(self)

    made: ClassVar[list[OnGpu]] = []

    def add(self, U: np.ndarray) -> None:
        self._index.add(U.astype(np.float16).astype(np.float32))

    def search(self, Q: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        assert k <= 2048, "GPU indexes give no more"
        assert self._busy.acquire(blocking=False), "two searches at once on one GPU"
        try:
            if hasattr(self._index, "nprobe"):
                return self._index.search(Q, k, params=faiss.SearchParametersIVF(nprobe=self.nprobe))
            return self._index.search(Q.astype(np.float16).astype(np.float32), k)
        finally:
            self._busy.release()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[OnGpu]:
    class Options:
        useFloat16 = False  # noqa: N815

    def clone(resources: Any, number: int, index: Any, options: Options) -> OnGpu:
        assert isinstance(resources, Resources) and options.useFloat16 and number == 0
        return OnGpu(index)

    class Resources:
        pass

    for name, value in {
        "StandardGpuResources": Resources,
        "GpuClonerOptions": Options,
        "index_cpu_to_gpu": clone,
        "get_num_gpus": lambda: 1,
    }.items():
        monkeypatch.setattr(faiss, name, value, raising=False)
    monkeypatch.setattr(build, "may_have_gpu", lambda: True)
    OnGpu.made = []
    return OnGpu.made


rng = np.random.default_rng(0)
X = (rng.normal(size=(6000, 16)) + 2).astype(np.float32)
Q = rng.normal(size=(50, 16)) + 2


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_exact(gpu: list[OnGpu], device: str) -> None:
    index = SearchIndex.from_vectors(X, device=device)
    expected = cosines(Q, X)
    assert_exact(index.search(Q, 10), expected)
    assert len(gpu) == 1
    among = rng.random(len(X)) < 0.3
    assert_exact(index.search(Q, 10, among=among), np.where(among, expected, -2))
    assert_exact(index.search(Q[:2], 3000), expected[:2])
    with ThreadPoolExecutor(4) as pool:
        for i, found in enumerate(pool.map(index.search, Q)):
            assert_exact(found, expected[i : i + 1])


def test_ivf(gpu: list[OnGpu], tmp_path: Path) -> None:
    index = SearchIndex.from_vectors(X, kind="ivf", recall=0.95, device="cuda")
    on_cpu = SearchIndex.from_vectors(X, kind="ivf", recall=0.95, device="cpu")
    assert len(gpu) == 1 and gpu[0]._index is not None
    np.testing.assert_array_equal(index.search(Q).rows, on_cpu.search(Q).rows)
    among = rng.random(len(X)) < 0.9
    assert among[index.search(Q, 10, among=among).rows].all()
    index.save(tmp_path / "x.index")
    assert (SearchIndex.load(tmp_path / "x.index", device="cuda").search(Q).rows == on_cpu.search(Q).rows).all()
    assert len(gpu) == 2


def test_device_cpu_uses_none(gpu: list[OnGpu]) -> None:
    SearchIndex.from_vectors(X, device="cpu").search(Q)
    assert gpu == []


def test_without_a_gpu() -> None:
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this FAISS has GPUs")
    assert SearchIndex.from_vectors(X[:50]).search(Q).rows.shape == (50, 10)
    with pytest.raises(EmbedcacheError, match="FAISS finds no cuda here"):
        SearchIndex.from_vectors(X[:50], device="cuda")
    with pytest.raises(EmbedcacheError, match="unknown device 'tpu'"):
        SearchIndex.from_vectors(X[:50], device="tpu")
