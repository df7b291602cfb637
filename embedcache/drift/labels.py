"""What share each class has among new rows, without knowing one of their labels.

By expectation maximization (Saerens, Latinne and Decaestecker, 2002): where only the shares of the classes have
changed, not how each class looks, calibrated probabilities tell the new shares. The head is a linear one, cross-fitted
on the old rows and calibrated by its temperature there (Alexandari et al., 2020, found this better than inverting the
confusion matrix).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedcache.drift.domain import cross_fitted, train_linear
from embedcache.runs.calibration import fit_temperature, probabilities

KIND = "classification"
ROUNDS, SMALL = 1000, 1e-7
RESAMPLES = 200
FEWEST = 10  # rows of a class


@dataclass(frozen=True)
class ClassShare:
    """One class.

    Attributes:
        label: its name.
        old: its share among the labelled old rows.
        estimate: its share among the new rows, with the 95% interval that resampling them gives.
        new: its true share among the new rows, where these have labels.
    """

    label: str
    old: float
    estimate: float
    interval: tuple[float, float]
    new: float | None = None


@dataclass(frozen=True)
class LabelShift:
    """One label column. accuracy: of the head on old rows that it did not learn from; near chance, it tells little."""

    column: str
    accuracy: float
    classes: list[ClassShare]
    left_out: int  # classes of fewer than ten rows


def new_shares(p: np.ndarray, old: np.ndarray) -> np.ndarray:
    """float64 [C]: the classes' shares among rows with probabilities p [n, C] of a head that learned shares ``old``."""
    shares = old.copy()
    for _ in range(ROUNDS):
        weighed = p * (shares / old)
        found = (weighed / weighed.sum(axis=1, keepdims=True)).mean(axis=0)
        done = np.abs(found - shares).max() < SMALL
        shares = found
        if done:
            break
    return np.asarray(shares)


def estimate_shares(p: np.ndarray, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the new shares [C], their 95% intervals [C, 2])."""
    rng = np.random.default_rng(0)
    resampled = [new_shares(p[rng.integers(0, len(p), len(p))], old) for _ in range(RESAMPLES)]
    return new_shares(p, old), np.quantile(resampled, [0.025, 0.975], axis=0).T


def label_shift(
    column: str, x: np.ndarray, labels: list[str], texts: np.ndarray, new: np.ndarray, known: list[str]
) -> LabelShift | None:
    """The shift of one label column; None where fewer than two classes have ten rows.

    Args:
        column: its name.
        x: float [n, D], old vectors.
        labels: of the old rows, "" for none.
        texts: uint8 [n, 16], hashes of their texts.
        new: float [m, D].
        known: the new rows' labels, "" for none; empty where none are known.
    """
    names, code = np.unique(labels, return_inverse=True)
    rows = np.bincount(code)
    used = [i for i, name in enumerate(names) if name and rows[i] >= FEWEST]
    if len(used) < 2:
        return None
    renumber = np.full(len(names), -1, np.int32)
    renumber[used] = np.arange(len(used))
    y = renumber[code]
    some = np.flatnonzero(y >= 0)
    x, y = np.asarray(x, np.float32)[some], y[some]
    units = np.unique(texts[some], axis=0, return_inverse=True)[1].reshape(-1)
    outputs = np.zeros((len(y), len(used)))
    for part, logits in cross_fitted(x, y, units, len(used)):
        outputs[part] = logits
    temperature = fit_temperature(y, outputs, KIND) or 1.0
    (head,) = train_linear(x, y, [np.arange(len(y))], len(used))
    p = probabilities(head.logits(np.asarray(new, np.float32)).astype(np.float64), KIND, temperature)
    old = np.bincount(y) / len(y)
    shares, intervals = estimate_shares(p, old)
    given = [label for label in known if label]
    classes = [
        ClassShare(
            str(names[i]),
            float(old[k]),
            float(shares[k]),
            (float(intervals[k][0]), float(intervals[k][1])),
            given.count(str(names[i])) / len(given) if given else None,
        )
        for k, i in enumerate(used)
    ]
    left_out = sum(1 for name in names if name) - len(used)
    return LabelShift(column, float((outputs.argmax(axis=1) == y).mean()), classes, left_out)
