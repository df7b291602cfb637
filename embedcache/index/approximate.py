"""What the kinds share that do not compare every row, by FAISS.

All find candidates at less cost; search_index.py gives them their exact scores. Where a filter leaves few rows, or
fewer than k are found, the rows allowed are compared one by one (exact.py), so k rows come back whenever k exist.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np

from embedcache.index import file_format
from embedcache.index.exact import StoredRows, import_faiss, search_all
from embedcache.index.kind import IndexKind, IndexPlan

FEW_ROWS = 4096  # allowed by a filter: so many are compared one by one
WIDEST = 8  # times more lists, or a longer queue, for a filter; beyond it the rows allowed are compared
SEED = 0

Tick = Callable[[float], None]  # called with the share of the building that is done


class Approximate(IndexKind):
    """A kind that finds candidates at less cost. ``effort`` and ``factor`` are tuned to the recall that is asked.

    Attributes:
        effort_name: what ``effort`` is among the parameters.
        factors: times k rows that are compared again, as many as are tried; (1,): none are.
        holds_out: the rows that recall is measured with are added only afterwards.
        on_gpu: FAISS searches it on a GPU, too.
    """

    effort_name: ClassVar[str] = "probes"
    factors: ClassVar[tuple[int, ...]] = (1,)
    holds_out: ClassVar[bool] = False
    on_gpu: ClassVar[bool] = False
    index: Any

    def __init__(self, rows: StoredRows, effort: int = 1, factor: int = 1) -> None:
        self.rows, self.effort, self.factor = rows, effort, factor

    @property
    @abstractmethod
    def most_effort(self) -> int:
        """The highest that is useful."""

    @abstractmethod
    def train(self, plan: IndexPlan, tick: Tick) -> None:
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
    def restore(self, sections: dict[str, np.ndarray], plan: IndexPlan) -> None:
        """What ``sections`` gave."""

    def prepare(self) -> None:
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


def selector(among: np.ndarray | None) -> dict[str, Any]:
    """FAISS's filter for bool [N]; its bits stay alive as long as it does."""
    return {} if among is None else {"sel": import_faiss().IDSelectorBitmap(np.packbits(among, bitorder="little"))}


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
        raise file_format.SpoiltError("it does not hold what its footer says")
    return index
