"""The scores: what each is called, for which kinds of task it is, how it is computed. One record and one line each.

A score is computed from predictions in the form of y (``Kind.decide``): class codes int [n], 0/1 [n, C] of labels, or
numbers float [n] or [n, T]. Those with an interval stand in ``intervals.JACKKNIFE``; what a head may be chosen by, in
``heads.kinds``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedcache.heads.kinds import KINDS, LABELS, LISTS, NUMBERS, kind_of

Measure = Callable[[np.ndarray, np.ndarray], float]  # (y, predicted) of n > 0 rows


@dataclass(frozen=True)
class Score:
    """One score.

    Attributes:
        name: in files and options.
        title: in a sentence or a table; ``short``: the heading of a narrow column.
        kinds: the kinds of task that have it.
        measure: y and predictions to the score, NaN where it makes no sense; None where it needs probabilities.
        source: what it is compared with in the tests.
        higher_is_better: else lower.
        headline: shown beside the main score of its kind wherever models stand in a table.
        board: a column of leaderboard.csv.
        hub: what the Hugging Face Hub calls it in a model card.
    """

    name: str
    title: str
    short: str
    kinds: tuple[str, ...]
    measure: Measure | None
    source: str
    higher_is_better: bool = True
    headline: bool = False
    board: bool = False
    hub: str = ""


def _accuracy(y: np.ndarray, predicted: np.ndarray) -> float:
    """The share of rows that are right; of lists, with every label right."""
    return float((predicted == y).reshape(len(y), -1).all(axis=1).mean())


def _counts(y: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows of a class plus rows predicted as it, rows that are both), each float64 [C]."""
    if y.ndim == 2:
        truth, guess = y > 0, predicted > 0
        return (truth.astype(np.float64) + guess).sum(axis=0), (truth & guess).sum(axis=0).astype(np.float64)
    y, predicted = y.astype(np.int64), predicted.astype(np.int64)
    classes = int(max(y.max(), predicted.max())) + 1
    both = np.bincount(y, minlength=classes) + np.bincount(predicted, minlength=classes)
    return both.astype(np.float64), np.bincount(y[y == predicted], minlength=classes).astype(np.float64)


def _macro_f1(y: np.ndarray, predicted: np.ndarray) -> float:
    """The mean over the classes that occur in either."""
    both, hits = _counts(y, predicted)
    occur = both > 0
    return float((2 * hits[occur] / both[occur]).mean()) if occur.any() else 0.0


def _micro_f1(y: np.ndarray, predicted: np.ndarray) -> float:
    both, hits = _counts(y, predicted)
    return float(2 * hits.sum() / both.sum()) if both.any() else 0.0


def _columns(y: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [n, T] each."""
    one, other = (np.asarray(values, np.float64).reshape(len(y), -1) for values in (y, predicted))
    return one, other


def _r2(y: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import r2_score

    if len(y) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(r2_score(*_columns(y, predicted)))


def _rmse(y: np.ndarray, predicted: np.ndarray) -> float:
    y, predicted = _columns(y, predicted)
    return float(np.sqrt(((y - predicted) ** 2).mean(axis=0)).mean())


def _mae(y: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import mean_absolute_error

    return float(mean_absolute_error(*_columns(y, predicted)))


def _spearman(y: np.ndarray, predicted: np.ndarray) -> float:
    from scipy.stats import spearmanr

    if len(y) < 2:
        return float("nan")
    y, predicted = _columns(y, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant values have no ranks
        return float(np.mean([spearmanr(a, b)[0] for a, b in zip(y.T, predicted.T, strict=True)]))


SCORES: dict[str, Score] = {
    one.name: one
    for one in (
        Score("loss", "loss", "loss", LABELS, None, "sklearn.metrics.log_loss", higher_is_better=False),
        Score(
            "accuracy", "accuracy", "acc", LABELS, _accuracy, "sklearn.metrics.accuracy_score",
            headline=True, hub="accuracy",
        ),
        Score("macro_f1", "macro F1", "F1", LABELS, _macro_f1, "sklearn.metrics.f1_score", headline=True, hub="f1"),
        Score("micro_f1", "micro F1", "micro F1", LISTS, _micro_f1, "sklearn.metrics.f1_score"),
        Score("r2", "R²", "r2", NUMBERS, _r2, "sklearn.metrics.r2_score", headline=True, hub="r_squared"),
        Score(
            "rmse", "RMSE", "rmse", NUMBERS, _rmse, "sklearn.metrics.root_mean_squared_error",
            higher_is_better=False, headline=True, board=True, hub="rmse",
        ),
        Score(
            "mae", "mean absolute error", "mae", NUMBERS, _mae, "sklearn.metrics.mean_absolute_error",
            higher_is_better=False, board=True,
        ),
        Score("spearman", "Spearman", "spearman", NUMBERS, _spearman, "scipy.stats.spearmanr", board=True),
    )
}  # fmt: skip


CHOICES = tuple(dict.fromkeys(choice for kind in KINDS for choice in kind_of(kind).choices))  # of a head


def scores_of(kind: str) -> list[Score]:
    """Those of a kind of task, in the order in which they are shown."""
    return [one for one in SCORES.values() if kind in one.kinds]


def measure_all(kind: str, y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Every score of a kind that needs no probabilities, of n > 0 rows."""
    return {one.name: one.measure(y, predicted) for one in scores_of(kind) if one.measure is not None}


def main_score(kind: str) -> str:
    """The score that people ask for first."""
    return kind_of(kind).main


def headlines(kind: str) -> list[str]:
    """The main score of a kind, and those beside it in every table of models."""
    return [one.name for one in scores_of(kind) if one.headline]


def title(name: str) -> str:
    """What a score is called; an unknown name is its own title."""
    return SCORES[name].title if name in SCORES else name
