"""Vectors as int8 with a scale for each row: a quarter of float32's bytes, decoded where they are read.

Row i is ``values[i] * scales[i]`` in float32, and its scale is its largest number's size / 127. So a row keeps its
direction but for a rounding of at most half a scale in each number, however large or small it is. Scales are rounded up
to 17 significant bits: the product with a value's 7 is exact then, so that whoever computes it, in one step with
another or not, has the same bits, and what was rounded once comes out of a second rounding as it was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LARGEST = 127  # symmetric: -128 is not used
SPARE_BITS = np.uint32((1 << 7) - 1)  # of a scale, the lowest ones
MOST = (np.float32(np.finfo(np.float32).max / LARGEST).view(np.uint32) & ~SPARE_BITS).view(np.float32)  # of a scale
INT8 = "int8"  # as the type of stored vectors


def to_int8(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(values int8 [n, D], scales float32 [n]) of finite numbers [n, D]; a row of zeros has the scale 0."""
    x = np.ascontiguousarray(vectors, np.float32)
    scales = np.abs(x).max(axis=1, initial=0) / np.float32(LARGEST)
    scales = np.minimum(((scales.view(np.uint32) + SPARE_BITS) & ~SPARE_BITS).view(np.float32), MOST)
    values = np.clip(np.rint(x / np.where(scales > 0, scales, 1)[:, None]), -LARGEST, LARGEST)
    return values.astype(np.int8), scales


class Int8Rows:
    """N vectors [N, D] as int8 values with a float32 scale for each; what is read of them is float32.

    Indexed by rows (a number, a slice, numbers or booleans), which gives an array of those rows alone;
    ``numpy.asarray`` decodes all of them.

    Attributes:
        values: int8 [N, D]. scales: float32 [N]. Both may be memory maps, and are left where they are.
        dtype: of what is read.
    """

    dtype, ndim = np.dtype(np.float32), 2

    def __init__(self, values: np.ndarray, scales: np.ndarray) -> None:
        self.values, self.scales = values, scales

    def __repr__(self) -> str:
        return f"Int8Rows({len(self):,} x {self.shape[1]})"

    def __len__(self) -> int:
        return len(self.values)

    @property
    def shape(self) -> tuple[int, int]:
        return self.values.shape[0], self.values.shape[1]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """float32 [D] of one row, else [n, D], a new array."""
        if isinstance(rows, tuple):
            raise IndexError("vectors stored as int8 are indexed by rows alone: X[rows][:, columns]")
        found = self.values[rows].astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # scales of a file that was changed: whoever reads it looks
            found *= self.scales[rows][..., None]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("vectors stored as int8 are decoded into a new array")
        return self[:].astype(dtype or self.dtype, copy=False)

    @property
    def readable_in_place(self) -> bool:
        """Whether the values of a row, and all scales, lie next to each other, as an engine reads them."""
        flat = self.scales.flags.c_contiguous and self.scales.flags.aligned and self.scales.dtype == np.float32
        return flat and self.values.strides[1] == 1 and self.values.strides[0] >= 0

    def part(self, rows: slice) -> Int8Rows:
        """Some rows next to each other, left where they are."""
        return Int8Rows(self.values[rows], self.scales[rows])


def kept_cosines(rows: Int8Rows) -> np.ndarray:
    """float64 [n]: how near each row, but zeros, is to the vector that it was made of, by its cosine.

    By what is stored alone: rounding adds an error of scale**2 / 12 to each squared number, whatever the number.
    """
    squares = np.square(rows.values, dtype=np.float64).sum(axis=1)
    squares = squares[squares > 0]
    return np.asarray(1 / np.sqrt(1 + rows.shape[1] / 12 / squares))


Matrix = np.ndarray | Int8Rows  # [N, D] vectors, wherever they lie


def part_of(x: Matrix, rows: slice) -> Matrix:
    """Some rows next to each other, left where they are."""
    return x.part(rows) if isinstance(x, Int8Rows) else x[rows]


def stored_type(x: Matrix) -> str:
    """As what the vectors are stored: "float16", "float32" or "int8"."""
    return INT8 if isinstance(x, Int8Rows) else str(x.dtype)


def as_stored(vectors: np.ndarray, kind: str) -> np.ndarray:
    """Vectors [n, D] as they are read from a cache that stores them as ``kind``: rounded to that type.

    float16 or float32; of int8 float32.
    """
    return Int8Rows(*to_int8(vectors))[:] if kind == INT8 else vectors.astype(kind, copy=False)
