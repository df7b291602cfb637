"""What a run learns from: the cached matrix, the targets of one column, the groups, and tasks made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.labels import label_counts, unlabelled
from embedcache.cache.side_by_side import vectors_of
from embedcache.cache.strings import first_rows, hash_texts
from embedcache.common.int8_rows import Matrix, part_of
from embedcache.common.outputs import Layer
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import finite
from embedcache.heads.kinds import kind_of, usual_kind
from embedcache.heads.kinds.option import is_number, read_tasks, task_of
from embedcache.heads.sample_weights import weigh
from embedcache.heads.targets import class_weights
from embedcache.heads.task import CHUNK_ROWS, Task, View, standardize_stats
from embedcache.runs.numbers import numbers_of, row_weights
from embedcache.runs.split import Split

MAX_CLASSES = 5000
OTHERS = "; where only some columns are numbers, --task COLUMN=regression names them"


@dataclass
class Data:
    """What one column says about the rows of a cache.

    Attributes:
        x: [N, D] float16, float32 or int8 with scales, the cache's memory map.
        y: classification: int32 [N], class codes, -1 without a label. multilabel: float32 [N, C], 1 where the row has
            the label, else 0, all -1 without labels. regression: float32 [N, 1], NaN without a value.
        classes: the name of each output: classes, labels, or for a regression the column itself.
        groups: int64 [N], -1 without a group; or None.
        keys: uint8 [N, 16], equal for rows that stay on one side of a split: the hash of the group, of the text where
            there is no group; None without a group column.
        finite: bool [N], rows whose vectors check_vectors found finite; None before it.
        weight: float64 [N], of the rows' losses; None where all count the same.
    """

    x: Matrix
    y: np.ndarray
    classes: list[str]
    groups: np.ndarray | None
    label: str
    pooling: str
    layer: Layer
    kind: str = "classification"
    keys: np.ndarray | None = None
    finite: np.ndarray | None = None
    weight: np.ndarray | None = None

    def known_finite(self, rows: np.ndarray) -> bool:
        """Whether check_vectors has looked at all of these rows."""
        return self.finite is not None and bool(self.finite[rows].all())

    @property
    def labelled(self) -> np.ndarray:
        """bool [N]: the rows that can be learned from."""
        return kind_of(self.kind).labelled(self.y)

    @cached_property
    def codes(self) -> np.ndarray:
        """int [N]: the same number for the same target, -1 without one; of a classification the class codes."""
        kind = kind_of(self.kind)
        if kind.exclusive:
            return self.y
        targets = np.packbits(self.y > 0, axis=1) if kind.has_classes else self.y
        codes = first_rows(hash_texts([target.tobytes() for target in targets]))
        codes[~self.labelled] = -1
        return codes


def load_data(
    cache: Cache,
    label: str | None,
    pooling: str | None,
    layer: Layer,
    group: str | None,
    task: str = "auto",
    weight: str | None = None,
) -> Data:
    """Choose column and vectors. Raises EmbedcacheError for names that are not there or targets that cannot be learned.

    label None: "label", or the only column. pooling None: see Cache.preferred. task "auto": multilabel where
    the column holds lists, else classification. A regression also takes a kept column. Classes without a row go.
    weight: the column of the rows' weights.
    """
    task = task_of(read_tasks(task), label or "")
    label = target_column(cache, label, is_number(task))
    y, classes, kind = _targets(cache, label, task)
    pooling = pooling or cache.preferred(layer)
    groups = keys = None
    if group is not None:
        groups, keys = group_keys(cache, group, label)
    data = Data(vectors_of(cache, pooling, layer), y, classes, groups, label, pooling, layer, kind, keys)
    if weight is not None:
        data.weight = row_weights(cache, weight, label, data.labelled)
    return data


def check_vectors(cache: Cache, data: Data, rows: np.ndarray) -> None:
    """Check that the vectors of these rows are finite: extract writes no others, so the file was changed since.

    Whole blocks are read where they lie, each once, however many columns share the matrix and ``data.finite``.

    Raises:
        EmbedcacheError: a vector is not; its row is named.
    """
    if data.finite is None:
        data.finite = np.zeros(len(data.x), bool)
    wanted = np.zeros(len(data.x), bool)
    wanted[rows] = True
    wanted &= ~data.finite
    for start in range(0, len(data.x), CHUNK_ROWS):
        block = slice(start, start + CHUNK_ROWS)
        if not wanted[block].any():
            continue
        good = True if finite(part_of(data.x, block)) else np.isfinite(data.x[block]).all(axis=1)
        data.finite[block] = good
        if (bad := wanted[block] & ~data.finite[block]).any():
            raise EmbedcacheError(
                f"row {start + int(bad.argmax())} of {cache.path}, counted from 0, has a vector ({data.pooling}) with "
                "NaN or infinity in it, as extract never writes: extract into a new file"
            )


def make_task(data: Data, side: Split, standardize: bool, class_weight: str) -> Task:
    """The rows of a split as a task; x is read where it lies.

    The targets of a regression become (value - mean) / std, by mean and spread of the training rows. Training rows of
    weight 0 are left out. Raises EmbedcacheError where the targets are all equal, or no row has a weight.
    """
    if data.weight is not None:
        weighed = replace(side, train=side.train[data.weight[side.train] > 0])
        if not len(weighed.train):
            raise EmbedcacheError(
                f"all {len(side.train):,} training rows have a weight of 0: give some of them another"
            )
        side = weighed
    mean, inv_std = standardize_stats(data.x, side.train) if standardize else (None, None)
    weight = class_weights(class_weight, data.y[side.train], data.classes, data.kind)
    y, target_mean, target_std = data.y, None, None
    if not kind_of(data.kind).has_classes:
        values = y[side.train].astype(np.float64)
        target_mean, target_std = values.mean(axis=0), values.std(axis=0)
        if not target_std > 0:
            raise EmbedcacheError(
                f"all {len(values):,} training rows have the same {data.label!r}, {values[0, 0]:g}: there is "
                "nothing to learn; add labelled rows"
            )
        y = ((y - target_mean) / target_std).astype(np.float32)
    train, val = (View(data.x, y, rows, data.known_finite(rows)) for rows in (side.train, side.val))
    task = Task(train, val if len(side.val) else None, len(data.classes), mean, inv_std, weight, data.kind)
    task.target_mean, task.target_std = target_mean, target_std
    return weigh(task, data.weight, data.weight)


def target_column(cache: Cache, label: str | None, numbers: bool = False) -> str:
    """The label column of that name; None: "label", or the only one. Raises EmbedcacheError for none to learn.

    numbers: are what is learned, which may also stand in a kept column.
    """
    labels, kept = cache.label_names, cache.column_names
    if label is None:
        if "label" in labels:
            return "label"
        if len(labels) == 1:
            return labels[0]
        if not labels and not (numbers and kept):
            how = "--keep COLUMN" if numbers else "--label COLUMN"
            raise EmbedcacheError(f"{cache.path} has no label column: run extract again with {how}")
        known = f"the label columns {', '.join(labels)}" if labels else f"the kept columns {', '.join(kept)}"
        both = f", or train for all of them: --label {','.join(labels)}" if labels else ""
        raise EmbedcacheError(f"{cache.path} has {known}: choose one with --label{both}")
    if label in labels or (numbers and label in kept):
        return label
    if label in kept:
        raise EmbedcacheError(
            f"{label!r} is a kept column of {cache.path}, not a label column: --task {label}=regression learns its "
            f"numbers, extract with --label {label} makes it classes"
        )
    known = ", ".join([*labels, *kept] if numbers else labels)
    raise EmbedcacheError(f"{cache.path} has no {'' if numbers else 'label '}column {label!r}; it has {known}")


def _targets(cache: Cache, label: str, task: str) -> tuple[np.ndarray, list[str], str]:
    """(y, classes, kind), as Data has them."""
    lists = label in cache.label_names and cache.holds_lists(label)
    kind = usual_kind(lists) if task == "auto" else kind_of(task)
    if not kind.has_classes:
        if lists:
            raise EmbedcacheError(
                f"--task {task}: column {label!r} holds lists, and one number a row is needed{OTHERS}"
            )
        return _values(cache, label), [label], kind.name
    if lists and not kind.has_lists:
        raise EmbedcacheError(
            f"--task {task}: column {label!r} holds lists: leave --task out and each label is learned by "
            "itself, or extract a column with one label a row"
        )
    if kind.has_lists and not lists:
        raise EmbedcacheError(
            f"--task {task}: column {label!r} holds one label a row: leave --task out, or extract a column "
            'of lists (in a CSV as JSON: ["a", "b"])'
        )
    return (*(_label_matrix if lists else _class_codes)(cache, label), kind.name)


def _class_codes(cache: Cache, label: str) -> tuple[np.ndarray, list[str]]:
    codes, names = cache.labels(label)
    used = np.unique(codes[codes >= 0])
    if not len(used):
        raise _no_labels(cache, label)
    if len(used) == 1:
        raise EmbedcacheError(
            f"column {label!r} of {cache.path} holds one class, {names[used[0]]!r}: a head needs two or more; "
            "is it the label?"
        )
    labelled = int((codes >= 0).sum())
    if len(used) > MAX_CLASSES or (len(used) > 20 and len(used) > labelled / 2):
        raise EmbedcacheError(
            f"column {label!r} has {len(used):,} different values in {labelled:,} rows: is it the label? "
            f"{_others(cache, label)}; --task {label}=regression predicts numbers"
        )
    renumber = np.full(len(names) + 1, -1, np.int32)  # its last entry is for code -1
    renumber[used] = np.arange(len(used))
    return renumber[codes], [names[i] for i in used]


def _label_matrix(cache: Cache, label: str) -> tuple[np.ndarray, list[str]]:
    codes, names = cache.labels(label)
    labelled = int((~unlabelled(codes)).sum())
    counts = label_counts(codes, len(names))
    used = np.flatnonzero(counts)
    if not len(used):
        raise _no_labels(cache, label)
    if (counts[used] == labelled).all():
        raise EmbedcacheError(
            f"column {label!r} of {cache.path} holds the same list in all {labelled:,} labelled rows: there is "
            "nothing to learn; is it the label?"
        )
    if len(used) > MAX_CLASSES:
        raise EmbedcacheError(
            f"the lists of column {label!r} hold {len(used):,} different labels, and a head learns {MAX_CLASSES:,} at "
            "most: leave the rarest out"
        )
    return codes[:, used].astype(np.float32), [names[i] for i in used]


def _values(cache: Cache, label: str) -> np.ndarray:
    """float32 [N, 1], NaN where a cell is blank."""
    values, cells = numbers_of(cache, label)
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        cell = cells[row]
        raise EmbedcacheError(
            f"--task regression: row {row:,} of {cache.path}, counted from 0, has {cell[:40]!r} in column {label!r}, "
            f"which is not a finite number: correct it, or leave it blank{OTHERS}"
        )
    given = values[~np.isnan(values)].astype(np.float32)
    if not len(given):
        raise _no_labels(cache, label)
    if (given == given[0]).all():
        raise EmbedcacheError(
            f"column {label!r} of {cache.path} holds {given[0]:g} in all {len(given):,} rows that have a value: "
            "there is nothing to predict"
        )
    return values.astype(np.float32)[:, None]


def _no_labels(cache: Cache, label: str) -> EmbedcacheError:
    return EmbedcacheError(f"no row of {cache.path} has a label in column {label!r}: there is nothing to learn from")


def _others(cache: Cache, label: str) -> str:
    others = [name for name in cache.label_names if name != label]
    return f"--label names another: {', '.join(others)}" if others else "extract with another --label column"


def group_keys(cache: Cache, group: str, label: str) -> tuple[np.ndarray, np.ndarray]:
    """``Data.groups`` and ``Data.keys`` by a column.

    Raises EmbedcacheError: there is no such column, it holds lists, or it is the label.
    """
    groups, names = _group_codes(cache, group, label)
    values = hash_texts([name.encode("utf-8", "surrogatepass") for name in [*names, ""]])  # the last is code -1's
    return groups, np.where(groups[:, None] >= 0, values[groups], cache.hashes)


def _group_codes(cache: Cache, group: str, label: str) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], one number per value of the column, -1 where it is blank; the values)."""
    if group == label:
        raise EmbedcacheError(f"--group {group}: that is the label itself; group by a column such as author or film")
    return value_codes(cache, group, f"--group {group}", label)


def value_codes(cache: Cache, column: str, option: str, label: str) -> tuple[np.ndarray, list[str]]:
    """(int64 [N], one number per value of a label or kept column, -1 where it is blank; the values).

    option: what named the column; label: the column that is learned, which the column is not.

    Raises:
        EmbedcacheError: there is no such column, or it holds lists.
    """
    if column in cache.label_names:
        codes, names = cache.labels(column)
        if codes.ndim == 2:
            raise EmbedcacheError(f"{option}: that column holds lists, {column!r}; name one with a single value a row")
        return codes.astype(np.int64), list(names)
    if column not in cache.column_names:
        known: Sequence[str] = [*cache.column_names, *(name for name in cache.label_names if name != label)]
        there = f"it has {', '.join(known)}" if known else f"run extract again with --keep {column}"
        raise EmbedcacheError(f"{option}: {cache.path} keeps no column {column!r}; {there}")
    number: dict[str, int] = {"": -1}
    codes = np.array([number.setdefault(v.strip(), len(number) - 1) for v in cache.column(column)], np.int64)
    return codes, list(number)[1:]
