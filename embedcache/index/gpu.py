"""The same searches on a GPU, by FAISS: clones in float16, and exact scores afterwards as everywhere.

FAISS's GPU indexes know no filters and take one search at a time: a filter is answered by the CPU, and threads wait.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from embedcache.index.approximate import Approximate
from embedcache.index.exact import HALF_ERROR, Exact, StoredRows, import_faiss, scores_of, search_all, top

MOST_NEIGHBOURS = 2048  # that a GPU index gives


def clone(index: Any, gpu: int) -> tuple[Any, Any]:
    """The index on GPU number ``gpu`` with its vectors in float16, and the resources that it lives from."""
    faiss = import_faiss()
    options, resources = faiss.GpuClonerOptions(), faiss.StandardGpuResources()
    options.useFloat16 = True
    return faiss.index_cpu_to_gpu(resources, gpu, index, options), resources


class GpuExact:
    """Every row is compared on the GPU in float16; what may be among the best again in float32."""

    kind = "exact"

    def __init__(self, rows: StoredRows, gpu: int) -> None:
        self.rows, self._gpu, self._lock = rows, gpu, threading.Lock()
        self._on_cpu = Exact(rows)
        self._index: Any = None

    def prepare(self) -> None:
        """Copy the vectors to the GPU now."""
        with self._lock:
            if self._index is None:
                index, self._resources = clone(import_faiss().IndexFlatIP(self.rows.dim), self._gpu)
                for part in self.rows.chunks():
                    index.add(self.rows.unit(part))
                self._index = index

    def search(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """As ``Exact.search``."""
        width = min(len(self.rows), 2 * k + 16)
        if among is not None or width > MOST_NEIGHBOURS:
            return self._on_cpu.search(Q, k, among)
        self.prepare()
        with self._lock:
            rough, found = self._index.search(Q, width)
        values, places = top(scores_of(self.rows, Q, found), k)
        found = np.take_along_axis(found, places, axis=1)
        # Of the query's numbers in float16, too: twice the error of one rounding.
        unsure = values[:, -1] < rough[:, -1] + 2 * HALF_ERROR
        if width < len(self.rows) and unsure.any():
            values[unsure], found[unsure] = search_all(self.rows, Q[unsure], k, None)
        return values, found


class GpuIvf:
    """IVF whose lists are read on the GPU."""

    kind = "ivf"

    def __init__(self, engine: Approximate, gpu: int) -> None:
        self.on_cpu, self._lock = engine, threading.Lock()
        self._index, self._resources = clone(engine.index, gpu)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.on_cpu, name)

    def search(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """As ``Approximate.search``."""
        if among is not None or k > min(MOST_NEIGHBOURS, len(self.on_cpu.rows) // 16):
            return self.on_cpu.search(Q, k, among)
        with self._lock:
            self._index.nprobe = min(MOST_NEIGHBOURS, self.on_cpu.effort)
            distances, found = self._index.search(Q, k)
        scores = 1 - distances / 2
        short = (found < 0).any(axis=1)
        if short.any():
            scores[short], found[short] = search_all(self.on_cpu.rows, Q[short], k, None)
        return scores, found
