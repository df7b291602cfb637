"""The texts most like each text, found once: for the neighbours' vote, for near-duplicates and for outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.common.progress import Progress
from embedcache.index import SearchIndex
from embedcache.index.own_row import without_own

CHUNK_ROWS = 4096  # queries at a time: their scores are what takes memory


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of N rows, best first.

    ``rows``: int32 [N, k], -1 where there is none; ``scores``: float32 [N, k], cosines.

    Texts that stand in several rows are found by one of them, and never by themselves.
    """

    rows: np.ndarray
    scores: np.ndarray


def nearest_rows(
    index: SearchIndex,
    x: Matrix,
    first: np.ndarray,
    among: np.ndarray,
    k: int,
    progress: Progress | None = None,
) -> Nearest:
    """The k nearest other texts of each row.

    index: of the vectors x [N, D]. first: int [N], the row that stands for each row's text. among: bool [N], the rows
    that have neighbours; those of them that stand for a text can be one. ``progress`` counts texts.
    """
    rows = np.full((len(x), k), -1, np.int32)
    scores = np.full((len(x), k), -1, np.float32)
    # 1. One row stands for each text: it alone is searched, and found.
    own = first == np.arange(len(x))  # (N,) bool
    asked = np.flatnonzero(among & own)
    some = None if (among & own).all() else among & own
    for start in range(0, len(asked), CHUNK_ROWS):
        chunk = asked[start : start + CHUNK_ROWS]
        found = index.search(x[chunk], k + 1, among=some)  # rows and scores (chunk, k + 1), the own row among them
        found_rows, found_scores = without_own(chunk, found.rows, found.scores)  # (chunk, width)
        width = found_rows.shape[1]  # k, or less where there are fewer texts
        rows[chunk, :width], scores[chunk, :width] = found_rows, found_scores
        if progress is not None:
            progress(start + len(chunk), len(asked), start + len(chunk))
    # 2. Its copies have its neighbours.
    copies = np.flatnonzero(among & ~own)
    rows[copies], scores[copies] = rows[first[copies]], scores[first[copies]]
    return Nearest(rows, scores)


def unit_vectors(x: Matrix) -> np.ndarray:
    """bool [N]: the rows of x [N, D] that have a direction: not zero, no NaN, not infinite."""
    usable = np.empty(len(x), bool)
    for start in range(0, len(x), CHUNK_ROWS):
        part = x[start : start + CHUNK_ROWS]
        usable[start : start + CHUNK_ROWS] = np.isfinite(part).all(axis=1) & part.any(axis=1)
    return usable
