"""Gold labels and a head's outputs in the same codes, also where the gold has labels that the head never learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.runs.folder import Run

NEVER = -1e4  # the logit of a label that a head has not learned


@dataclass(frozen=True)
class Aligned:
    """y and outputs as ``metrics.evaluate`` has them; names: of the classes, the run's own first.

    unknown: label that the run has not learned -> its rows. Such a label is never predicted, so its rows are wrong.
    """

    kind: str
    y: np.ndarray
    outputs: np.ndarray
    names: list[str]
    unknown: dict[str, int]

    @property
    def predicted(self) -> np.ndarray:
        """Codes int64 [n], 0/1 int64 [n, C], or float64 [n, 1]: what is predicted for each row, in the form of y."""
        kind = kind_of(self.kind)
        return kind.decide(self.outputs).astype(np.int64 if kind.has_classes else np.float64)


def align(gold: Sequence[Any], outputs: np.ndarray, run: Run, source: str, label: str) -> Aligned:
    """Gold labels of n rows beside a run's outputs [n, C].

    Raises EmbedcacheError where the gold is of another kind than what the run predicts.
    """
    kind, classes = run.best.kind, run.classes
    lists = any(isinstance(one, tuple) for one in gold)
    if lists != kind_of(kind).has_lists:
        holds, says = ("lists", "one label a row") if lists else ("one label a row", "lists of labels")
        raise EmbedcacheError(f"column {label!r} of {source} holds {holds}, but {run.path} predicts {says}")
    if not kind_of(kind).has_classes:
        return Aligned(kind, _values(gold, source, label), outputs, classes, {})
    found = Counter(name for one in gold for name in (one if lists else (one,)))
    known = set(classes)
    unknown = {name: rows for name, rows in sorted(found.items()) if name not in known}
    if len(unknown) == len(found) and found:
        raise EmbedcacheError(
            f"no label in column {label!r} of {source} is one that {run.path} predicts: it has {_some(found)}, the run "
            f"predicts {_some(classes)}"
        )
    names = [*classes, *unknown]
    place = {name: i for i, name in enumerate(names)}
    if unknown:
        never = np.full((len(outputs), len(unknown)), NEVER, outputs.dtype)
        outputs = np.concatenate([outputs, never], axis=1)
    if not lists:
        return Aligned(kind, np.array([place[one] for one in gold], np.int64), outputs, names, unknown)
    y = np.zeros((len(gold), len(names)), np.float32)
    for row, labels in zip(y, gold, strict=True):
        row[[place[name] for name in labels]] = 1
    return Aligned(kind, y, outputs, names, unknown)


def _values(gold: Sequence[str], source: str, label: str) -> np.ndarray:
    """float64 [n, 1]."""
    values = np.empty((len(gold), 1))
    for i, cell in enumerate(gold):
        try:
            values[i] = float(cell)
        except ValueError:
            values[i] = np.nan
        if not np.isfinite(values[i, 0]):
            raise EmbedcacheError(f"column {label!r} of {source} holds {cell[:40]!r}, but the run predicts numbers")
    return values


def _some(names: Any) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:5]) + (" ..." if len(listed) > 5 else "")
