"""How often the labels are right, where a column of the input has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.evaluation.gold import Gold, read_cache, read_table
from embedcache.evaluation.report import ScoreValue
from embedcache.prediction.rows import CacheRows, RowSource, TableRows
from embedcache.runs.intervals import score_interval
from embedcache.runs.scores import headlines, measure_all
from embedcache.tables.rows import column_names

COLUMN = "label"  # that is scored where none is named
NAMED = 5  # labels in a message


@dataclass(frozen=True)
class KnownScores:
    """Scores on the rows that have a label.

    Attributes:
        label, group: the columns. rows: scored. unlabelled: left out. groups: different ones, None without ``group``.
        scores: accuracy and macro F1, with 95% intervals. majority: share of the commonest label.
        unknown: labels that were not among those asked for -> their rows, which count as wrong.
    """

    label: str
    group: str | None
    rows: int
    unlabelled: int
    groups: int | None
    scores: dict[str, ScoreValue]
    majority: float
    unknown: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self) | {"scores": {name: one.to_dict() for name, one in self.scores.items()}}


class KnownLabels:
    """The known labels of rows that are labelled, against which the new ones are held."""

    def __init__(self, gold: Gold, label: str, group: str | None, places: np.ndarray, names: Sequence[str]) -> None:
        """places: int64 [n], the number of each row with a known label among those that are labelled."""
        self._gold, self._label, self._group, self._places, self._names = gold, label, group, places, list(names)
        self._found: list[np.ndarray] = []
        self._number = {name: i for i, name in enumerate(names)}

    def see(self, new: list[Any]) -> None:
        """The new columns of the next rows, labels first."""
        self._found.append(np.array([self._number[name] for name in new[0].to_pylist()], np.int64))

    def scores(self) -> KnownScores:
        """Once all rows were seen."""
        gold = self._gold
        predicted = np.concatenate(self._found)[self._places]
        counts = Counter(gold.labels)
        unknown = {name: rows for name, rows in sorted(counts.items()) if name not in self._number}
        number = self._number | {name: len(self._names) + i for i, name in enumerate(unknown)}
        y = np.array([number[name] for name in gold.labels], np.int64)
        values, units = measure_all("classification", y, predicted), gold.units
        return KnownScores(
            label=self._label,
            group=self._group,
            rows=len(y),
            unlabelled=gold.unlabelled,
            groups=None if units is None else len(np.unique(units)),
            scores={
                name: ScoreValue(values[name], score_interval(name, y, predicted, units))
                for name in headlines("classification")
            },
            majority=max(counts.values()) / len(y),
            unknown=unknown,
        )


def known_labels(
    rows: RowSource, label: str | None, group: str | None, text: str, where: Sequence[str], names: Sequence[str],
    labels: str | Path | None = None, **reading: Any,
) -> tuple[KnownLabels | None, list[str]]:  # fmt: skip
    """(the known labels of rows, or None where there are none; notes).

    Args:
        rows: Those that will be labelled.
        label: The column; None is ``label``, if there is one that can be scored.
        group: Rows with one value of this column count as one in the intervals.
        text: The column of texts of a table.
        where: The conditions on a cache's rows.
        names: The labels that can be predicted.
        labels: Of a cache, see ``open_labelled``.
        reading: Of a table.

    Raises:
        EmbedcacheError: A column that was named is not there, or has none of these labels.
    """
    column = COLUMN if label is None else label
    if label is None and column not in _columns(rows, reading):
        if group is not None:
            raise EmbedcacheError("--group is for the scores: name the column of known labels with --label")
        return None, []
    try:
        gold = _read(rows, column, group, text, where, labels, reading)
        if any(isinstance(one, tuple) for one in gold.labels):
            raise EmbedcacheError(f"column {column!r} of {rows.name} holds lists: zero-shot gives one label a row")
        if not set(gold.labels) & set(names):
            raise EmbedcacheError(
                f"column {column!r} of {rows.name} has none of these labels ({_some(names)}), only "
                f"{_some(sorted(set(gold.labels)))}: name them as they stand there, or another --label"
            )
    except EmbedcacheError as error:
        if label is not None or group is not None:
            raise
        return None, [f"not scored: {error}"]  # that column was not asked for
    places = np.searchsorted(rows.numbers, gold.places) if isinstance(rows, CacheRows) else gold.places
    return KnownLabels(gold, column, group, places, names), []


def _read(
    rows: RowSource,
    column: str,
    group: str | None,
    text: str,
    where: Sequence[str],
    labels: str | Path | None,
    reading: dict[str, Any],
) -> Gold:
    if isinstance(rows, CacheRows):
        return read_cache(rows.name, column, group, where, labels=labels)
    assert isinstance(rows, TableRows)
    return read_table(rows.table, column, group, text, _no_vectors, None, **reading)


def _no_vectors(run: Any) -> Any:
    raise AssertionError("labels alone are read")


def _columns(rows: RowSource, reading: dict[str, Any]) -> Sequence[str]:
    if isinstance(rows, CacheRows):
        return [*rows.cache.label_names, *rows.cache.column_names]
    assert isinstance(rows, TableRows)
    return column_names(rows.table, **reading)


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:NAMED])) + (" ..." if len(names) > NAMED else "")
