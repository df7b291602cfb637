"""What comes in as numbers: any array or tensor as a NumPy matrix, and numbers as JSON can hold them."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.common.int8_rows import LARGEST as INT8_LARGEST
from embedcache.common.int8_rows import Int8Rows, Matrix
from embedcache.errors import EmbedcacheError


def to_numpy(x: Any) -> np.ndarray:
    """x as a NumPy array, uncopied where possible: arrays, memory maps, lists, torch tensors on any device.

    Vectors of a cache stored as int8 are decoded.
    """
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":
            x = x.float()
        x = x.numpy()
    return np.asarray(x)


def as_matrix(x: Any, name: str = "X") -> Matrix:
    """x as [N, D] with adjacent columns that every engine reads: float16, float32, or int8 with a scale for each row.

    Itself where it is one already, else a float32 copy.
    """
    if isinstance(x, Int8Rows) and x.shape[1] and x.readable_in_place:
        return x
    try:
        x = to_numpy(x)
    except (ValueError, TypeError):
        raise EmbedcacheError(f"{name} must be a matrix [rows, columns]: its rows are not of one length") from None
    if x.ndim != 2 or x.shape[1] == 0:
        raise EmbedcacheError(f"{name} must be a matrix [rows, columns], not of shape {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise EmbedcacheError(f"{name} must hold numbers, not {x.dtype}")
    in_place = x.dtype in (np.float16, np.float32) and x.dtype.isnative and x.flags.aligned
    if in_place and x.strides[1] == x.itemsize and x.strides[0] >= 0 and x.strides[0] % x.itemsize == 0:
        return x
    return np.ascontiguousarray(x, x.dtype.newbyteorder("=") if x.dtype == np.float16 else np.float32)


def finite(x: Matrix) -> bool:
    """Whether no element is NaN or infinite.

    For float16 by its exponent bits, ten times as fast as isfinite. For float32 by the sum of the squares, on all
    cores: if it is finite, so is everything; if not, it may have overflowed, and isfinite says. For int8 by its scales.
    """
    if isinstance(x, Int8Rows):
        with np.errstate(over="ignore"):
            return finite(x.scales * np.float32(INT8_LARGEST))
    if x.dtype == np.float16:
        return not bool(((x.view(np.uint16) & 0x7C00) == 0x7C00).any())
    if x.dtype == np.float32 and x.flags.c_contiguous:
        numbers = x.reshape(-1)
        with np.errstate(all="ignore"):
            if np.isfinite(np.dot(numbers, numbers)):
                return True
    return bool(np.isfinite(x).all())


def json_number(value: float) -> float | None:
    """JSON and CSV have no NaN."""
    return float(value) if np.isfinite(value) else None
