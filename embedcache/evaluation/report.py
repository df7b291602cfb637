"""What evaluate found, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class ScoreValue:
    """A score, and its 95% interval where it has one."""

    value: float | None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}


@dataclass
class BaselineScores:
    """A baseline on the same rows, trained on the run's own training rows; a note where there is something to say."""

    scores: dict[str, ScoreValue]
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {"scores": {name: score.to_dict() for name, score in self.scores.items()}, "note": self.note}


@dataclass
class RunScores:
    """How one run does on the rows.

    Attributes:
        run, column: the folder, and the label column of it. kind, classes: what it predicts.
        rows: how many are scored. trained: those whose text it trained on or chose by; None where it does not say.
        trained_groups: of a run that was split by groups, where the rows have that column: column, rows whose group it
            learned from, their share, groups (how many such); else None.
        unknown: known labels that the run has not learned -> their rows, which count as wrong.
        scores: metric -> score. evaluation: per class, confusion, calibration, as ``metrics.Evaluation.to_dict``.
        confidence: accuracy of the rows above a confidence, and their share. curves: of each class, by threshold.
        baselines: by name. mistakes: the wrong rows of which it was surest (regression: the largest errors).
    """

    run: str
    column: str
    kind: str
    classes: list[str]
    rows: int
    trained: int | None
    unknown: dict[str, int]
    scores: dict[str, ScoreValue]
    evaluation: dict[str, Any]
    confidence: list[dict[str, float]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[str, BaselineScores] = field(default_factory=dict)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    trained_groups: dict[str, Any] | None = None

    @property
    def names(self) -> list[str]:
        """The labels of the confusion matrix: those that the run knows, then the others."""
        return [*self.classes, *self.unknown]

    @property
    def confusion(self) -> dict[str, Any] | None:
        """{"labels", "matrix"}, a row for each known label and a column for each predicted one; None of many."""
        matrix = self.evaluation.get("confusion_matrix")
        return None if matrix is None else {"labels": self.names, "matrix": matrix}

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        document = asdict(self)
        document["confusion"] = self.confusion
        for name in ("scores", "baselines"):
            document[name] = {key: one.to_dict() for key, one in getattr(self, name).items()}
        return document


@dataclass
class EvaluationReport:
    """Runs on rows whose labels are known.

    Attributes:
        source: the table or cache. label, group: columns of it. rows: scored. unlabelled: left out, without a label.
        left_out: rows left out by ``unseen``. groups: different groups, None without ``group``.
        runs: in the order given. comparisons: first, second, metric, difference (first less second), interval, p,
            within_noise; every run with its baselines, then run with run, paired over the rows or groups.
        labels_from: the journal over the labels of a cache, see docs/labelling.md.
        output: the page that was written, or None.
    """

    source: str
    label: str
    group: str | None
    rows: int
    unlabelled: int
    left_out: int
    groups: int | None
    runs: list[RunScores]
    comparisons: list[dict[str, Any]]
    notes: list[str]
    labels_from: dict[str, Any] | None = None
    output: str | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """What --json prints: at the top what concerns all runs and the scores of the first, under "runs" each."""
        runs = [run.to_dict() for run in self.runs]
        shared = {name: value for name, value in vars(self).items() if name != "runs"}
        top = {name: runs[0][name] for name in ("scores", "classes", "confusion", "baselines")}
        return {**shared, **top, "runs": runs}
