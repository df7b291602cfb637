"""What share each class has among new rows, without knowing one of their labels.

By expectation maximization (Saerens, Latinne and Decaestecker, 2002): where only the shares of the classes have
changed, not how each class looks, calibrated probabilities tell the new shares. Linear heads are cross-fitted on the
old rows and calibrated there (calibrated.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedcache.drift.calibrated import BiasCorrected
from embedcache.drift.domain import cross_fitted

ROUNDS, SMALL = 1000, 1e-7
RESAMPLES = 200
FEWEST = 10  # rows of a class
MOST_OUTSIDE = 0.05  # of the rows may have classes whose estimate lies outside its own interval


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
    """One label column.

    Attributes:
        column: its name.
        accuracy: of the heads on old rows that they did not learn from.
        classes: those of ten old rows and more. left_out: how many others there are.
        stable: whether resampled rows confirm the estimates. They do not where the heads hardly tell the classes apart:
            then a few of these take all rows, others each time.
    """

    column: str
    accuracy: float
    classes: list[ClassShare]
    left_out: int
    stable: bool


def new_shares(p: np.ndarray, old: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The classes' shares among rows, float64 [C].

    Args:
        p: float64 [n, C], calibrated probabilities of heads that learned the shares ``old``.
        old: float64 [C], all above 0.
        weight: float64 [n], how much of all rows each is; None: the same.
    """
    weight = np.full(len(p), 1 / len(p)) if weight is None else weight
    shares = old.copy()
    for _ in range(ROUNDS):
        ratio = shares / old
        found = ratio * ((weight / np.maximum(p @ ratio, 1e-300)) @ p)
        done = np.abs(found - shares).max() < SMALL
        shares = found
        if done:
            break
    return np.asarray(shares)


def estimate_shares(y: np.ndarray, outputs: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the classes' shares among the new rows [C], their 95% intervals [C, 2], by resampling old and new rows).

    Args:
        y: int [n], the old rows' class codes, none without a row.
        outputs: float64 [n, C], logits by heads that did not learn from them.
        new: float64 [m, C], the new rows' logits by these heads.
    """
    classes, rng = outputs.shape[1], np.random.default_rng(0)
    calibrated = BiasCorrected.fit(y, outputs)
    drawn, again = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) / n for n in (len(y), len(new)))
    found = []
    for one, row, weight in zip(calibrated.refits(y, outputs, drawn), drawn, again, strict=True):
        old = np.bincount(y, row, classes) + 1 / len(y) ** 2  # a class that was not drawn has next to nothing
        found.append(new_shares(one.probabilities(new), old / old.sum(), weight))
    shares = new_shares(calibrated.probabilities(new), np.bincount(y, minlength=classes) / len(y))
    return shares, np.quantile(found, [0.025, 0.975], axis=0).T


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
    outputs, heads = np.zeros((len(y), len(used))), []
    for part, head in cross_fitted(x, y, units, len(used)):
        outputs[part] = head.logits(x[part])
        heads.append(head)
    # Each new row is read by one of the heads, as each old one was: all of them together, or one that learned from all
    # rows, are surer of themselves than the calibration knows.
    new_outputs = np.zeros((len(new), len(used)))
    for i, head in enumerate(heads):
        new_outputs[i :: len(heads)] = head.logits(np.asarray(new[i :: len(heads)], np.float32))
    old = np.bincount(y) / len(y)
    shares, intervals = estimate_shares(y, outputs, new_outputs)
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
    outside = (shares < intervals[:, 0]) | (shares > intervals[:, 1])
    stable = bool(shares[outside].sum() <= MOST_OUTSIDE)
    return LabelShift(column, float((outputs.argmax(axis=1) == y).mean()), classes, left_out, stable)
