"""How a head does on some rows: scores, a report per class, the confusion matrix, calibration, 95% intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import kind_of
from embedcache.runs.calibration import Calibration, measure_calibration
from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.intervals import score_interval
from embedcache.runs.level_scores import LevelScores, score_levels
from embedcache.runs.scores import measure_all

MAX_MATRIX = 100  # classes up to which there is a confusion matrix
CONFUSIONS = 20  # pairs of classes that are mixed up most


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class or label, 0 to 1. support: its rows."""

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

    ``scores``: those of scores.SCORES that the kind has (of multilabel, accuracy counts rows with every label right).
    ``intervals``: 95% of those that the kind measures, where they were asked for: intervals.score_interval.
    ``confusion_matrix``: int64 [C, C] of a classification of up to 100 classes; row: the class it is, column: the
    class predicted. ``confusions``: the most frequent first. ``scaled``: the calibration at ``temperature``.
    ``levels``: of a hierarchy.
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
    levels: LevelScores | None = None

    def to_dict(self, bins: bool = True) -> dict[str, Any]:
        """JSON types. ``bins``: with those of the calibration, for a reliability diagram."""
        document: dict[str, Any] = {"kind": self.kind, "rows": self.rows}
        document |= {name: json_number(value) for name, value in self.scores.items()}
        for name in kind_of(self.kind).measured:
            interval = self.intervals.get(name)
            document[f"{name}_interval"] = None if interval is None else list(interval)
        if self.levels is not None:
            document |= self.levels.to_dict()
        if self.calibration is None:
            return document
        document["per_class"] = [asdict(one) for one in self.per_class]
        if kind_of(self.kind).exclusive:
            document["confusion_matrix"] = None if self.confusion_matrix is None else self.confusion_matrix.tolist()
            document["confusions"] = [asdict(one) for one in self.confusions]
        document["calibration"] = self.calibration.to_dict(bins)
        document["temperature"] = self.temperature
        document["calibration_scaled"] = None if self.scaled is None else self.scaled.to_dict(bins)
        return document


def evaluate(
    y: np.ndarray,
    outputs: np.ndarray,
    classes: Sequence[str],
    kind: str = "classification",
    *,
    temperature: float | None = None,
    interval: bool = False,
    groups: np.ndarray | None = None,
    hierarchy: Hierarchy | None = None,
) -> Evaluation:
    """Everything about a head's outputs on n > 0 rows.

    classification: y class codes int [n], outputs logits or log-probabilities float [n, C]. multilabel: y 0/1 [n, C],
    outputs logits. regression: y and outputs [n] or [n, T] in one unit; the scores are means over the T.
    ``classes``: the label of each column. ``temperature``: by calibration.fit_temperature, on validation rows.
    ``groups``: int [n], of rows that belong together, for the intervals; None where rows stand for themselves.
    ``hierarchy``: of the classes, whose levels are scored, too.
    """
    about = kind_of(kind)
    predicted = about.decide(outputs)
    names = about.measured if interval else ()
    intervals = {name: score_interval(name, y, predicted, groups) for name in names}
    scores = measure_all(kind, y, predicted)
    if not about.has_classes:
        return Evaluation(kind, len(y), scores, intervals)
    calibration = measure_calibration(y, outputs, kind)
    per_class = _class_scores(predicted, y, classes)
    matrix, confusions = _confusion(predicted, y, classes) if about.exclusive else (None, [])
    return Evaluation(
        kind=kind,
        rows=len(y),
        scores={"loss": calibration.loss, **scores},
        intervals=intervals,
        per_class=per_class,
        confusion_matrix=matrix,
        confusions=confusions,
        calibration=calibration,
        temperature=temperature,
        scaled=None if temperature is None else measure_calibration(y, outputs, kind, temperature),
        levels=None if hierarchy is None else score_levels(hierarchy, y, predicted, interval=interval, groups=groups),
    )


def score_labels(predicted: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1 of predicted class codes [n] against y [n], or of 0/1 [n, C] (rows with every label right).

    Macro F1 is the mean over the classes that occur in either.
    """
    found = measure_all("classification", y, predicted)
    return found["accuracy"], found["macro_f1"]


def _class_scores(predicted: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> list[ClassScores]:
    """Each class's scores, from codes [n] or indicators [n, C]."""
    from sklearn.metrics import precision_recall_fscore_support

    y, labels = y.astype(np.int64), np.arange(len(classes))
    scores = precision_recall_fscore_support(y, predicted.astype(np.int64), labels=labels, zero_division=0)
    return [
        ClassScores(str(label), float(p), float(r), float(f), int(s))
        for label, p, r, f, s in zip(classes, *scores, strict=True)
    ]


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
