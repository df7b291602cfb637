"""95% intervals of scores, and of differences between two models on the same rows; rows may come in groups.

One method throughout, the jackknife: the score is computed without each row in turn (or each group, where the rows of
one film or author are alike), and how much it moves says how far another sample of rows would move it. A score from 0
to 1 then has Wilson's interval at the number of independent rows that would move as much (as Korn and Graubard do for
surveys), with Student's quantile for as many groups as there effectively are; over single rows, an accuracy has
Wilson's interval itself. A model may be several trainings (seeds): its score is then the mean of theirs on these rows.
A difference has Student's interval and p value. benchmarks/runs/intervals.py measures how often they hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

LEVEL = 0.95
DENSE = 2_000_000  # values at a time
MOST_VALUES = 50_000_000  # units x classes: above it, units are put together at random
BLOCKS = 1_000  # of them then
FEWEST = 10  # rows of an r2's interval
SMALL = 1e-12

Predicted = np.ndarray | Sequence[np.ndarray]  # of one model; or of several trainings of it


@dataclass(frozen=True)
class Difference:
    """The score of one model less that of another on the same rows.

    ``interval``: 95%; ``p``: of a difference at least as large if there were none; both None where they cannot be known
    (a single row or group). ``groups``: None where rows stand for themselves.
    """

    metric: str
    difference: float
    interval: tuple[float, float] | None
    p: float | None
    rows: int
    groups: int | None

    @property
    def within_noise(self) -> bool:
        """Whether these rows cannot tell the two apart: the interval includes 0, or there is none."""
        return self.interval is None or self.interval[0] <= 0 <= self.interval[1]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        interval = None if self.interval is None else list(self.interval)
        return {**asdict(self), "interval": interval, "within_noise": self.within_noise}


def score_interval(
    metric: str, y: np.ndarray, predicted: Predicted, groups: np.ndarray | None = None
) -> tuple[float, float] | None:
    """95% interval of a score of JACKKNIFE; None for fewer than two rows or groups, of r2 also for fewer than ten
    rows or a constant y.

    y, predicted: class codes int [n]; of several labels 0/1 [n, C] (accuracy: every label right); of numbers float [n]
    or [n, T]. A list of such arrays: one a seed; the interval is of the mean of their scores, for other rows and these
    seeds. groups: [n], equal for rows that belong together, or None. The same at every call.
    """
    trained = _each(predicted)
    if metric == "accuracy" and groups is None and len(y) and len(trained) == 1:
        return accuracy_interval(float(_right(y, trained[0]).mean()), len(y))
    if not JACKKNIFE[metric].is_share and len(y) < FEWEST:
        return None
    value, spread, count, free = _jackknife(metric, y, [trained], groups)
    if spread is None or not math.isfinite(value + spread):
        return None
    quantile = _quantile(free)
    if not JACKKNIFE[metric].is_share:
        return value - quantile * spread, min(1.0, value + quantile * spread)
    most = len(y) if spread > SMALL else count  # rows that say nothing of their spread: no more than their groups
    independent = min(most, value * (1 - value) / max(spread, SMALL) ** 2) if 0 < value < 1 else most
    return _wilson(value, independent, quantile)


def accuracy_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy that was measured on n > 0 rows."""
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score_difference(
    metric: str, y: np.ndarray, first: Predicted, second: Predicted, groups: np.ndarray | None = None
) -> Difference:
    """The score of ``first`` less that of ``second``, paired over the rows or groups; arguments as score_interval's."""
    from scipy.stats import t

    value, spread, count, free = _jackknife(metric, y, [_each(first), _each(second)], groups)
    grouped = None if groups is None else count
    if spread is None or not math.isfinite(value + spread):
        return Difference(metric, value, None, None, len(y), grouped)
    is_share = JACKKNIFE[metric].is_share
    if is_share:  # as Bonett and Price: one more row on which either alone is right; no spread is ever 0
        spread = math.sqrt(spread**2 + 2 / len(y) ** 2)
    elif spread < SMALL:
        return Difference(metric, value, None, None, len(y), grouped)
    half = _quantile(free) * spread
    p = float(2 * t.sf(abs(value) / spread, free))
    most = 1.0 if is_share else math.inf  # no two shares differ by more
    interval = max(-most, value - half), min(most, value + half)
    return Difference(metric, value, interval, p, len(y), grouped)


def _each(predicted: Predicted) -> list[np.ndarray]:
    return [predicted] if isinstance(predicted, np.ndarray) else list(predicted)


def _quantile(free: float) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + LEVEL) / 2, free))


def _wilson(value: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's interval of a share that n independent rows have; n need not be whole."""
    square = quantile**2
    middle = (value + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * math.sqrt(value * (1 - value) / n + square / (4 * n**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def _jackknife(
    metric: str, y: np.ndarray, models: Sequence[list[np.ndarray]], groups: np.ndarray | None
) -> tuple[float, float | None, int, float]:
    """(the score, of two models their difference; its standard error; rows or groups; degrees of freedom).

    models: of each its predictions, one array a seed. No standard error for fewer than two rows or groups. Groups of
    unequal sizes count as fewer: (sum n)^2 / sum n^2.
    """
    if not len(y):
        return math.nan, None, 0, 0.0
    unit = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    count = int(unit.max()) + 1
    sizes = np.bincount(unit)
    free = float(sizes.sum() ** 2 / (sizes.astype(np.float64) ** 2).sum()) - 1
    weight = np.ones(count)
    every = [one for seeds in models for one in seeds]
    if groups is None and metric == "macro_f1" and y.ndim == 1:  # a unit for each kind of row: all move it alike
        kinds, times = np.unique(np.column_stack([y, *every]), axis=0, return_counts=True)
        y, every, unit, weight = kinds[:, 0], list(kinds[:, 1:].T), np.arange(len(kinds)), times.astype(np.float64)
    classes = y.shape[1] if y.ndim == 2 else int(max(np.max(one) for one in (y, *every))) + 1
    if metric == "macro_f1" and len(weight) * classes > MOST_VALUES and len(weight) > BLOCKS and (weight == 1).all():
        unit = (np.random.default_rng(0).permutation(len(weight)) % BLOCKS)[unit]
        weight, free = np.ones(BLOCKS), min(free, BLOCKS - 1.0)
    score = JACKKNIFE[metric].without
    share = [sign / len(seeds) for sign, seeds in zip((1, -1), models, strict=False) for _ in seeds]
    values, without = zip(*(score(y, one, unit, weight, classes) for one in every), strict=True)
    value = float(np.dot(share, values))
    if count < 2 or not math.isfinite(value):
        return value, None, count, free
    left = np.tensordot(share, np.array(without), 1)
    n = weight.sum()
    mean = (weight * left).sum() / n
    return value, math.sqrt((n - 1) / n * (weight * (left - mean) ** 2).sum()), count, max(free, 1.0)


def _right(y: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    return np.asarray((y == predicted).reshape(len(y), -1).all(axis=1))


def _accuracies(
    y: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weight: np.ndarray, classes: int
) -> tuple[float, np.ndarray]:
    """(accuracy, float64 [units]: without one of each unit)."""
    right, rows = (np.bincount(unit, values, len(weight)) for values in (_right(y, predicted), np.ones(len(y))))
    every, n = (weight * right).sum(), (weight * rows).sum()
    return float(every / n), (every - right) / np.maximum(n - rows, 1)


def _macro_f1s(
    y: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weight: np.ndarray, classes: int
) -> tuple[float, np.ndarray]:
    """As _accuracies; the mean F1 over the classes that occur among labels or predictions, as metrics.score_labels."""
    order = np.argsort(unit, kind="stable")
    y, predicted, unit = y[order], predicted[order], unit[order]
    step = max(1, DENSE // classes)
    both, hits = np.zeros(classes), np.zeros(classes)
    parts = []
    for start in range(0, len(weight), step):  # twice: the totals first
        part = slice(*np.searchsorted(unit, [start, start + step]))
        parts.append((start, part))
        mine, hit = _counts(y[part], predicted[part], unit[part] - start, min(step, len(weight) - start), classes)
        both += weight[start : start + step] @ mine
        hits += weight[start : start + step] @ hit
    without = np.empty(len(weight))
    for start, part in parts:
        mine, hit = _counts(y[part], predicted[part], unit[part] - start, min(step, len(weight) - start), classes)
        without[start : start + step] = _mean_f1(both - mine, hits - hit)
    return float(_mean_f1(both[None], hits[None])[0]), without


def _counts(
    y: np.ndarray, predicted: np.ndarray, unit: np.ndarray, units: int, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows of a class plus rows predicted as it, rows that are both), each float64 [units, classes]."""
    if y.ndim == 2:
        mine, hit = np.zeros((units, classes)), np.zeros((units, classes))
        truth, guess = y > 0, predicted > 0
        np.add.at(mine, unit, truth.astype(np.float64) + guess)
        np.add.at(hit, unit, (truth & guess).astype(np.float64))
        return mine, hit
    size = units * classes
    rows = np.bincount(unit * classes + y, minlength=size) + np.bincount(unit * classes + predicted, minlength=size)
    same = y == predicted
    right = np.bincount(unit[same] * classes + y[same], minlength=size)
    return rows.reshape(units, classes).astype(np.float64), right.reshape(units, classes).astype(np.float64)


def _mean_f1(both: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """float64 [units], of [units, classes]."""
    there = both > 0.5
    f1 = np.where(there, 2 * hits / np.maximum(both, 1), 0.0)
    return np.asarray(f1.sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def _hierarchical_f1s(
    y: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weight: np.ndarray, classes: int
) -> tuple[float, np.ndarray]:
    """As _accuracies, of nodes int [n, levels], -1 for none: see level_scores."""
    hits = ((y == predicted) & (y >= 0)).sum(axis=1)
    both = (y >= 0).sum(axis=1) + (predicted >= 0).sum(axis=1)
    hits, both = (np.bincount(unit, values, len(weight)) for values in (hits, both))
    every, n = (weight * hits).sum(), (weight * both).sum()
    return float(2 * every / max(n, 1)), 2 * (every - hits) / np.maximum(n - both, 1)


def _r2s(
    y: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weight: np.ndarray, classes: int
) -> tuple[float, np.ndarray]:
    """As _accuracies; NaN for a constant y."""
    y, predicted = (np.asarray(one, np.float64).reshape(len(unit), -1) for one in (y, predicted))
    y, predicted = y - y.mean(axis=0), predicted - y.mean(axis=0)  # squares of large numbers would lose digits
    tables = [np.ones_like(y), y, y**2, (y - predicted) ** 2]
    sums = [np.stack([np.bincount(unit, c, len(weight)) for c in table.T], axis=1) for table in tables]
    n, total, squares, errors = (table.sum(axis=0) - np.vstack([table, np.zeros_like(table[:1])]) for table in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        every = (1 - errors / (squares - total**2 / n)).mean(axis=1)
    return float(every[-1]), every[:-1]


class Jackknife(NamedTuple):
    """How a score is computed without each unit in turn.

    Attributes:
        without: (y, predicted, unit of each row, weight of each unit, classes) to (the score, float64 [units]: without
            one of each unit).
        is_share: the score goes from 0 to 1; else it has no lower end, and its interval is Student's.
    """

    without: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int], tuple[float, np.ndarray]]
    is_share: bool = True


JACKKNIFE = {
    "accuracy": Jackknife(_accuracies),
    "macro_f1": Jackknife(_macro_f1s),
    "hierarchical_f1": Jackknife(_hierarchical_f1s),
    "r2": Jackknife(_r2s, is_share=False),
}
