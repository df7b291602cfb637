"""Vectors of several stored outputs side by side, one row of each after the other, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedcache.common.int8_rows import Int8Rows, Matrix
from embedcache.common.outputs import Layer, is_several, parts_of
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.cache.file import Cache

ROWS = 8192  # copied at a time


def vectors_of(cache: Cache, pooling: str, layer: Layer) -> Matrix:
    """[N, D] of an output, or [N, the sum of their widths] of several, which are copied side by side once a cache.

    Raises:
        EmbedcacheError: one is not stored, vectors are missing, or stored as int8, whose scales are of one output.
    """
    if not is_several(pooling, layer):
        return cache.embeddings(pooling, int(layer))
    if (pooling, layer) not in cache.side_by_side:
        found = [cache.embeddings(*part) for part in parts_of(pooling, layer)]
        plain = [one for one in found if not isinstance(one, Int8Rows)]
        if len(plain) < len(found):
            raise EmbedcacheError(
                f"{cache.path} stores its vectors as int8, which cannot stand side by side: name one pooling and one "
                "layer, or extract into a cache with --store float16"
            )
        joined = np.empty((cache.rows, sum(one.shape[1] for one in plain)), np.result_type(*plain))
        for start in range(0, cache.rows, ROWS):
            np.concatenate([one[start : start + ROWS] for one in plain], axis=1, out=joined[start : start + ROWS])
        cache.side_by_side[pooling, layer] = joined
    return cache.side_by_side[pooling, layer]


def holds(cache: Cache, pooling: str, layer: Layer) -> bool:
    """Whether all that stands side by side there is stored."""
    return set(parts_of(pooling, layer)) <= set(cache.outputs)


def width_of(cache: Cache, pooling: str, layer: Layer) -> int:
    """That of the vectors of a stored output, or of several together."""
    return sum(cache.width(part) for part in parts_of(pooling, layer))
