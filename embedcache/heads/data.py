"""What a run learns from: the cached matrix, the codes of one label column, the groups, and tasks made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.bank import Task, View, standardize_stats
from embedcache.heads.split import Split
from embedcache.heads.targets import class_weights

MAX_CLASSES = 5000


@dataclass
class Data:
    """x: [N, D] float16 or float32, the cache's memory map; y: int32 [N], -1: no label; groups: int64 [N] or None."""

    x: np.ndarray
    y: np.ndarray
    classes: list[str]
    groups: np.ndarray | None
    label: str
    pooling: str
    layer: int


def load_data(cache: Cache, label: str | None, pooling: str | None, layer: int, group: str | None) -> Data:
    """Choose label column and vectors. Raises EmbedcacheError for names that are not there or labels without sense.

    label None: "label", or the only column. pooling None: "cls", or the only one stored. Classes without a row go.
    """
    label = _label_column(cache, label)
    codes, names = cache.labels(label)
    used = np.unique(codes[codes >= 0])
    if not len(used):
        raise EmbedcacheError(f"no row of {cache.path} has a label in column {label!r}: there is nothing to learn from")
    if len(used) == 1:
        raise EmbedcacheError(
            f"column {label!r} of {cache.path} holds one class, {names[used[0]]!r}: a head needs two or more; "
            "is it the label?"
        )
    labelled = int((codes >= 0).sum())
    if len(used) > MAX_CLASSES or (len(used) > 20 and len(used) > labelled / 2):
        raise EmbedcacheError(
            f"column {label!r} has {len(used):,} different values in {labelled:,} rows: is it the label? "
            f"{_others(cache, label)}"
        )
    renumber = np.full(len(names) + 1, -1, np.int32)  # its last entry is for code -1
    renumber[used] = np.arange(len(used))
    pooling = pooling or ("cls" if "cls" in cache.poolings else cache.poolings[0])
    groups = None if group is None else _group_codes(cache, group, label)
    x = cache.embeddings(pooling, layer)
    return Data(x, renumber[codes], [names[i] for i in used], groups, label, pooling, layer)


def make_task(data: Data, side: Split, standardize: bool, class_weight: str) -> Task:
    """The rows of a split as a task; x is read where it lies."""
    mean, inv_std = standardize_stats(data.x, side.train) if standardize else (None, None)
    weight = class_weights(class_weight, data.y[side.train], data.classes)
    train, val = View(data.x, data.y, side.train), View(data.x, data.y, side.val)
    return Task(train, val if len(side.val) else None, len(data.classes), mean, inv_std, weight)


def _label_column(cache: Cache, label: str | None) -> str:
    known = cache.labels_names
    if not known:
        raise EmbedcacheError(f"{cache.path} has no label column: run extract again with --label COLUMN")
    if label is None:
        if "label" in known:
            return "label"
        if len(known) == 1:
            return known[0]
        raise EmbedcacheError(f"{cache.path} has the label columns {', '.join(known)}: choose one with --label")
    if label not in known and set(label.split(",")) <= set(known):
        raise EmbedcacheError(
            f"--label {label}: one label column at a time; run train-head once for each, with a folder of its own"
        )
    if label not in known:
        raise EmbedcacheError(f"{cache.path} has no label column {label!r}; it has {', '.join(known)}")
    return label


def _others(cache: Cache, label: str) -> str:
    others = [name for name in cache.labels_names if name != label]
    return f"--label names another: {', '.join(others)}" if others else "extract with another --label column"


def _group_codes(cache: Cache, group: str, label: str) -> np.ndarray:
    """int64 [N], one number per value of the column; -1 where it is blank."""
    if group == label:
        raise EmbedcacheError(f"--group {group}: that is the label itself; group by a column such as author or film")
    if group in cache.labels_names:
        return cache.labels(group)[0].astype(np.int64)
    if group not in cache.column_names:
        known: Sequence[str] = [*cache.column_names, *(name for name in cache.labels_names if name != label)]
        there = f"it has {', '.join(known)}" if known else f"run extract again with --keep {group}"
        raise EmbedcacheError(f"--group {group}: {cache.path} keeps no such column; {there}")
    number: dict[str, int] = {"": -1}
    return np.array([number.setdefault(value.strip(), len(number)) for value in cache.column(group)], np.int64)
