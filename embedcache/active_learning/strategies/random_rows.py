"""Rows drawn by chance."""

from __future__ import annotations

import numpy as np

from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence, Strategy


class RandomRows(Strategy):
    """All rows alike, with a label or not, also those that test: what is found on them holds for all rows."""

    name = "random"
    what = "rows drawn by chance, for honest estimates"

    def why_not(self, evidence: Evidence) -> str | None:
        return None if evidence.shown.any() else "every row was shown"

    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        rows = rng.permutation(np.flatnonzero(evidence.shown & ~taken))[:count]
        return [
            ChosenRow(row, "drawn by chance: such rows tell how good labels and heads are") for row in rows.tolist()
        ]


VARIANT = RandomRows()
