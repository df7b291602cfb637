"""HNSW: a graph of neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from embedcache.index import file_format
from embedcache.index.approximate import Approximate, Tick, put_faiss, take_faiss
from embedcache.index.exact import import_faiss
from embedcache.index.kind import Cost, IndexPlan, copies

LINKS, DEPTH = 32, 80  # M and efConstruction of Malkov & Yashunin, 2016
SCATTERED = 40  # how much slower its single, scattered comparisons are than a matrix product


class Hnsw(Approximate):
    """A graph of neighbours (Malkov & Yashunin, 2016), over float16 copies, in the ``order`` in which rows came.

    A row in the graph is found more easily than others (its links lead to its neighbours), so recall is measured with
    rows that are added only afterwards.
    """

    kind = "hnsw"
    what = "a graph (Malkov & Yashunin) over float16 copies"
    when = "never: it takes many times as long to build, for a third of the queries/s in a batch"
    effort_name = "search_depth"
    holds_out = True

    @classmethod
    def cost(cls, rows: int, dim: int) -> Cost:
        compared = rows * DEPTH * LINKS * 0.6  # neighbours looked at, some of them twice
        size = copies(rows, dim) + rows * (8 * LINKS + 16)
        return Cost({"links": LINKS, "depth": DEPTH}, compared * 2 * dim * SCATTERED, size)

    @property
    def most_effort(self) -> int:
        return max(16, min(len(self.rows), 4096))

    def train(self, plan: IndexPlan, tick: Tick) -> None:
        faiss = import_faiss()
        self.index = faiss.IndexHNSWSQ(self.rows.dim, faiss.ScalarQuantizer.QT_fp16, plan.parameters["links"])
        self.index.hnsw.efConstruction = DEPTH
        self.order = np.empty(0, np.int64)

    def add(self, which: np.ndarray, tick: Tick) -> None:
        super().add(which, tick)
        self.order = np.concatenate([self.order, which])

    def candidates(
        self, Q: np.ndarray, k: int, effort: int, factor: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        scores, found = super().candidates(Q, k, effort, factor, None if among is None else among[self.order])
        return scores, np.where(found < 0, -1, self.order[found])

    def _parameters(self, effort: int, options: dict[str, Any]) -> Any:
        return import_faiss().SearchParametersHNSW(efSearch=effort, **options)

    def sections(self) -> dict[str, Callable[[BinaryIO], None]]:
        return {"graph": put_faiss(self.index, without_vectors=True), "order": file_format.put_array(self.order)}

    def restore(self, sections: dict[str, np.ndarray], plan: IndexPlan) -> None:
        faiss = import_faiss()
        self.index = take_faiss(sections["graph"], "IndexHNSWSQ", len(self.rows), self.rows.dim)
        self._vectors = faiss.IndexScalarQuantizer(self.rows.dim, faiss.ScalarQuantizer.QT_fp16)
        self.order = file_format.take_array(sections["order"], np.int64, len(self.rows)).copy()
        if not np.array_equal(np.sort(self.order), np.arange(len(self.rows))):
            raise file_format.SpoiltError("its row order is not a permutation")
        for part in self.rows.chunks():
            self._vectors.add(self.placed(self.order[part]))
        self.index.storage, self.index.own_fields = self._vectors, False
        self.index.hnsw.efConstruction = DEPTH
