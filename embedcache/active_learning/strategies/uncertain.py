"""Rows of which the heads are least sure, unlike each other."""

from __future__ import annotations

import numpy as np

from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence, Strategy, spread_out

WIDER = 4  # so many times the rows that are wanted are looked at, to find some that are unlike each other
GROUPS = 24


class Uncertain(Strategy):
    """The smallest margin between the two likeliest classes, in turns from groups of like rows."""

    name = "uncertain"
    what = "rows of which the heads are least sure, unlike each other"

    def why_not(self, evidence: Evidence) -> str | None:
        if evidence.proba is None:
            return "there are no heads yet that could be unsure: label some rows, or give --run"
        return None if len(evidence.unlabelled) else "every row has a label"

    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        free = ~taken[evidence.unlabelled]
        rows, score = evidence.unlabelled[free], evidence.uncertainty[free]
        if len(rows) > WIDER * count:
            top = np.argpartition(-score, WIDER * count)[: WIDER * count]
            rows, score = rows[top], score[top]
        order = spread_out(evidence.snapshot.pool.similar(rows), score, min(GROUPS, count), rng)[:count]
        return [ChosenRow(row, f"the heads are unsure: {evidence.likeliest(row)}") for row in rows[order].tolist()]


VARIANT = Uncertain()
