"""What a run's heads say of texts: one prediction, or all of them as a sequence and a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from embedcache.common.display import html_table, shorten
from embedcache.common.frames import Tabular, arrow_table, frame, free_names, label_column
from embedcache.heads.kinds import Kind, kind_of
from embedcache.prediction.explanation import Explanation
from embedcache.prediction.levels import ClassTree
from embedcache.prediction.rule import REASONS, Rule

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Label = str | list[str] | float | None  # a class; several labels, or none of them; the value of a regression; refused


@dataclass(frozen=True)
class Prediction:
    """What the best head says of one text.

    Attributes:
        text: "" where only its vector was given.
        label: the likeliest class; of a multi-label head every label whose probability is above 1/2; of a regression
            the value. Thresholds may say otherwise. None: the run does not know, and ``reason`` says why.
        probabilities: of every class (they add up to 1) or label (each by itself); of a regression {}.
        columns: for a run of several label columns, column -> {"label", "probabilities", "reason"}, else empty. The
            others are then those of the first.
        reason: "unsure" or "unfamiliar" where rows may be refused and this one was, else "".
        explanation: why, where it was asked for, ``Explanation.to_dict()``; each of several label columns has its own.
        levels: of a run with a hierarchy the path to the label, from the top: {"level", "label", "probability"}; with a
            least probability, no deeper than it is sure, and label is the last. Else empty.
    """

    text: str
    label: Label
    probabilities: dict[str, float]
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: str = ""
    explanation: dict[str, Any] | None = None
    levels: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if not self.columns:
            del document["columns"]
        if not self.reason:
            del document["reason"]
        if not self.levels:
            del document["levels"]
        if self.explanation is None:
            del document["explanation"]
        return document


@dataclass(frozen=True)
class ColumnOutputs:
    """What one column's head says of n texts.

    Attributes:
        kind: of task.
        classes: the labels.
        outputs: probabilities float64 [n, classes], or values float32 [n, 1].
        rule: how they become labels; None is the usual way.
        reasons: int8 [n], the place in rule.REASONS; None where no row is refused.
        explained: why, of each text; None where that was not asked for.
    """

    kind: str
    classes: list[str]
    outputs: np.ndarray
    rule: Rule | None = None
    reasons: np.ndarray | None = None
    explained: Sequence[Explanation] | None = None

    @property
    def about(self) -> Kind:
        return kind_of(self.kind)

    @cached_property
    def decided(self) -> np.ndarray:
        """int [n] or bool [n, classes]."""
        return (self.rule or Rule(self.about)).decide(self.outputs)

    @property
    def tree(self) -> ClassTree | None:
        """The hierarchy of the classes."""
        return None if self.rule is None else self.rule.tree

    @cached_property
    def nodes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of a hierarchy: see ``ClassTree.answers``; -1 also where a row is refused."""
        assert self.tree is not None
        nodes, probabilities = self.tree.answers(self.outputs, self.decided)
        return (nodes if self.reasons is None else np.where(self.reasons > 0, -1, nodes)), probabilities

    def reason(self, i: int) -> str:
        """Why one text has no label; "" where it has one."""
        return REASONS[0 if self.reasons is None else self.reasons[i]]

    def more(self, i: int) -> dict[str, Any]:
        """The reason and the explanation of one text, where there are such."""
        found: dict[str, Any] = {"reason": self.reason(i)} if self.reason(i) else {}
        if self.tree is not None and (path := self.tree.path(int(self.nodes[0][i]), self.nodes[1][i])):
            found["levels"] = path
        return found if self.explained is None else {**found, "explanation": self.explained[i].to_dict()}

    def label(self, i: int) -> Label:
        """The answer for one text, as in a Prediction."""
        if self.reason(i):
            return None
        if not self.about.has_classes:
            return float(str(self.outputs[i, 0]))  # 0.1, not 0.10000000149011612
        if self.tree is not None and self.tree.sure is not None:
            return self.tree.hierarchy.names[self.nodes[0][i]]
        named = [self.classes[c] for c in self._chosen(i)]
        return named[0] if self.about.exclusive else named

    def probabilities(self, i: int) -> dict[str, float]:
        return dict(zip(self.classes, self.outputs[i].tolist(), strict=True)) if self.about.has_classes else {}

    def part(self, rows: slice) -> ColumnOutputs:
        """The predictions for some of the texts."""
        reasons = None if self.reasons is None else self.reasons[rows]
        explained = None if self.explained is None else self.explained[rows]
        return ColumnOutputs(self.kind, self.classes, self.outputs[rows], self.rule, reasons, explained)

    def columns(self, name: str, probabilities: bool) -> dict[str, Any]:
        """Arrow columns: ``name`` has the labels, see ``Predictions.to_arrow``."""
        import pyarrow as pa
        import pyarrow.compute as pc

        outputs = self.outputs
        if not self.about.has_classes:
            values = pa.array(outputs[:, 0]).cast(pa.string()).cast(pa.float64())  # 0.1, as in ``label``
            return {name: values, **self._explained_columns(name)}
        if self.about.exclusive:
            best = self.decided
            labels: Any = pa.array(self.classes, pa.string()).take(pa.array(best))
            chances: Any = pa.array(outputs[np.arange(len(best)), best], pa.float64())
        else:
            chosen = [self._chosen(i) for i in range(len(outputs))]
            labels = pa.array([[self.classes[c] for c in some] for some in chosen], pa.list_(pa.string()))
            chances = pa.array([outputs[i, some] for i, some in enumerate(chosen)], pa.list_(pa.float64()))
        if self.tree is not None and self.tree.sure is not None:
            nodes, every = self.nodes
            chances = pa.array(every[np.arange(len(nodes)), nodes], pa.float64(), mask=nodes < 0)
            labels = pa.array(self.tree.hierarchy.names, pa.string()).take(pa.array(nodes, mask=nodes < 0))
        found = {name: labels, f"{name}_probability": chances}
        if self.reasons is not None:
            refused = pa.array(self.reasons > 0)
            found[name] = pc.if_else(refused, None, labels)
            found[f"{name}_reason"] = pc.if_else(refused, pa.array(REASONS).take(pa.array(self.reasons)), None)
        if self.tree is not None:
            levels = self.tree.columns(name, *self.nodes)
            free = free_names(found, list(levels))
            found |= {free[level]: values for level, values in levels.items()}
        found |= self._explained_columns(name)
        if probabilities:
            found |= {f"{name}_probability_{label}": pa.array(outputs[:, c]) for c, label in enumerate(self.classes)}
        return found

    def _explained_columns(self, name: str) -> dict[str, Any]:
        """The words that carry the label, what it loses without each, and the rows for and against it."""
        import pyarrow as pa

        if self.explained is None:
            return {}
        every = self.explained
        return {
            f"{name}_words": pa.array([[w.word for w in one.carrying] for one in every], pa.list_(pa.string())),
            f"{name}_effects": pa.array([[w.effect for w in one.carrying] for one in every], pa.list_(pa.float64())),
            f"{name}_for": pa.array([[r.row for r in one.supporting] for one in every], pa.list_(pa.int64())),
            f"{name}_against": pa.array([[r.row for r in one.opposing] for one in every], pa.list_(pa.int64())),
        }

    def count(self) -> dict[str, int]:
        """How many texts have each label; {} of a regression."""
        if not self.about.has_classes:
            return {}
        if self.tree is not None and self.tree.sure is not None:
            nodes = self.nodes[0]
            counts = np.bincount(nodes[nodes >= 0], minlength=len(self.tree.hierarchy.names)).tolist()
            return _summed(zip(self.tree.hierarchy.names, counts, strict=True))
        decided = self.decided if self.reasons is None else self.decided[self.reasons == 0]
        one_each = self.about.exclusive
        rows = np.bincount(decided, minlength=len(self.classes)) if one_each else decided.sum(axis=0)
        return dict(zip(self.classes, rows.tolist(), strict=True))

    def count_reasons(self) -> dict[str, int]:
        """Reason -> how many texts have no label for it; {} where none is refused."""
        if self.reasons is None:
            return {}
        rows = np.bincount(self.reasons, minlength=len(REASONS)).tolist()
        return dict(zip(REASONS[1:], rows[1:], strict=True))

    def _chosen(self, i: int) -> list[int]:
        row = self.decided[i]
        return [int(row)] if self.about.exclusive else np.flatnonzero(row).tolist()


def _summed(counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Those of one name together: nodes of two levels may share it."""
    found: dict[str, int] = {}
    for name, count in counts:
        found[name] = found.get(name, 0) + count
    return found


class Predictions(Sequence[Prediction], Tabular):
    """What a run's heads say of n texts: a sequence of ``Prediction``, and a table.

    Attributes:
        texts: the n texts, or None where vectors were given.
        answers: label column -> probabilities or values of all of them.
    """

    def __init__(self, texts: Sequence[str] | None, answers: dict[str, ColumnOutputs]) -> None:
        self.texts, self.answers = texts, answers

    def __len__(self) -> int:
        return len(next(iter(self.answers.values())).outputs)

    @overload
    def __getitem__(self, place: int) -> Prediction: ...
    @overload
    def __getitem__(self, place: slice) -> Predictions: ...
    def __getitem__(self, place: int | slice) -> Prediction | Predictions:
        if isinstance(place, slice):
            texts = None if self.texts is None else self.texts[place]
            return Predictions(texts, {name: one.part(place) for name, one in self.answers.items()})
        i = range(len(self))[place]  # an IndexError as of a list
        first, several = next(iter(self.answers.values())), self.answers if len(self.answers) > 1 else {}
        columns = {
            name: {"label": one.label(i), "probabilities": one.probabilities(i), **one.more(i)}
            for name, one in several.items()
        }
        text = "" if self.texts is None else self.texts[i]
        return Prediction(text, first.label(i), first.probabilities(i), columns, **first.more(i))

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, (Predictions, list, tuple)) and len(self) == len(other)
        return same and all(mine == its for mine, its in zip(self, other, strict=True))  # type: ignore[call-overload]

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        named = (", ".join(f"{name} {count:,}" for name, count in self.counts.items())) or "values"
        return f"Predictions({len(self):,}: {shorten(named)})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        table = self[:11].to_arrow()
        rows = (tuple(line.values()) for line in table.to_pylist())
        return html_table(f"{len(self):,} predictions", table.column_names, rows)

    @property
    def refused(self) -> dict[str, int]:
        """Reason -> how many texts have no label of the first label column for it; {} where none is refused."""
        return next(iter(self.answers.values())).count_reasons()

    @property
    def labels(self) -> list[Label]:
        """What is predicted of each text, by the first column's head: a new column of the table that they are from."""
        first = next(iter(self.answers.values()))
        return [first.label(i) for i in range(len(self))]

    @property
    def counts(self) -> dict[str, int]:
        """Label -> how many texts have it, of the first label column; of a regression {}."""
        return next(iter(self.answers.values())).count()

    def to_arrow(self, *, probabilities: bool = False) -> pa.Table:
        """A line for each text: text (where there is one), predicted, predicted_probability.

        Of several label columns predicted_COLUMN and predicted_COLUMN_probability each. The probability is that of the
        predicted label, or a list of those of the predicted labels; a regression has none. Where rows may be refused,
        predicted is null for those that are, and predicted_reason says why. Of a hierarchy each level has
        predicted_LEVEL and predicted_LEVEL_probability, null below the answer. ``probabilities`` adds that
        of every class, predicted_probability_CLASS.
        """
        columns: dict[str, Any] = {} if self.texts is None else {"text": label_column(self.texts)}
        for name, one in self.answers.items():
            own = "predicted" if len(self.answers) == 1 else f"predicted_{name}"
            for what, values in one.columns(own, probabilities).items():
                columns[free_names(columns, [what])[what]] = values
        return arrow_table(columns)

    def to_pandas(self, *, probabilities: bool = False) -> pd.DataFrame:
        """The same as a pandas.DataFrame. Raises EmbedcacheError where pandas is not installed."""
        return frame(self.to_arrow(probabilities=probabilities))
