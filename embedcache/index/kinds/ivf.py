"""IVF: rows in lists, of which those nearest to a query are read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from embedcache.index import file_format
from embedcache.index.approximate import SEED, Approximate, Tick
from embedcache.index.exact import import_faiss
from embedcache.index.kind import Cost, IndexPlan, copies

TRAIN_PER_LIST = 64  # rows for each list, in k-means; FAISS asks for 39 at least
ITERATIONS = 10  # of k-means


class Ivf(Approximate):
    """Rows in lists, each of those nearest to a centroid; the lists of the centroids nearest to a query are read."""

    kind = "ivf"
    what = "IVF over float16 copies"
    when = "on a GPU, above 2,000,000 rows"
    auto_on = ("cuda",)
    on_gpu = True
    quantizer = "QT_fp16"  # how the lists hold the vectors

    @classmethod
    def cost(cls, rows: int, dim: int) -> Cost:
        lists = lists_of(rows)
        training = 2.0 * min(rows, TRAIN_PER_LIST * lists) * lists * dim * ITERATIONS
        assigning = 2.0 * rows * dim * lists
        return Cost({"lists": lists}, training + assigning, copies(rows, dim) + 8 * rows + 4 * lists * dim)

    @property
    def most_effort(self) -> int:
        return int(self.index.nlist)

    def train(self, plan: IndexPlan, tick: Tick) -> None:
        sample = self._sample(plan.parameters["lists"])
        self._centroids = train_centroids(sample, plan.parameters["lists"], tick)
        self._empty(self._centroids)
        self._lists = np.empty(0, np.int32)

    def _sample(self, lists: int) -> np.ndarray:
        """Rows to train on, in the order of the file, which is the quickest to read."""
        count = min(len(self.rows), TRAIN_PER_LIST * lists)
        chosen = np.random.default_rng(SEED).choice(len(self.rows), count, replace=False)
        return self.rows.unit(np.sort(chosen))

    def _empty(self, centroids: np.ndarray) -> None:
        faiss = import_faiss()
        self._quantizer = faiss.IndexFlatL2(self.rows.dim)
        self._quantizer.add(centroids)
        stored = getattr(faiss.ScalarQuantizer, self.quantizer)
        shape = self._quantizer, self.rows.dim, len(centroids)
        self.index = faiss.IndexIVFScalarQuantizer(*shape, stored, faiss.METRIC_L2, False)
        self.index.is_trained = True

    def _add(self, U: np.ndarray) -> None:
        lists = self._quantizer.search(U, 1)[1].ravel()
        self._put(U, lists)
        self._lists = np.concatenate([self._lists, lists.astype(np.int32)])

    def _put(self, U: np.ndarray, lists: np.ndarray) -> None:
        pointer = import_faiss().swig_ptr
        self.index.add_core(len(U), pointer(U), None, pointer(lists))

    def sections(self) -> dict[str, Callable[[BinaryIO], None]]:
        return {"centroids": file_format.put_array(self._centroids), "lists": file_format.put_array(self._lists)}

    def restore(self, sections: dict[str, np.ndarray], plan: IndexPlan) -> None:
        count = int(plan.parameters["lists"])
        self._centroids = file_format.take_array(sections["centroids"], np.float32, count, self.rows.dim)
        self._lists = file_format.take_array(sections["lists"], np.int32, len(self.rows))
        if self._lists.min() < 0 or self._lists.max() >= count:
            raise file_format.SpoiltError("rows of no list")
        self._empty(self._centroids)
        for part in self.rows.chunks():
            self._put(self.placed(part), self._lists[part].astype(np.int64))


def lists_of(rows: int) -> int:
    """How many lists IVF cuts the rows into: 4 sqrt(N) rounded to a power of 2, each with rows to train on."""
    wanted = 2 ** round(math.log2(4 * math.sqrt(rows)))
    return max(1, min(wanted, rows // 39))


def train_centroids(sample: np.ndarray, lists: int, tick: Tick) -> np.ndarray:
    """float32 [lists, D] by k-means, one iteration at a time, so that it can be watched and stopped."""
    faiss, centroids = import_faiss(), None
    for i in range(ITERATIONS):
        step = faiss.Kmeans(sample.shape[1], lists, niter=1, seed=SEED, max_points_per_centroid=len(sample))
        step.cp.min_points_per_centroid = 1
        step.train(sample, init_centroids=centroids)
        centroids = step.centroids
        tick((i + 1) / ITERATIONS)
    return np.array(centroids)
