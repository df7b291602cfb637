"""Rows that may be of classes that few labelled rows have."""

from __future__ import annotations

import numpy as np

from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence, Strategy
from embedcache.common.label_names import visible
from embedcache.heads.kinds import kind_of

RARE = 0.5  # a class is rare that has fewer than this share of an even part of the labelled rows


class Rare(Strategy):
    """The rows that are likeliest to be of a rare class, the rarest class first where several are as likely."""

    name = "rare"
    what = "rows that may be of a class with few labelled rows"

    def why_not(self, evidence: Evidence) -> str | None:
        if not kind_of(evidence.snapshot.kind).has_classes:
            return "numbers have no classes that could be rare"
        if evidence.proba is None:
            return "there are no heads yet that could find a class: label some rows, or give --run"
        if not len(evidence.unlabelled):
            return "every row has a label"
        return None if rare_classes(evidence).any() else "no class is rare among the labelled rows"

    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        assert evidence.proba is not None
        rows = evidence.unlabelled[~taken[evidence.unlabelled]]
        rare, known = rare_classes(evidence), class_rows(evidence)
        score = evidence.proba[rows] * (rare / (1 + known) ** 0.5)  # [n, C]
        best = score.argmax(axis=1)
        order = np.argsort(-score[np.arange(len(rows)), best], kind="stable")[:count]
        return [
            ChosenRow(
                int(rows[i]),
                f"may be {visible(str(evidence.snapshot.classes[c]))} ({evidence.proba[rows[i], c]:.0%}), "
                f"which {int(known[c]):,} labelled rows are",
            )
            for i, c in zip(order.tolist(), best[order].tolist(), strict=True)
        ]


def class_rows(evidence: Evidence) -> np.ndarray:
    """float64 [C]: labelled rows of each class."""
    y = evidence.snapshot.y[evidence.snapshot.labelled]
    classes = len(evidence.snapshot.classes)
    return np.bincount(y, minlength=classes).astype(np.float64) if y.ndim == 1 else (y > 0).sum(axis=0, dtype=float)


def rare_classes(evidence: Evidence) -> np.ndarray:
    """bool [C]; none where no row has a label."""
    known = class_rows(evidence)
    return np.asarray(known < RARE * known.sum() / len(known))


VARIANT = Rare()
