"""Vectors on their way into a file: arrays [n, D] in the file's type; in int8 a row has its scale's 4 bytes behind it.

So a row and its scale are copied, sent and kept together, and part where they are written: into two datasets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedcache.common.int8_rows import INT8, to_int8
from embedcache.errors import EmbedcacheError

SCALE_BYTES = 4


def no_rows(store: str, dim: int, n: int = 0) -> np.ndarray:
    """Room for n rows, with nothing in it yet."""
    return np.empty((n, dim + SCALE_BYTES if store == INT8 else dim), store)


def joined(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """int8 [n, D + 4] of int8 [n, D] and float32 [n]."""
    behind = np.ascontiguousarray(scales, "<f4").view(np.int8).reshape(-1, SCALE_BYTES)
    return np.concatenate([values, behind], axis=1)


def parted(rows: np.ndarray, store: str) -> list[np.ndarray]:
    """What is written of such rows: them, or in int8 their values [n, D] and their scales float32 [n]."""
    if store != INT8:
        return [np.ascontiguousarray(rows)]
    scales = np.ascontiguousarray(rows[:, -SCALE_BYTES:]).view("<f4").reshape(-1)
    return [np.ascontiguousarray(rows[:, :-SCALE_BYTES]), scales]


def to_store(vectors: np.ndarray, kind: str, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """The vectors of these rows in the type of the file.

    Raises:
        EmbedcacheError: a number is not finite in it; names the row, with the beginning of ``texts[i]``.
    """
    with np.errstate(over="ignore"):
        stored = vectors.astype(np.float32 if kind == INT8 else kind, copy=False)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not bad.size:
        return joined(*to_int8(stored)) if kind == INT8 else stored
    i = int(bad[0])
    if np.isfinite(vectors[i]).all():
        problem = f"has values up to {np.abs(vectors[i]).max():.3g}, too large for {kind}; run with --store float32"
    else:
        problem = "is not finite as the encoder gives it; try --dtype float32"
    raise EmbedcacheError(f"the vector of row {int(rows[i]):,} ({texts[i][:40]!r}), counted from 0, {problem}")
