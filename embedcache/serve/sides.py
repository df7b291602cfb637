"""Which texts a run's heads were trained on: a prediction for those is not a test."""

from __future__ import annotations

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.strings import hash_texts
from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import Run
from embedcache.runs.sides import load_sides, stored_sides
from embedcache.runs.split import SIDES


class TextSides:
    """The side of the split that a text was on, for each label column of a run."""

    def __init__(self, run: Run, cache: Cache) -> None:
        self._columns = {name: _sorted(*_sides(one, cache)) for name, one in run.columns.items()}

    def of(self, text: str) -> dict[str, str | None]:
        """Label column -> train, val or test; None for a text that the run did not have, or on no side."""
        key = hash_texts([text.encode("utf-8", "replace")]).view("S16").ravel()[0]
        return {name: _find(hashes, side, key) for name, (hashes, side) in self._columns.items()}


def _sides(run: Run, cache: Cache) -> tuple[np.ndarray, np.ndarray]:
    """(hashes uint8 [n, 16], side int8 [n], -1 for none); nothing of a run whose sides are not known any more."""
    try:
        if (stored := load_sides(run)) is not None:
            return stored.hashes, stored.side
        return cache.hashes, stored_sides(cache, run, "--run")
    except EmbedcacheError:
        return np.empty((0, 16), np.uint8), np.empty(0, np.int8)


def _sorted(hashes: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By hash, and of one text on several sides the first: trained on counts most."""
    known = side >= 0
    keys, side = np.ascontiguousarray(hashes[known]).view("S16").ravel(), side[known]
    order = np.lexsort((side, keys))
    return keys[order], side[order]


def _find(hashes: np.ndarray, side: np.ndarray, key: bytes) -> str | None:
    place = int(np.searchsorted(hashes, key))
    return SIDES[side[place]] if place < len(hashes) and hashes[place] == key else None
