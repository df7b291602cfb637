"""Exact search by cosine, straight from the stored vectors, and what all kinds share: rows at unit length."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.common.machine import cap_loaded_threads, usable_cores
from embedcache.errors import EmbedcacheError
from embedcache.index.kind import Cost, IndexKind, copies

CHUNK_BYTES = 8 << 20  # of float32, that are made at once: they stay in a core's share of the cache
FEW_QUERIES = 8  # are compared row by row; more are a matrix product
FLOAT16_END = 65536.0  # above every number in float16
SAFE = 1e-30, 1e30  # squared lengths that float32 holds without loss
HALF_ERROR = 2.0**-11 + 1e-5  # of a score, by rounding to float16, and float32


def unit_length(X: Any, mean: np.ndarray | None = None) -> np.ndarray:
    """[n, D] numbers to float32 rows of length 1, after ``mean`` [D] is taken off.

    A row that has no direction (zero, or with NaN or infinity) becomes zero.
    """
    X = np.asarray(X)
    if X.dtype not in (np.float16, np.float32):
        return _unit_length_slowly(X, mean)
    U = _widened(X) if X.dtype == np.float16 else np.array(X, dtype=np.float32, order="C")
    largest = FLOAT16_END**2 if X.dtype == np.float16 else SAFE[1]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", U, U)
        safe = (squares > SAFE[0]) & (squares < largest)
        if mean is not None:
            U -= mean
            squares = np.einsum("ij,ij->i", U, U)
            safe &= squares > SAFE[0]
        U *= (1 / np.sqrt(np.where(safe, squares, 1)))[:, None]
    if not safe.all():
        U[~safe] = _unit_length_slowly(X[~safe], mean)
    return U


def _widened(X: np.ndarray) -> np.ndarray:
    """float16 to float32 by moving bits, several times as fast as NumPy's cast.

    Sign, exponent and fraction go to their places, the exponent's other bias is a factor. Infinity and NaN become
    numbers of FLOAT16_END and more.
    """
    bits = X.view(np.int16).astype(np.int32)
    bits <<= 13
    bits &= np.int32(-0x70002000)  # the sign, five bits of exponent, ten of fraction
    U = np.ascontiguousarray(bits.view(np.float32))
    U *= np.float32(2.0**112)
    return U


def _unit_length_slowly(X: np.ndarray, mean: np.ndarray | None) -> np.ndarray:
    """For any numbers: divides by the largest first, so that no square overflows."""
    X = X.astype(np.float64)
    usable = np.isfinite(X).all(axis=1) & X.any(axis=1)
    X = np.where(usable[:, None], X, 0)
    if mean is not None:
        X -= np.where(usable[:, None], mean, 0)
    X /= np.maximum(np.abs(X).max(axis=1, initial=0), np.finfo(np.float64).tiny)[:, None]
    lengths = np.sqrt(np.einsum("ij,ij->i", X, X))
    return np.ascontiguousarray(X / np.where(lengths > 0, lengths, 1)[:, None], dtype=np.float32)


class StoredRows:
    """N vectors as they are searched: at unit length, centred on ``mean`` first if there is one.

    Args:
        stored: [N, D], left where it is (a memory map, say); int8 with scales is decoded in parts.
        mean: float32 [D] or None.
    """

    def __init__(self, stored: Matrix, mean: np.ndarray | None = None) -> None:
        self.stored, self.mean = stored, mean

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def dim(self) -> int:
        return int(self.stored.shape[1])

    def unit(self, rows: Any) -> np.ndarray:
        """float32 [n, D] of some rows (a slice or int64 [n])."""
        return unit_length(self.stored[rows], self.mean)

    def chunks(self, count: int | None = None) -> Iterator[slice]:
        """Slices of 0 ... count (N), each a few MB."""
        count = len(self) if count is None else count
        step = max(64, CHUNK_BYTES // (4 * self.dim) // 64 * 64)
        return (slice(start, min(start + step, count)) for start in range(0, count, step))


def mean_of(stored: Matrix) -> np.ndarray:
    """float32 [D]: the mean of the rows that have a direction."""
    total, count = np.zeros(stored.shape[1]), 0
    for part in StoredRows(stored).chunks():
        X = stored[part].astype(np.float64)
        usable = np.isfinite(X).all(axis=1) & X.any(axis=1)
        total += X[usable].sum(axis=0)
        count += int(usable.sum())
    return (total / max(count, 1)).astype(np.float32)


class Exact(IndexKind):
    """Every row is compared with every query; nothing is lost.

    The first single queries are answered straight from the stored vectors. Once there is a second call, float16
    copies at unit length are kept (2 N D bytes): they are scanned by FAISS, one part on each core, and what may be
    among the best by the error that rounding can have made is compared again in float32.
    """

    kind = "exact"
    what = "every row is compared"
    when = "up to 200,000 rows (2,000,000 on a GPU), or `--recall 1`, or where nothing else fits or reaches the recall"

    @classmethod
    def cost(cls, rows: int, dim: int) -> Cost:
        return Cost({}, 0.0, copies(rows, dim))

    def __init__(self, rows: StoredRows, memory: float = math.inf) -> None:
        self.rows = rows
        self._fits = 2 * len(rows) * rows.dim <= memory  # else every search reads the stored vectors
        self._calls, self._lock = 0, threading.Lock()
        self._scan: HalfScan | None = None

    def search(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, [q, k], best first; 1 <= k <= rows that are allowed; Q at unit length."""
        allowed = None if among is None else np.flatnonzero(among)
        count = len(self.rows) if allowed is None else len(allowed)
        few = len(Q) <= FEW_QUERIES
        if few and count > len(self.rows) // 8 and k <= count // 16 and self._prepared():
            assert self._scan is not None
            return self._scan.search(Q, k, among)
        return search_all(self.rows, Q, k, allowed)

    def prepare(self) -> None:
        """Make the float16 copies now."""
        with self._lock:
            if self._scan is None and self._fits:
                self._scan = HalfScan(self.rows)

    def _prepared(self) -> bool:
        with self._lock:
            self._calls += 1
            first = self._calls == 1
        if not first and self._scan is None:
            self.prepare()
        return self._scan is not None


def search_all(rows: StoredRows, Q: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The k best of the rows ``allowed`` (int64, ascending; None: all), read once, in chunks."""
    count = len(rows) if allowed is None else len(allowed)
    few = len(Q) <= FEW_QUERIES
    faiss: Any = None if few else import_faiss()

    def best_of(part: slice) -> tuple[np.ndarray, np.ndarray]:
        U = rows.unit(part if allowed is None else allowed[part])
        if few:
            scores, found = top(Q @ U.T, k)
        else:
            scores, found = faiss.knn(Q, U, min(k, len(U)), metric=faiss.METRIC_INNER_PRODUCT)
        return scores, found + part.start

    best = np.empty((len(Q), 0), np.float32), np.empty((len(Q), 0), np.int64)
    for one in _in_threads(best_of, rows.chunks(count), few):
        best = merge([best, one], k)
    scores, found = best
    return scores, found if allowed is None else allowed[found]


def _in_threads(work: Any, parts: Iterator[slice], several: bool) -> Iterator[Any]:
    """Threads of its own only where the work itself uses one."""
    listed = list(parts)
    cores = usable_cores()
    if not several or cores == 1 or len(listed) == 1:
        yield from map(work, listed)
        return
    with ThreadPoolExecutor(cores) as pool:
        yield from pool.map(work, listed)


def top(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest of each row, best first, and their places (the first of equals)."""
    k, width = min(k, scores.shape[1]), scores.shape[1]
    places = np.argpartition(scores, width - k, axis=1)[:, width - k :] if k < width else None
    if places is None:
        places = np.broadcast_to(np.arange(width), scores.shape)
    values = np.take_along_axis(scores, places, axis=1)
    order = np.lexsort((places, -values), axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(places, order, axis=1)


def merge(parts: list[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of several (scores, rows)."""
    scores, rows = (np.concatenate(some, axis=1) for some in zip(*parts, strict=True))
    values, places = top(scores, k)
    return values, np.take_along_axis(rows, places, axis=1)


def scores_of(rows: StoredRows, Q: np.ndarray, found: np.ndarray) -> np.ndarray:
    """float32 [q, k]: cosines of Q [q, D] with the rows found [q, k], the same whatever else is asked for."""
    scores = np.empty(found.shape, np.float32)
    step = max(1, CHUNK_BYTES // (4 * rows.dim * max(1, found.shape[1])))
    parts = (slice(start, start + step) for start in range(0, len(Q), step))

    def fill(part: slice) -> None:
        U = rows.unit(found[part].ravel()).reshape(*found[part].shape, -1)
        np.einsum("qd,qkd->qk", Q[part], U, out=scores[part])

    for _ in _in_threads(fill, parts, several=True):
        pass
    return scores


class HalfScan:
    """float16 copies of unit vectors in FAISS, a part for each core; exact by comparing again in float32.

    A component that is rounded to float16 is off by at most 2**-11 of itself, so a score by at most 2**-11 (by
    Cauchy-Schwarz, of unit vectors). So many rows are compared again that those left out cannot be among the k best.
    """

    def __init__(self, rows: StoredRows) -> None:
        self.rows, faiss = rows, import_faiss()
        cores = min(usable_cores(), max(1, len(rows) // 4096))
        step = -(-len(rows) // cores // 64) * 64  # a filter's bits are cut at bytes
        self.parts = []
        for start in range(0, len(rows), step):
            part = faiss.IndexScalarQuantizer(rows.dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
            self.parts.append((start, part))
            for chunk in rows.chunks(min(step, len(rows) - start)):
                part.add(rows.unit(slice(start + chunk.start, start + chunk.stop)))
        self._pool = ThreadPoolExecutor(len(self.parts)) if len(self.parts) > 1 else None

    def search(self, Q: np.ndarray, k: int, among: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        bits = None if among is None else np.packbits(among, bitorder="little")
        count = len(self.rows) if among is None else int(np.count_nonzero(among))
        width = min(count, 2 * k + 16)
        while True:
            rough, found = self._scan(Q, width, bits)
            values, places = top(scores_of(self.rows, Q, found), k)
            enough = values[:, -1] >= rough[:, -1] + HALF_ERROR
            if width == count or enough.all():
                return values, np.take_along_axis(found, places, axis=1)
            if width >= count // 16:  # too crowded to tell apart in float16
                return search_all(self.rows, Q, k, None if among is None else np.flatnonzero(among))
            width = min(4 * width, count)

    def _scan(self, Q: np.ndarray, width: int, bits: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        faiss = import_faiss()

        def one(part: tuple[int, Any]) -> tuple[np.ndarray, np.ndarray]:
            start, index = part
            options = {}
            if bits is not None:
                own = bits[start // 8 : (start + index.ntotal + 7) // 8]
                options["params"] = faiss.SearchParameters(sel=faiss.IDSelectorBitmap(own))
            scores, rows = index.search(Q, min(width, index.ntotal), **options)
            scores[rows < 0] = -np.inf
            return scores, rows + start

        found = list(map(one, self.parts) if self._pool is None else self._pool.map(one, self.parts))
        return merge(found, width)


def has_faiss() -> bool:
    """Whether it can be imported: a few rows are searched without it."""
    loaded = sys.modules.get("faiss", ...)
    return find_spec("faiss") is not None if loaded is ... else loaded is not None


def import_faiss() -> Any:
    first = "faiss" not in sys.modules
    try:
        import faiss
    except ImportError as error:
        raise EmbedcacheError(
            "search needs FAISS, which is not installed: pip install 'embedcache[cpu]', or 'embedcache[gpu]' (not both)"
        ) from error
    if first:
        cap_loaded_threads()
    return faiss
