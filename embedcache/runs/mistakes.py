"""Single rows that say more than a score: a head's worst mistakes, predictions beside the truth.

They are found while the cache is open and stand in run.json, so that a report can be written whenever it is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.heads.kinds import kind_of
from embedcache.runs.calibration import probabilities

MISTAKES = 25  # of each side
PAIRS = 1000  # predictions beside the truth, of each side; more make no better picture
NAMED = 20  # labels of one row


@dataclass(frozen=True)
class Judged:
    """Rows that a head did not learn from: rows int64 [n]; y of these rows and outputs [n, C] as metrics.evaluate."""

    rows: np.ndarray
    y: np.ndarray
    outputs: np.ndarray


def find_mistakes(judged: Judged, classes: Sequence[str], kind: str, hashes: np.ndarray) -> list[dict[str, Any]]:
    """The wrong rows of which the head was surest (regression: the largest errors), worst first, each text once.

    row: its number in the cache; hash: of its text, hex, by which the text is found again. Classification: label,
    predicted, and the probability of both. Multilabel: the lists, the label that is most wrong (``about``), and its
    probability. Regression: the value, the predicted one. hashes: uint8 [N, 16] of all rows of the cache.
    """
    find = kind_of(kind).by_form(one_class=_classes, lists=_labels, numbers=_values)
    mistakes: list[dict[str, Any]] = []
    seen = set()
    for i, found in find(judged, classes, kind):
        row = int(judged.rows[i])
        if (text := hashes[row].tobytes()) not in seen:
            seen.add(text)
            mistakes.append({"row": row, "hash": text.hex(), **found})
        if len(mistakes) == MISTAKES:
            break
    return mistakes


def _classes(judged: Judged, classes: Sequence[str], kind: str) -> Any:
    proba = probabilities(judged.outputs.astype(np.float64), kind)
    guess = proba.argmax(axis=1)
    sure = np.where(guess == judged.y, -1.0, proba.max(axis=1))
    for i in np.argsort(-sure, kind="stable")[: (sure >= 0).sum()].tolist():
        label, predicted = int(judged.y[i]), int(guess[i])
        yield (
            i,
            {
                "label": classes[label],
                "predicted": classes[predicted],
                "probability": float(proba[i, predicted]),
                "label_probability": float(proba[i, label]),
            },
        )


def _labels(judged: Judged, classes: Sequence[str], kind: str) -> Any:
    proba = probabilities(judged.outputs.astype(np.float64), kind)
    there, guess = judged.y > 0, judged.outputs > 0
    error = np.where(there == guess, -1.0, np.where(there, 1 - proba, proba))
    most, which = error.max(axis=1), error.argmax(axis=1)
    for i in np.argsort(-most, kind="stable")[: (most >= 0).sum()].tolist():
        c = int(which[i])
        yield (
            i,
            {
                "label": [classes[k] for k in np.flatnonzero(there[i])[:NAMED]],
                "predicted": [classes[k] for k in np.flatnonzero(guess[i])[:NAMED]],
                "about": classes[c],
                "probability": float(proba[i, c]),
            },
        )


def _values(judged: Judged, classes: Sequence[str], kind: str) -> Any:
    truth, predicted = judged.y[:, 0].astype(np.float64), judged.outputs[:, 0].astype(np.float64)
    error = np.abs(predicted - truth)
    for i in np.argsort(-error, kind="stable").tolist():
        if error[i] > 0 and np.isfinite(error[i]):
            yield i, {"label": float(truth[i]), "predicted": float(predicted[i])}


def value_pairs(judged: Judged) -> list[list[float]]:
    """[value, predicted] of a regression's rows; of many, so many that are evenly spread over them."""
    some = np.linspace(0, len(judged.rows) - 1, min(PAIRS, len(judged.rows))).round().astype(int)
    pairs = np.stack([judged.y[some, 0], judged.outputs[some, 0]], axis=1).astype(np.float64)
    return [pair for pair in pairs.tolist() if np.isfinite(pair).all()]


def describe_targets(y: np.ndarray, kind: str) -> dict[str, Any]:
    """What rows hold (y as Data has it, of these rows): "counts" of each class or label, or a regression's values."""
    if not len(y):
        return {"rows": 0}
    if not kind_of(kind).has_classes:
        values = y[:, 0].astype(np.float64)
        about = {name: float(getattr(values, name)()) for name in ("mean", "std", "min", "max")}
        return {"rows": len(y), **about, "median": float(np.median(values))}
    counts = np.bincount(y) if y.ndim == 1 else (y > 0).sum(axis=0)
    return {"rows": len(y), "counts": counts.tolist()}
