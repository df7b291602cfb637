"""What csrc/encoder/int8.h computes, step by step in NumPy, to the bit."""

from __future__ import annotations

import numpy as np

SPILL = 4
F = np.float32


def quantize(row: np.ndarray, spills: bool = True) -> tuple[np.ndarray, np.float32]:
    """(int64 [k], scale): the whole numbers that stand for float32 [k], some above 127 where the row may spill."""
    largest = np.abs(row).max()
    if not np.isfinite(largest) or largest < F(1e-30):
        return np.zeros(len(row), np.int64), F(0) if np.isfinite(largest) else F(np.nan)
    limit = _first_limit(row, largest) if spills else largest
    while True:
        whole = np.rint(row * (F(127) / limit)).astype(np.int64)
        if sum(map(_terms, whole.tolist())) <= SPILL:
            return whole, limit / F(127)
        limit = min(F(limit * F(1.25)), largest)


def _first_limit(row: np.ndarray, largest: np.float32) -> np.float32:
    mean = F(np.rint(np.abs(row) * (F(16383) / largest)).astype(np.int64).sum())
    limit = largest * F(mean * F(F(5) / F(F(16383) * F(len(row)))))
    return min(largest, max(limit, largest / F(1 + SPILL)))


def _terms(number: int) -> int:
    """How many more terms a number needs beside one in an int8."""
    above = number - 127 if number > 0 else -number - 128
    return -(-max(above, 0) // (127 if number > 0 else 128))


def product(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """float32 [n, columns] of float32 [n, k] and [columns, k]: exact sums, then the scales."""
    rows, columns = [quantize(row) for row in x], [quantize(column, spills=False) for column in weight]
    sums = np.array([whole for whole, _ in rows]) @ np.array([whole for whole, _ in columns]).T
    scales = np.array([scale for _, scale in columns]) * np.array([scale for _, scale in rows])[:, None]
    found: np.ndarray = sums.astype(F) * scales
    return found
