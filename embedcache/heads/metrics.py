"""How a head does on some rows: scores, a report per class, the confusion matrix, calibration, 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.calibration import Calibration, measure_calibration

MAX_MATRIX = 100  # classes up to which there is a confusion matrix
CONFUSIONS = 20  # pairs of classes that are mixed up most
RESAMPLES = 2000  # of the bootstrap
RESAMPLED_VALUES = 4_000_000  # drawn at a time


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
    ``interval``: 95% of the accuracy (Wilson) or of r2 (bootstrap over the rows), where it was asked for.
    ``confusion_matrix``: int64 [C, C] of a classification of up to 100 classes; row: the class it is, column: the
    class predicted. ``confusions``: the most frequent first. ``scaled``: the calibration at ``temperature``.
    """

    kind: str
    rows: int
    scores: dict[str, float]
    interval: tuple[float, float] | None = None
    per_class: list[ClassScores] = field(default_factory=list)
    confusion_matrix: np.ndarray | None = None
    confusions: list[Confusion] = field(default_factory=list)
    calibration: Calibration | None = None
    temperature: float | None = None
    scaled: Calibration | None = None

    def to_dict(self, bins: bool = True) -> dict[str, Any]:
        """JSON types. ``bins``: with those of the calibration, for a reliability diagram."""
        document: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        document |= {name: number(value) for name, value in self.scores.items()}
        document[f"{main_score(self.kind)}_interval"] = None if self.interval is None else list(self.interval)
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
) -> Evaluation:
    """Everything about a head's outputs on n > 0 rows.

    classification: y class codes int [n], outputs logits or log-probabilities float [n, C]. multilabel: y 0/1 [n, C],
    outputs logits. regression: y and outputs [n] or [n, T] in one unit; the scores are means over the T.
    ``classes``: the label of each column. ``temperature``: by calibration.fit_temperature, on validation rows.
    """
    if kind == "regression":
        return Evaluation(kind, len(y), regression_scores(y, outputs), r2_interval(y, outputs) if interval else None)
    predicted = outputs > 0 if kind == "multilabel" else outputs.argmax(axis=1)
    calibration = measure_calibration(y, outputs, kind)
    per_class, f1 = _class_scores(predicted, y, classes)
    accuracy = float((predicted == y).reshape(len(y), -1).all(axis=1).mean())
    matrix, confusions = (None, []) if kind == "multilabel" else _confusion(predicted, y, classes)
    return Evaluation(
        kind=kind,
        rows=len(y),
        scores={"loss": calibration.loss, "accuracy": accuracy, **f1},
        interval=accuracy_interval(accuracy, len(y)) if interval else None,
        per_class=per_class,
        confusion_matrix=matrix,
        confusions=confusions,
        calibration=calibration,
        temperature=temperature,
        scaled=None if temperature is None else measure_calibration(y, outputs, kind, temperature),
    )


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


def accuracy_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy that was measured on n > 0 rows."""
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def r2_interval(y: np.ndarray, predicted: np.ndarray) -> tuple[float, float] | None:
    """95% interval of r2 by the bootstrap over rows (percentiles of 2,000 samples), the same at every call.

    Of [n] or [n, T]. None for fewer than ten rows or a constant y: the samples would say nothing.
    """
    from scipy.stats import bootstrap

    y, predicted = (np.asarray(one, np.float64).reshape(len(y), -1) for one in (y, predicted))
    if len(y) < 10 or not y.std(axis=0).all():
        return None

    def r2(rows: np.ndarray, axis: int = -1) -> np.ndarray:
        """Of samples of row numbers [..., n]."""
        truth = y[rows]  # [..., n, T]
        with np.errstate(divide="ignore", invalid="ignore"):  # a sample of one value only
            return (1 - ((truth - predicted[rows]) ** 2).mean(axis=-2) / truth.var(axis=-2)).mean(axis=-1)

    batch = max(1, RESAMPLED_VALUES // y.size)
    found = bootstrap(
        (np.arange(len(y)),),
        r2,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=batch,
        method="percentile",
        random_state=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def number(value: float) -> float | None:
    """JSON and CSV have no NaN."""
    return float(value) if np.isfinite(value) else None


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
