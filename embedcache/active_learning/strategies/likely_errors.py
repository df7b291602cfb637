"""Rows whose label is likely wrong, by audit's judgement."""

from __future__ import annotations

import numpy as np

from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence, Strategy
from embedcache.common.label_names import visible
from embedcache.heads.kinds import kind_of

LIKELY = 0.1  # labels that are less likely wrong than that are not worth a person's time
DOUBTED = 0.5  # the same of labels that a person gave: where texts are hard, second looks bring less than new labels


class LikelyErrors(Strategy):
    """The labels that audit's experts, none of which has seen them, find the likeliest to be wrong.

    Of the file and of people: who labels errs, too. After a second look a row is not shown again.
    """

    name = "errors"
    what = "labelled rows whose label is likely wrong, as audit has it"

    def why_not(self, evidence: Evidence) -> str | None:
        if not kind_of(evidence.snapshot.kind).exclusive:
            return "only labels of one class a row are judged"
        if evidence.wrong is None:
            return "there are too few labels to judge any of them"
        return None if len(self._rows(evidence)) else "no label looks wrong that was not looked at twice"

    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        assert evidence.wrong is not None and evidence.proba is not None
        rows = self._rows(evidence)
        rows = rows[~taken[rows]]
        rows = rows[np.argsort(-evidence.wrong[rows], kind="stable")][:count]
        return [
            ChosenRow(
                row,
                f"{visible(str(evidence.snapshot.classes[evidence.snapshot.y[row]]))} looks wrong: "
                f"the heads say {evidence.likeliest(row, 1)}",
            )
            for row in rows.tolist()
        ]

    def _rows(self, evidence: Evidence) -> np.ndarray:
        """Rows with a doubtful label that was not looked at twice, one of each unit; NaN is not doubtful."""
        assert evidence.wrong is not None
        snapshot = evidence.snapshot
        free = snapshot.labelled & snapshot.pool.usable & ~snapshot.settled & ~evidence.skipped
        rows = np.flatnonzero(free & (evidence.wrong >= np.where(snapshot.checked, DOUBTED, LIKELY)))
        return rows[np.unique(snapshot.pool.unit[rows], return_index=True)[1]]


VARIANT = LikelyErrors()
