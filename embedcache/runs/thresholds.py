"""From which probability on a label is predicted, chosen on the validation rows: of two classes, or of each label.

``threshold`` is of the probability as trained, before any temperature, and a label is there from it on
(``p >= threshold``). What is found stands in run.json; ``predict --threshold tuned`` applies it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedcache.heads.kinds import kind_of
from embedcache.runs.calibration import probabilities
from embedcache.runs.mistakes import Judged
from embedcache.runs.scores import measure_all

MAX_THRESHOLDS = 1000  # labels
FEWEST = 10  # validation rows of a label that has a threshold of its own
MOST_VALUES = 2_000_000  # probabilities that choose the one that the others share
CANDIDATES = 512  # thresholds of two classes that are compared


def find_thresholds(
    judged: Mapping[str, Judged], classes: Sequence[str], kind: str, metric: str
) -> list[dict[str, Any]]:
    """The thresholds of one column, with the score at them and at 1/2 of each side; [] where there are none.

    Args:
        judged: "val", whose rows choose, and "test", where there are such rows.
        classes: The labels.
        kind: Of task.
        metric: By which the threshold of two classes is chosen; those of labels are chosen by F1.
    """
    about = kind_of(kind)
    if "val" not in judged or not about.has_classes:
        return []
    proba = {side: probabilities(one.outputs.astype(np.float64), kind) for side, one in judged.items()}
    if about.has_lists:
        return _of_labels(judged, proba, classes)
    return _of_two_classes(judged, proba, classes, kind, metric) if len(classes) == 2 else []


def _of_two_classes(
    judged: Mapping[str, Judged], proba: Mapping[str, np.ndarray], classes: Sequence[str], kind: str, metric: str
) -> list[dict[str, Any]]:
    """One: of the second class."""

    def score(side: str, threshold: float) -> float:
        return measure_all(kind, judged[side].y, (proba[side][:, 1] >= threshold).astype(np.int64))[metric]

    values = np.unique(np.quantile(proba["val"][:, 1], np.linspace(0, 1, CANDIDATES), method="nearest"))
    tried = np.append((values[1:] + values[:-1]) / 2, 0.5)  # between two rows: no rounding moves one over it
    scores = np.array([score("val", one) for one in tried])
    threshold = _nearest_half(tried, scores)
    found: dict[str, Any] = {"label": classes[1], "threshold": threshold, "metric": metric}
    for side in judged:
        found |= {f"{side}_{metric}": score(side, threshold), f"{side}_{metric}_at_half": score(side, 0.5)}
    return [found]


def _of_labels(
    judged: Mapping[str, Judged], proba: Mapping[str, np.ndarray], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """One for each label; none of more than 1,000 labels.

    A label with ten validation rows or more has its own, of its best F1. The others share one, of the best F1 of all
    their decisions together: the best threshold of two or three rows is one by chance, and often very low.
    """
    if len(classes) > MAX_THRESHOLDS:
        return []
    there, p = judged["val"].y > 0, proba["val"]
    rows = there.sum(axis=0)
    shared = _shared(there, p, rows < FEWEST)
    found = []
    for c, label in enumerate(classes):
        own = bool(rows[c] >= FEWEST)
        threshold = best_threshold(there[:, c], p[:, c]) if own else shared
        scores: dict[str, float | None] = {}
        for side, one in judged.items():
            truth, of = one.y[:, c] > 0, proba[side][:, c]
            scores |= {f"{side}_f1": _f1(truth, of >= threshold), f"{side}_f1_at_half": _f1(truth, of > 0.5)}
        found.append({"label": label, "threshold": threshold, "rows": int(rows[c]), "shared": not own, **scores})
    return found


def _shared(there: np.ndarray, proba: np.ndarray, rare: np.ndarray) -> float:
    """The threshold of the rare labels; of all where these have too few rows, too, and 1/2 where none has enough."""
    for some in (rare, np.ones_like(rare)):
        truth, p = there[:, some], proba[:, some]
        if truth.sum() >= FEWEST:
            step = 1 + truth.size // MOST_VALUES
            return best_threshold(truth[::step].ravel(), p[::step].ravel())
    return 0.5


def best_threshold(truth: np.ndarray, proba: np.ndarray) -> float:
    """The threshold (``proba >= threshold``) of the best F1 for bool [n] and shares [n], of equals nearest 1/2."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, thresholds = precision_recall_curve(truth, proba)
    return _nearest_half(thresholds, (2 * precision * recall / np.maximum(precision + recall, 1e-300))[:-1])


def _nearest_half(thresholds: np.ndarray, scores: np.ndarray) -> float:
    """Of the thresholds with the best score the one nearest to 1/2."""
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return float(thresholds[best[np.abs(thresholds[best] - 0.5).argmin()]])


def _f1(truth: np.ndarray, guess: np.ndarray) -> float | None:
    """None where no row has the label."""
    return 2 * int((truth & guess).sum()) / (int(truth.sum()) + int(guess.sum())) if truth.any() else None
