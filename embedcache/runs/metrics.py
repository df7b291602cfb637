"""How a head does on some rows: scores, a report per class, the confusion matrix, calibration, 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.arrays import json_number
from embedcache.runs.calibration import Calibration, measure_calibration
from embedcache.runs.intervals import score_interval

MAX_MATRIX = 100  # classes up to which there is a confusion matrix
CONFUSIONS = 20  # pairs of classes that are mixed up most


@dataclass(frozen=True)
class ClassScores:
    """Of one class or label; 0 to 1. support: its rows."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """How many rows of a class were taken for another."""

    label: str
    predicted: str
    rows: int


@dataclass(frozen=True)
class Evaluation:
    """What a head does on some rows.

    ``scores``: classification and multilabel have loss (nats, unweighted), accuracy (multilabel: rows with every label
    right), macro_f1 and, multilabel, micro_f1; regression has r2, rmse, mae (in the label's unit) and spearman.
    ``intervals``: 95% of accuracy and macro_f1, or of r2, where they were asked for: intervals.score_interval.
    ``confusion_matrix``: int64 [C, C] of a classification of up to 100 classes; row: the class it is, column: the
    class predicted. ``confusions``: the most frequent first. ``scaled``: the calibration at ``temperature``.
    """

    kind: str
    rows: int
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float] | None] = field(default_factory=dict)
    per_class: list[ClassScores] = field(default_factory=list)
    confusion_matrix: np.ndarray | None = None
    confusions: list[Confusion] = field(default_factory=list)
    calibration: Calibration | None = None
    temperature: float | None = None
    scaled: Calibration | None = None

    def to_dict(self, bins: bool = True) -> dict[str, Any]:
        """JSON types. ``bins``: with those of the calibration, for a reliability diagram."""
        document: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        document |= {name: json_number(value) for name, value in self.scores.items()}
        for name in MEASURED[self.kind]:
            interval = self.intervals.get(name)
            document[f"{name}_interval"] = None if interval is None else list(interval)
        if self.calibration is None:
            return document
        document["per_class"] = [asdict(one) for one in self.per_class]
        if self.kind == "classification":
            document["confusion_matrix"] = None if self.confusion_matrix is None else self.confusion_matrix.tolist()
            document["confusions"] = [asdict(one) for one in self.confusions]
        document["calibration"] = self.calibration.to_dict(bins)
        document["temperature"] = self.temperature
        document["calibration_scaled"] = None if self.scaled is None else self.scaled.to_dict(bins)
        return document


# The scores that have an interval, and by which two models are compared.
MEASURED = {"classification": ("accuracy", "macro_f1"), "multilabel": ("accuracy", "macro_f1"), "regression": ("r2",)}


def main_score(kind: str) -> str:
    """The score that people ask for first."""
    return "r2" if kind == "regression" else "accuracy"


def evaluate(
    y: np.ndarray,
    outputs: np.ndarray,
    classes: Sequence[str],
    kind: str = "classification",
    *,
    temperature: float | None = None,
    interval: bool = False,
    groups: np.ndarray | None = None,
) -> Evaluation:
    """Everything about a head's outputs on n > 0 rows.

    classification: y class codes int [n], outputs logits or log-probabilities float [n, C]. multilabel: y 0/1 [n, C],
    outputs logits. regression: y and outputs [n] or [n, T] in one unit; the scores are means over the T.
    ``classes``: the label of each column. ``temperature``: by calibration.fit_temperature, on validation rows.
    ``groups``: int [n], of rows that belong together, for the intervals; None where rows stand for themselves.
    """
    predicted = decide(outputs, kind)
    names = MEASURED[kind] if interval else ()
    intervals = {name: score_interval(name, y, predicted, groups) for name in names}
    if kind == "regression":
        return Evaluation(kind, len(y), regression_scores(y, outputs), intervals)
    calibration = measure_calibration(y, outputs, kind)
    per_class, f1 = _class_scores(predicted, y, classes)
    accuracy = float((predicted == y).reshape(len(y), -1).all(axis=1).mean())
    matrix, confusions = (None, []) if kind == "multilabel" else _confusion(predicted, y, classes)
    return Evaluation(
        kind=kind,
        rows=len(y),
        scores={"loss": calibration.loss, "accuracy": accuracy, **f1},
        intervals=intervals,
        per_class=per_class,
        confusion_matrix=matrix,
        confusions=confusions,
        calibration=calibration,
        temperature=temperature,
        scaled=None if temperature is None else measure_calibration(y, outputs, kind, temperature),
    )


def decide(outputs: np.ndarray, kind: str) -> np.ndarray:
    """What a head's outputs say, in the form of y: class codes [n], bool [n, C], or the values themselves."""
    if kind == "regression":
        return outputs
    return outputs > 0 if kind == "multilabel" else outputs.argmax(axis=1)


def score_labels(predicted: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1 of predicted class codes [n] against y [n], or of 0/1 [n, C] (rows with every label right).

    Macro F1 is the mean over the classes that occur in either.
    """
    from sklearn.metrics import f1_score

    accuracy = float((predicted == y).reshape(len(y), -1).all(axis=1).mean())
    both = np.concatenate([predicted, y]).astype(np.int64)
    occur = np.unique(both) if y.ndim == 1 else np.flatnonzero(both.any(axis=0))
    truth, guess = both[len(y) :], both[: len(y)]
    f1 = f1_score(truth, guess, labels=occur, average="macro", zero_division=0) if len(occur) else 0.0
    return accuracy, float(f1)


def regression_scores(y: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """r2, rmse, mae and spearman of predictions [n] or [n, T]; NaN where a score makes no sense (one row or value)."""
    import warnings

    from scipy.stats import spearmanr
    from sklearn.metrics import mean_absolute_error, r2_score

    y, predicted = (np.asarray(one, np.float64).reshape(len(y), -1) for one in (y, predicted))
    r2 = spearman = float("nan")
    if len(y) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant values have no ranks
            r2 = r2_score(y, predicted)
            spearman = np.mean([spearmanr(a, b)[0] for a, b in zip(y.T, predicted.T, strict=True)])
    rmse = np.sqrt(((y - predicted) ** 2).mean(axis=0)).mean()
    scores = {"r2": r2, "rmse": rmse, "mae": mean_absolute_error(y, predicted), "spearman": spearman}
    return {name: float(value) for name, value in scores.items()}


def _class_scores(
    predicted: np.ndarray, y: np.ndarray, classes: Sequence[str]
) -> tuple[list[ClassScores], dict[str, float]]:
    """Of codes [n] or indicators [n, C]: each class's scores; macro F1, the mean over the classes that occur in either.

    Indicators have a micro F1 too; that of codes is their accuracy.
    """
    from sklearn.metrics import precision_recall_fscore_support

    y, labels = y.astype(np.int64), np.arange(len(classes))
    scores = precision_recall_fscore_support(y, predicted.astype(np.int64), labels=labels, zero_division=0)
    per_class = [
        ClassScores(str(label), float(p), float(r), float(f), int(s))
        for label, p, r, f, s in zip(classes, *scores, strict=True)
    ]
    indicators = y.ndim == 2
    guessed = predicted.sum(axis=0) if indicators else np.bincount(predicted, minlength=len(classes))
    occur = (scores[3] > 0) | (guessed > 0)
    f1 = {"macro_f1": float(scores[2][occur].mean()) if occur.any() else 0.0}
    if indicators:
        right, all_of_them = (predicted & (y > 0)).sum(), predicted.sum() + y.sum()
        f1["micro_f1"] = float(2 * right / all_of_them) if all_of_them else 0.0
    return per_class, f1


def _confusion(
    predicted: np.ndarray, y: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray | None, list[Confusion]]:
    from sklearn.metrics import confusion_matrix

    count = len(classes)
    matrix = confusion_matrix(y, predicted, labels=np.arange(count)) if count <= MAX_MATRIX else None
    wrong = predicted != y
    pairs, rows = np.unique(y[wrong].astype(np.int64) * count + predicted[wrong], return_counts=True)
    most = np.argsort(-rows, kind="stable")[:CONFUSIONS]
    return matrix, [
        Confusion(str(classes[pairs[i] // count]), str(classes[pairs[i] % count]), int(rows[i])) for i in most
    ]
