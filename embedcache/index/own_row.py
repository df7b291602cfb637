"""A row's own neighbours: what a search finds for a row of the index, without that row itself."""

from __future__ import annotations

import numpy as np


def without_own(own: np.ndarray, found: np.ndarray, *beside: np.ndarray) -> list[np.ndarray]:
    """Leave each query's own row out, or the last one where it was not found: other rows have its very vector.

    Args:
        own: int [q], the row that each query is.
        found: int [q, k], the rows found for it, best first; a row is there once at most.
        beside: arrays [q, k] that are cut alike, such as the scores.

    Returns:
        ``found`` and the others, each [q, k - 1] (k is 1 or more).
    """
    drop = found == own[:, None]
    drop[~drop.any(axis=1), -1] = True
    return [array[~drop].reshape(len(array), array.shape[1] - 1) for array in (found, *beside)]
