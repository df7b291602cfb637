"""What csrc/encoder/int8_rows.h and int8.h compute, step by step in NumPy, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPILL = 4
F = np.float32


@dataclass(frozen=True)
class Spilled:
    """Rows after LayerNorm; lanes: of a vector, whose order sums have."""

    lanes: int

    def quantize(self, row: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
        """(int64 [k], scale, shift): the whole numbers that stand for float32 [k], some above 127."""
        largest = np.abs(row).max()
        if not np.isfinite(largest) or largest < F(1e-30):
            return _nothing(row, largest)
        usual = _sum(np.abs(row), self.lanes) * F(F(5) / F(len(row)))
        limit = min(largest, max(usual, largest / F(1 + SPILL)))
        while True:
            whole = np.rint(row * (F(127) / limit)).astype(np.int64)
            if sum(map(_terms, whole.tolist())) <= SPILL:
                return whole, limit / F(127), 0
            limit = min(F(limit * F(1.25)), largest)


@dataclass(frozen=True)
class Shifted:
    """Rows of which no number is below `low`; None: those of which nothing is known."""

    low: float | None

    def quantize(self, row: np.ndarray) -> tuple[np.ndarray, np.float32, int]:
        largest = np.abs(row).max()
        reach = largest if self.low is None else largest - F(self.low)
        if not np.isfinite(reach) or reach < F(1e-30):
            return _nothing(row, largest)
        steps = (F(127) if self.low is None else F(253)) / reach
        shift = F(0) if self.low is None else np.rint(F(np.float64(-127) - np.float64(F(self.low)) * np.float64(steps)))
        exact = row.astype(np.float64) * np.float64(steps) + np.float64(shift)  # one rounding, as a fused multiply-add
        return np.rint(exact.astype(F)).astype(np.int64) - int(shift), F(1) / steps, int(shift)


def _nothing(row: np.ndarray, largest: np.float32) -> tuple[np.ndarray, np.float32, int]:
    return np.zeros(len(row), np.int64), F(0) if np.isfinite(largest) else F(np.nan), 0


def _sum(numbers: np.ndarray, lanes: int) -> np.float32:
    """In float32: each lane one after the other, then halves of the lanes, of the last four the even and the odd."""
    padded = np.zeros(-(-len(numbers) // lanes) * lanes, F)
    padded[: len(numbers)] = numbers
    total = np.zeros(lanes, F)
    for part in padded.reshape(-1, lanes):
        total += part
    while len(total) > 4:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return F((total[0] + total[2]) + (total[1] + total[3]))


def _terms(number: int) -> int:
    """How many more terms a number needs beside one in an int8."""
    above = number - 127 if number > 0 else -number - 128
    return -(-max(above, 0) // (127 if number > 0 else 128))


def product(kind: Spilled | Shifted, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """float32 [n, columns] of float32 [n, k] and [columns, k]: exact sums, then the scales."""
    rows, columns = [kind.quantize(row) for row in x], [_column(column) for column in weight]
    sums = np.array([whole for whole, *_ in rows]) @ np.array([whole for whole, _ in columns]).T
    scales = np.array([scale for _, scale in columns]) * np.array([scale for _, scale, _ in rows])[:, None]
    found: np.ndarray = sums.astype(F) * scales
    return found


def _column(column: np.ndarray) -> tuple[np.ndarray, np.float32]:
    largest = np.abs(column).max()
    if not np.isfinite(largest) or largest < F(1e-30):
        return _nothing(column, largest)[:2]
    return np.rint(column * (F(127) / largest)).astype(np.int64), largest / F(127)
