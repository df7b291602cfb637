"""IVF with product quantization: 4-bit codes find the candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from embedcache.index.approximate import Tick, put_faiss, selector, take_faiss
from embedcache.index.exact import import_faiss, scores_of, top
from embedcache.index.kind import Cost, IndexPlan, copies
from embedcache.index.kinds.ivf import Ivf, lists_of, train_centroids

FEWEST_FOR_CODES = 16  # codewords of 4 bits; where there are fewer rows they are repeated


class IvfPq(Ivf):
    """IVF over 4-bit codes of what a row differs from its centroid, scanned in registers; the best are re-ranked."""

    kind = "ivfpq"
    what = "IVF; 4-bit codes are scanned in registers (FAISS's fast scan), the best are re-ranked exactly"
    when = "above"
    auto_on = ("cpu",)
    on_gpu = False
    factors = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

    @classmethod
    def cost(cls, rows: int, dim: int) -> Cost:
        lists, codes = lists_of(rows), code_numbers(dim)
        encoding = 2.0 * rows * dim * 16 * 4  # each of 16 codewords, without matrix products
        size = copies(rows, dim) + rows * (-(-codes // 2) + 8) + 4 * lists * dim
        parameters = {"lists": lists, "code_bits": 4 * codes, "rerank": "memory"}
        return Cost(parameters, super().cost(rows, dim).work + encoding, size)

    @classmethod
    def cost_without_copies(cls, rows: int, dim: int) -> Cost:
        """Those of the cache are read for each query."""
        cost = cls.cost(rows, dim)
        parameters = {**cost.parameters, "rerank": "stored"}
        return cost._replace(parameters=parameters, bytes=cost.bytes - copies(rows, dim))

    def train(self, plan: IndexPlan, tick: Tick) -> None:
        faiss, lists = import_faiss(), plan.parameters["lists"]
        sample = self._sample(lists)
        self._quantizer = faiss.IndexFlatL2(self.rows.dim)
        self._quantizer.add(train_centroids(sample, lists, lambda share: tick(share * 0.8)))
        codes = plan.parameters["code_bits"] // 4
        self.index = faiss.IndexIVFPQFastScan(self._quantizer, self.rows.dim, lists, codes, 4, faiss.METRIC_L2)
        self.index.pq.cp.min_points_per_centroid = 1  # else FAISS itself warns on the screen where rows are few
        learnt = np.resize(sample, (max(len(sample), FEWEST_FOR_CODES), self.rows.dim))
        with one_thread():
            self.index.train(learnt)
        self._refined(plan)

    def _refined(self, plan: IndexPlan) -> None:
        """With float16 copies for re-ranking, where there is memory for them."""
        faiss = import_faiss()
        self._copies: Any = None
        self._refine: Any = None
        if plan.parameters["rerank"] == "memory":
            self._copies = faiss.IndexScalarQuantizer(self.rows.dim, faiss.ScalarQuantizer.QT_fp16)

    def _add(self, U: np.ndarray) -> None:
        self.index.add(U)
        if self._copies is not None:
            self._copies.add(U)
        self._refine = None

    def candidates(
        self, Q: np.ndarray, k: int, effort: int, factor: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        faiss, scan = import_faiss(), self._parameters(effort, selector(among))
        if self._copies is not None:
            if self._refine is None:
                self._refine = faiss.IndexRefine(self.index, self._copies)
            both = faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=scan)
            distances, found = self._refine.search(Q, k, params=both)
            return 1 - distances / 2, found
        _, found = self.index.search(Q, k * factor, params=scan)
        scores = scores_of(self.rows, Q, np.maximum(found, 0))
        values, places = top(np.where(found < 0, -np.inf, scores), k)
        return values, np.take_along_axis(found, places, axis=1)

    def sections(self) -> dict[str, Callable[[BinaryIO], None]]:
        return {"codes": put_faiss(self.index)}

    def restore(self, sections: dict[str, np.ndarray], plan: IndexPlan) -> None:
        self.index = take_faiss(sections["codes"], "IndexIVFPQFastScan", len(self.rows), self.rows.dim)
        self._refined(plan)
        if self._copies is not None:
            for part in self.rows.chunks():
                self._copies.add(self.placed(part))


def code_numbers(dim: int) -> int:
    """Sub-quantizers of 4 bits: one for each number of narrow vectors, for each pair of wide ones."""
    return dim // 2 if dim > 96 and dim % 2 == 0 else dim


@contextmanager
def one_thread() -> Iterator[None]:
    """For many short works, whose threads would mostly wait for each other, and on a busy machine for the processor."""
    faiss = import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
