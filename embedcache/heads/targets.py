"""What y means: labels, lists of labels or numbers, to the arrays that a Task holds; and class weights."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from embedcache.common.labels import Codes, Labels, LabelWarning, unlabelled
from embedcache.common.texts import is_missing
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import to_numpy
from embedcache.heads.kinds import KINDS, kind_of, usual_kind
from embedcache.heads.spec import LARGEST
from embedcache.heads.task import View


@dataclass
class Targets:
    """``y`` as View has it; ``classes``: labels in the order of the outputs, None for a 0/1 matrix or numbers.

    Regression: ``y`` is (values - mean) / std, with float64 [C] ``mean`` and ``std`` of the training rows; ``flat``:
    one number a row was given, so predictions are flat too.
    """

    kind: str
    y: np.ndarray
    classes: np.ndarray | None
    outputs: int
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    def more(self, y: Any, n: int, what: str = "validation") -> np.ndarray:
        """The y of other rows, in the same codes and units. Raises EmbedcacheError for labels that are not known."""
        kind = kind_of(self.kind)
        if not kind.has_classes:
            return self._scaled(_values(y, n, what))
        if not kind.exclusive:
            matrix = _indicator(y, n, self.classes, what)[0]
            if matrix.shape[1] != self.outputs:
                raise EmbedcacheError(f"the {what} y has {matrix.shape[1]} labels, but y has {self.outputs}")
            return matrix
        assert self.classes is not None
        return _codes_of(y, self.classes, n, what)

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        if self.mean is None or values.shape[1] != len(self.mean):
            raise EmbedcacheError(f"the validation y has {values.shape[1]} columns, but y has {self.outputs}")
        return ((values - self.mean) / self.std).astype(np.float32)


def read_targets(y: Any, n: int, task: str = "auto") -> Targets:
    """y of n rows. ``task``: a kind, or "auto": a list of lists or a 0/1 matrix is multilabel, else classification.

    Raises EmbedcacheError where y has another length, missing values, one class only or a kind that doesn't fit.
    """
    if task not in ("auto", *KINDS):
        raise EmbedcacheError(f"task must be auto, {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {task!r}")
    if not n:
        raise EmbedcacheError("there are no rows to train on")
    about = usual_kind(_is_multilabel(y)) if task == "auto" else kind_of(task)
    kind = about.name
    if not about.has_classes:
        values = _values(y, n, "training")
        mean, std = values.mean(axis=0), values.std(axis=0)
        if not (std > 0).all():
            where = f"column {int(std.argmin())} of y" if values.shape[1] > 1 else "y"
            raise EmbedcacheError(f"{where} holds one value only: there is nothing to learn")
        targets = Targets(kind, values, None, values.shape[1], mean, std)
        targets.y = targets._scaled(values)
        return targets
    if not about.exclusive:
        matrix, labels = _indicator(y, n, None, "training")
        return Targets(kind, matrix, labels, matrix.shape[1])
    labels = _labels(y, n)
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise EmbedcacheError(f"y holds one class only ({classes[0].item()!r}): a head needs at least two")
    _check_minus_one(classes, codes)
    return Targets(kind, codes.astype(np.int32), classes, len(classes))


def known_labels(y: Any, n: int) -> tuple[Any, np.ndarray]:
    """(y of the rows that have a label, their numbers int64 [k]) of what a cache says of n rows.

    In ``Codes`` (also in a part of a cache's codes) -1 means that a row has no label; of ``Labels`` the names are
    learned. Anything else is returned as it is, with all rows. Raises EmbedcacheError where no row has a label.
    """
    labels = y if isinstance(y, Labels) else None
    codes = y.codes if isinstance(y, Labels) else y
    if not isinstance(codes, Codes) or codes.shape[:1] != (n,):
        return codes, np.arange(n)
    rows = np.flatnonzero(~unlabelled(codes))
    if n and not len(rows):
        raise EmbedcacheError(f"none of the {n:,} rows has a label: label some, or take another column")
    known: Any = np.asarray(codes)[rows]
    if labels is not None:
        names = np.array(labels.classes, dtype=str)
        known = names[known] if known.ndim == 1 else [names[row > 0].tolist() for row in known]
    return known, rows


def tell_left_out(train: View, val: View | None) -> None:
    """Warn about rows without a label, which ``known_labels`` left out."""
    said = [
        f"{len(side.x) - len(side.rows):,} of {len(side.x):,} {what}"
        for side, what in ((train, "rows"), (val, "validation rows"))
        if side is not None and len(side.rows) < len(side.x)
    ]
    if said:
        warnings.warn(f"left out, because they have no label: {' and '.join(said)}", LabelWarning, stacklevel=3)


def _check_minus_one(classes: np.ndarray, codes: np.ndarray) -> None:
    """Warn about -1 beside codes from 0: among plain numbers it is a label like any other, in a cache it is none."""
    if classes.dtype.kind != "i" or classes[0] != -1 or not np.array_equal(classes, np.arange(len(classes)) - 1):
        return
    warnings.warn(
        f"y holds -1 in {np.count_nonzero(codes == 0):,} of {len(codes):,} rows, and it is learned as a class beside 0 "
        f"to {classes[-1]}; if it means that there is no label, give cache.labels(COLUMN) or a part of its codes as "
        "they are, or leave these rows out",
        LabelWarning,
        stacklevel=4,
    )


def class_weights(
    wanted: Any, y: np.ndarray, classes: Sequence[Any] | np.ndarray, kind: str = "classification"
) -> np.ndarray | None:
    """float32 [C] for a Task from None, "none", "balanced", a dict by label, or a sequence; ``y`` as View has it."""
    if wanted is None or (isinstance(wanted, str) and wanted == "none"):
        return None
    if isinstance(wanted, str):
        if wanted != "balanced":
            raise EmbedcacheError(f"class_weight must be none, balanced or weights, not {wanted!r}")
        return kind_of(kind).balanced_weight(y, len(classes))
    if isinstance(wanted, dict):
        unknown = [label for label in wanted if label not in list(classes)]
        if unknown:
            raise EmbedcacheError(f"class_weight names {unknown[0]!r}, which is not a class of y")
        wanted = [wanted.get(label, 1.0) for label in classes]
    weights = np.asarray(wanted, np.float32)
    if weights.shape != (len(classes),):
        raise EmbedcacheError(f"class_weight has {weights.size} weights for {len(classes)} classes")
    return weights


def _is_multilabel(y: Any) -> bool:
    if isinstance(y, (list, tuple)):
        return bool(y) and all(isinstance(labels, (list, tuple, set, frozenset, np.ndarray)) for labels in y)
    y = to_numpy(y)
    if y.dtype == object and y.ndim == 1:
        return _is_multilabel(y.tolist())
    return y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind in "biuf" and bool(((y == 0) | (y == 1)).all())


def _indicator(y: Any, n: int, known: np.ndarray | None, what: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(float32 [n, C] of 0 and 1, labels or None) from a 0/1 matrix or a list of lists of labels."""
    sets = list(y) if isinstance(y, (list, tuple)) else None
    if sets is None or (sets and isinstance(sets[0], (list, tuple)) and known is None and _is_matrix(sets)):
        matrix = to_numpy(y)
        if matrix.dtype != object:
            return _matrix(matrix, n, what), None
        sets = list(matrix)
    if len(sets) != n:
        raise EmbedcacheError(f"the {what} X has {n} rows, but y has {len(sets)}")
    return _from_sets(sets, known, what)


def _is_matrix(rows: Sequence[Any]) -> bool:
    """Whether a list of lists is a table of 0 and 1, not lists of labels: all of one length, above 1."""
    return len({len(row) for row in rows}) == 1 and len(rows[0]) > 1 and all(v in (0, 1) for row in rows for v in row)


def _matrix(matrix: np.ndarray, n: int, what: str) -> np.ndarray:
    if matrix.ndim != 2 or len(matrix) != n or not matrix.shape[1]:
        raise EmbedcacheError(f"the {what} X has {n} rows, but y has shape {list(matrix.shape)}")
    wrong = ~((matrix == 0) | (matrix == 1)).all(axis=1)
    if wrong.any():
        raise EmbedcacheError(f"row {int(wrong.argmax())} of the {what} y holds something else than 0 and 1")
    return matrix.astype(np.float32)


def _from_sets(
    sets: Sequence[Iterable[Any]], known: np.ndarray | None, what: str
) -> tuple[np.ndarray, np.ndarray | None]:
    for row, labels in enumerate(sets):
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise EmbedcacheError(f"row {row} of the {what} y is {labels!r}, not a list of labels")
    flat = [label for labels in sets for label in labels]
    if known is None:
        known = np.unique(_labels(flat, len(flat))) if flat else np.array([], str)
        if not len(known):
            raise EmbedcacheError("no row of y has a label: there is nothing to learn")
    place = {label: c for c, label in enumerate(known.tolist())}
    matrix = np.zeros((len(sets), len(place)), np.float32)
    for row, labels in enumerate(sets):
        for label in labels:
            if label not in place:
                raise EmbedcacheError(f"row {row} of the {what} y holds {label!r}, which is not a label of y")
            matrix[row, place[label]] = 1
    return matrix, known


def _values(y: Any, n: int, what: str) -> np.ndarray:
    """float64 [n, C]."""
    try:
        values = np.asarray(to_numpy(y), np.float64)
    except (TypeError, ValueError):
        raise EmbedcacheError("y must hold numbers for a regression") from None
    if values.ndim not in (1, 2) or len(values) != n or not values.size:
        raise EmbedcacheError(f"the {what} X has {n} rows, but y has shape {list(values.shape)}")
    values = values.reshape(n, -1)
    wrong = ~(np.abs(values) <= LARGEST).all(axis=1)
    if wrong.any():
        raise EmbedcacheError(
            f"row {int(wrong.argmax())} of the {what} y is NaN, infinite or beyond {LARGEST:g}: leave such rows out"
        )
    return values


def _codes_of(y: Any, classes: np.ndarray, n: int, what: str) -> np.ndarray:
    labels = _labels(y, n)
    if len(labels) and labels.dtype.kind != classes.dtype.kind and "U" in (labels.dtype.kind, classes.dtype.kind):
        raise EmbedcacheError(f"the {what} labels are of another type than y")
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = classes[codes] != labels
    if unknown.any():
        label = labels[unknown.argmax()].item()
        raise EmbedcacheError(
            f"the {what} labels hold {label!r}, which is not a class of y: train on a row of it, or leave its rows out"
        )
    return codes.astype(np.int32)


def _labels(y: Any, n: int) -> np.ndarray:
    # One by one: NumPy would make "nan" of a NaN beside strings.
    labels = np.fromiter(y, object, len(y)) if isinstance(y, (list, tuple)) else to_numpy(y)
    if labels.dtype == object:
        _check_alike(labels.ravel().tolist())
        with contextlib.suppress(ValueError):  # lists of several lengths stay objects
            labels = np.array(labels.tolist())
    if labels.shape != (n,):
        raise EmbedcacheError(f"X has {n} rows, but y has shape {list(labels.shape)}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        _refuse_missing(int(np.isnan(labels).argmax()), int(np.isnan(labels).sum()), n)
    if labels.dtype.kind not in "iubU":
        raise EmbedcacheError(
            f"y must hold integers or strings, not {labels.dtype}: y.astype(int), or task='regression' for numbers"
        )
    return labels


def _check_alike(labels: Sequence[Any]) -> None:
    """Raises EmbedcacheError for missing labels, or strings beside others."""
    missing = [i for i, label in enumerate(labels) if is_missing(label)]
    if missing:
        _refuse_missing(missing[0], len(missing), len(labels))
    kinds = [isinstance(label, str) for label in labels]
    if len(set(kinds)) > 1:
        i = kinds.index(not kinds[0])
        raise EmbedcacheError(
            f"y must be all integers or all strings, but {labels[i]!r} at place {i} is not what {labels[0]!r} is"
        )


def _refuse_missing(first: int, count: int, n: int) -> NoReturn:
    raise EmbedcacheError(
        f"y must be without missing values, but {count:,} of {n:,} are missing, the first at place {first}: leave such "
        "rows out of X and y"
    )
