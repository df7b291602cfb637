"""What a run's heads say of texts: one prediction, or all of them as a sequence and a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from embedcache.common.display import html_table, shorten
from embedcache.common.frames import Tabular, arrow_table, frame, free_names, label_column
from embedcache.heads.kinds import Kind, kind_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Label = str | list[str] | float  # a class; several labels, or none of them; the value of a regression


@dataclass(frozen=True)
class Prediction:
    """What the best head says of one text.

    Attributes:
        text: "" where only its vector was given.
        label: the likeliest class; of a multi-label head every label whose probability is above 1/2; of a regression
            the value.
        probabilities: of every class (they add up to 1) or label (each by itself); of a regression {}.
        columns: for a run of several label columns, column -> {"label", "probabilities"}, else empty. ``label`` and
            ``probabilities`` are then those of the first.
    """

    text: str
    label: Label
    probabilities: dict[str, float]
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if not self.columns:
            del document["columns"]
        return document


@dataclass(frozen=True)
class ColumnOutputs:
    """What one column's head says of n texts: probabilities float64 [n, classes], or values float32 [n, 1]."""

    kind: str
    classes: list[str]
    outputs: np.ndarray

    @property
    def about(self) -> Kind:
        return kind_of(self.kind)

    def label(self, i: int) -> Label:
        """The answer for one text, as in a Prediction."""
        if not self.about.has_classes:
            return float(str(self.outputs[i, 0]))  # 0.1, not 0.10000000149011612
        named = [self.classes[c] for c in self._chosen(i)]
        return named[0] if self.about.exclusive else named

    def probabilities(self, i: int) -> dict[str, float]:
        return dict(zip(self.classes, self.outputs[i].tolist(), strict=True)) if self.about.has_classes else {}

    def part(self, rows: slice) -> ColumnOutputs:
        """The predictions for some of the texts."""
        return ColumnOutputs(self.kind, self.classes, self.outputs[rows])

    def columns(self, name: str, probabilities: bool) -> dict[str, Any]:
        """Arrow columns: ``name`` has the labels, see ``Predictions.to_arrow``."""
        import pyarrow as pa

        outputs = self.outputs
        if not self.about.has_classes:
            return {name: pa.array(outputs[:, 0]).cast(pa.string()).cast(pa.float64())}  # 0.1, as in ``label``
        if self.about.exclusive:
            best = outputs.argmax(axis=1)
            labels: Any = pa.array(self.classes, pa.string()).take(pa.array(best))
            chances: Any = pa.array(outputs[np.arange(len(best)), best], pa.float64())
        else:
            chosen = [self._chosen(i) for i in range(len(outputs))]
            labels = pa.array([[self.classes[c] for c in some] for some in chosen], pa.list_(pa.string()))
            chances = pa.array([outputs[i, some] for i, some in enumerate(chosen)], pa.list_(pa.float64()))
        found = {name: labels, f"{name}_probability": chances}
        if probabilities:
            found |= {f"{name}_probability_{label}": pa.array(outputs[:, c]) for c, label in enumerate(self.classes)}
        return found

    def count(self) -> dict[str, int]:
        """How many texts have each label; {} of a regression."""
        if not self.about.has_classes:
            return {}
        if self.about.exclusive:
            rows = np.bincount(self.outputs.argmax(axis=1), minlength=len(self.classes))
        else:
            rows = (self.outputs > 0.5).sum(axis=0)
        return dict(zip(self.classes, rows.tolist(), strict=True))

    def _chosen(self, i: int) -> list[int]:
        row = self.outputs[i]
        return [int(row.argmax())] if self.about.exclusive else np.flatnonzero(row > 0.5).tolist()


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
            name: {"label": one.label(i), "probabilities": one.probabilities(i)} for name, one in several.items()
        }
        return Prediction("" if self.texts is None else self.texts[i], first.label(i), first.probabilities(i), columns)

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
        predicted label, or a list of those of the predicted labels; a regression has none. ``probabilities`` adds
        that of every class, predicted_probability_CLASS.
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
