"""Which texts a run has learnt from."""

from __future__ import annotations

import numpy as np

from embedcache.heads.run import Run
from embedcache.heads.sides import load_sides
from embedcache.heads.split import SIDES


def trained_texts(run: Run, hashes: np.ndarray) -> np.ndarray | None:
    """bool [n]: whether the run trained on each of these texts, or chose by it (all sides but test).

    hashes: uint8 [n, 16]. None for a run that does not store its sides.

    Raises:
        EmbedcacheError: the stored sides are damaged.
    """
    stored = load_sides(run)
    if stored is None:
        return None
    rows = np.flatnonzero((stored.side >= 0) & (stored.side != SIDES.index("test")))
    learnt = {stored.hashes[row].tobytes() for row in rows}
    return np.array([key.tobytes() in learnt for key in hashes], bool)
