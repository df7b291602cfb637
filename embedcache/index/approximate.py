"""The kinds that do not compare every row: HNSW, IVF and IVF with product quantization, by FAISS.

All find candidates at less cost; search_index.py gives them their exact scores. Where a filter leaves few rows, or
fewer than k are found, the rows allowed are compared one by one (exact.py), so k rows come back whenever k exist.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np

from embedcache.index import file_format
from embedcache.index.exact import Rows, import_faiss, scores_of, search_all, top
from embedcache.index.plan import HNSW_DEPTH, ITERATIONS, TRAIN_PER_LIST, Plan

FEW_ROWS = 4096  # allowed by a filter: so many are compared one by one
WIDEST = 8  # times more lists, or a longer queue, for a filter; beyond it the rows allowed are compared
SEED = 0
FEWEST_FOR_CODES = 16  # codewords of 4 bits; where there are fewer rows they are repeated

Tick = Callable[[float], None]  # told the share of the building that is done


class Approximate(ABC):
    """What the three kinds share. ``effort`` is nprobe of IVF, efSearch of HNSW; ``factor`` times k rows re-ranked."""

    kind = ""
    index: Any

    def __init__(self, rows: Rows, effort: int = 1, factor: int = 1) -> None:
        self.rows, self.effort, self.factor = rows, effort, factor

    @property
    @abstractmethod
    def most_effort(self) -> int:
        """The highest that makes sense."""

    @abstractmethod
    def train(self, plan: Plan, tick: Tick) -> None:
        """Make an index without rows that fits them."""

    def add(self, which: np.ndarray, tick: Tick) -> None:
        """Add rows (int64, ascending); all kinds but HNSW take them in the order of the file only."""
        for part in self.rows.chunks(len(which)):
            self._add(self.placed(which[part]))
            tick(part.stop / len(which))

    def _add(self, U: np.ndarray) -> None:
        self.index.add(U)

    def placed(self, which: Any) -> np.ndarray:
        """float32 [n, D], to be compared by squared distance, which is 2 - 2 cosine, and of vectors in float16 tells
        more than their product, since it makes up for their lengths. Rows without a direction are put far away."""
        U = self.rows.unit(which)
        U[~U.any(axis=1), 0] = 3
        return U

    @abstractmethod
    def sections(self) -> dict[str, Callable[[BinaryIO], None]]:
        """What a file needs besides the cache's vectors."""

    @abstractmethod
    def restore(self, sections: dict[str, np.ndarray], plan: Plan) -> None:
        """What ``sections`` gave."""

    def prepare(self) -> None:  # noqa: B027
        """Nothing: it is all there."""

    def search(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, [q, k], nearly best first; 1 <= k <= rows that are allowed."""
        allowed = len(self.rows) if among is None else int(np.count_nonzero(among))
        widen = len(self.rows) / allowed * max(1.0, (k / 10) ** 0.5)
        effort = min(int(np.ceil(self.effort * widen)), self.most_effort)
        if allowed <= FEW_ROWS or k > allowed // 16 or (among is not None and widen > WIDEST):
            return self._one_by_one(Q, k, among)
        scores, found = self.candidates(Q, k, effort, self.factor, among)
        short = (found < 0).any(axis=1)
        if short.any():
            scores[short], found[short] = self._one_by_one(Q[short], k, among)
        return scores, found

    def candidates(
        self, Q: np.ndarray, k: int, effort: int, factor: int, among: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """k rows of each query, -1 where there are fewer."""
        distances, rows = self.index.search(Q, k, params=self._parameters(effort, selector(among)))
        return 1 - distances / 2, rows

    def _parameters(self, effort: int, options: dict[str, Any]) -> Any:
        return import_faiss().SearchParametersIVF(nprobe=effort, **options)

    def _one_by_one(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        return search_all(self.rows, Q, k, None if among is None else np.flatnonzero(among))


class Hnsw(Approximate):
    """A graph of neighbours (Malkov & Yashunin, 2016), over float16 copies, in the ``order`` in which rows came.

    A row in the graph is found more easily than others (its links lead to its neighbours), so recall is measured with
    rows that are added only afterwards.
    """

    kind = "hnsw"

    @property
    def most_effort(self) -> int:
        return max(16, min(len(self.rows), 4096))

    def train(self, plan: Plan, tick: Tick) -> None:
        faiss = import_faiss()
        self.index = faiss.IndexHNSWSQ(self.rows.dim, faiss.ScalarQuantizer.QT_fp16, plan.parameters["links"])
        self.index.hnsw.efConstruction = HNSW_DEPTH
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

    def restore(self, sections: dict[str, np.ndarray], plan: Plan) -> None:
        faiss = import_faiss()
        self.index = take_faiss(sections["graph"], "IndexHNSWSQ", len(self.rows), self.rows.dim)
        self._vectors = faiss.IndexScalarQuantizer(self.rows.dim, faiss.ScalarQuantizer.QT_fp16)
        self.order = file_format.take_array(sections["order"], np.int64, len(self.rows)).copy()
        if not np.array_equal(np.sort(self.order), np.arange(len(self.rows))):
            raise file_format.SpoiltError("its order is none")
        for part in self.rows.chunks():
            self._vectors.add(self.placed(self.order[part]))
        self.index.storage, self.index.own_fields = self._vectors, False
        self.index.hnsw.efConstruction = HNSW_DEPTH


class Ivf(Approximate):
    """Rows in lists, each of those nearest to a centroid; the lists of the centroids nearest to a query are read."""

    kind = "ivf"

    @property
    def most_effort(self) -> int:
        return int(self.index.nlist)

    def train(self, plan: Plan, tick: Tick) -> None:
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
        half = faiss.ScalarQuantizer.QT_fp16
        shape = self._quantizer, self.rows.dim, len(centroids)
        self.index = faiss.IndexIVFScalarQuantizer(*shape, half, faiss.METRIC_L2, False)
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

    def restore(self, sections: dict[str, np.ndarray], plan: Plan) -> None:
        count = int(plan.parameters["lists"])
        self._centroids = file_format.take_array(sections["centroids"], np.float32, count, self.rows.dim)
        self._lists = file_format.take_array(sections["lists"], np.int32, len(self.rows))
        if self._lists.min() < 0 or self._lists.max() >= count:
            raise file_format.SpoiltError("rows of no list")
        self._empty(self._centroids)
        for part in self.rows.chunks():
            self._put(self.placed(part), self._lists[part].astype(np.int64))


class IvfPq(Ivf):
    """IVF over 4-bit codes of what a row differs from its centroid, scanned in registers; the best are re-ranked."""

    kind = "ivfpq"

    def train(self, plan: Plan, tick: Tick) -> None:
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

    def _refined(self, plan: Plan) -> None:
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

    def restore(self, sections: dict[str, np.ndarray], plan: Plan) -> None:
        self.index = take_faiss(sections["codes"], "IndexIVFPQFastScan", len(self.rows), self.rows.dim)
        self._refined(plan)
        if self._copies is not None:
            for part in self.rows.chunks():
                self._copies.add(self.placed(part))


def selector(among: np.ndarray | None) -> dict[str, Any]:
    """FAISS's filter for bool [N]; its bits stay alive as long as it does."""
    return {} if among is None else {"sel": import_faiss().IDSelectorBitmap(np.packbits(among, bitorder="little"))}


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


def put_faiss(index: Any, without_vectors: bool = False) -> Callable[[BinaryIO], None]:
    """A section's bytes, as FAISS writes them."""

    def put(file: BinaryIO) -> None:
        faiss = import_faiss()
        flags = faiss.IO_FLAG_SKIP_STORAGE if without_vectors else 0
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write), flags)

    return put


def take_faiss(section: np.ndarray, kind: str, rows: int, dim: int) -> Any:
    """What ``put_faiss`` wrote; its checksum has been found right."""
    faiss, position = import_faiss(), 0

    def read(count: int) -> bytes:
        nonlocal position
        position += count
        return bytes(section[position - count : position])

    try:
        index = faiss.read_index(faiss.PyCallbackIOReader(read))
    except (RuntimeError, MemoryError) as error:
        raise file_format.SpoiltError(" ".join(str(error).split())[:120]) from None
    if type(index).__name__ != kind or (index.ntotal, index.d) != (rows, dim):
        raise file_format.SpoiltError("it holds something else than it says")
    return index


ENGINES: dict[str, type[Approximate]] = {"hnsw": Hnsw, "ivf": Ivf, "ivfpq": IvfPq}
