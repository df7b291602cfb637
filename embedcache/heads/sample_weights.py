"""Weights of rows: what people give as what a task holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import to_numpy
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import Task, View


def read_sample_weight(values: Any, n: int, what: str = "training") -> np.ndarray:
    """float64 [n]. Raises EmbedcacheError unless there are n finite numbers, 0 or more, some of them above 0."""
    try:
        weight = np.asarray(to_numpy(values), np.float64)
    except (TypeError, ValueError):
        raise EmbedcacheError(f"the {what} sample weights must be numbers") from None
    if weight.shape != (n,):
        raise EmbedcacheError(f"the {what} X has {n} rows, but the sample weights have shape {list(weight.shape)}")
    wrong = ~((weight >= 0) & np.isfinite(weight))
    if wrong.any():
        row = int(wrong.argmax())
        raise EmbedcacheError(f"row {row} of the {what} data has the weight {weight[row]:g}: it must be 0 or more")
    if n and not weight.any():
        raise EmbedcacheError(f"all {n:,} {what} rows have a weight of 0: give some of them a weight above 0")
    return weight


def weigh(task: Task, train: np.ndarray | None, val: np.ndarray | None) -> Task:
    """The task with its rows weighed: float64 [N] of each view's matrix, checked, or None for no weights.

    Training rows of weight 0 are left out, as if they were not there, and the others' mean becomes 1: only what weights
    are to each other counts. The validation loss is the weighted mean.

    Raises:
        EmbedcacheError: all rows of a side have a weight of 0.
    """
    if train is not None:
        rows = task.train.rows[train[task.train.rows] > 0]
        if len(task.train.rows) and not len(rows):
            raise _no_weight(task.train, "training")
        task = replace(task, train=replace(task.train, rows=rows, sample_weight=_scaled(train, rows)))
    if val is not None and task.val is not None:
        rows = task.val.rows
        if len(rows) and not val[rows].any():
            raise _no_weight(task.val, "validation")
        task = replace(task, val=replace(task.val, sample_weight=_scaled(val, rows, _counts(task, task.val))))
    return task


def _no_weight(view: View, what: str) -> EmbedcacheError:
    return EmbedcacheError(f"all {len(view.rows):,} {what} rows have a weight of 0: give some of them a weight above 0")


def _counts(task: Task, view: View) -> np.ndarray | None:
    """What each row counts in the validation loss by its class; None where all count the same."""
    if task.class_weight is None or not kind_of(task.kind).exclusive:
        return None
    return np.asarray(task.class_weight[view.y[view.rows]], np.float64)


def _scaled(weight: np.ndarray, rows: np.ndarray, counts: np.ndarray | None = None) -> np.ndarray:
    """float32 [N], whose mean over the rows is 1, each counting so much."""
    return (weight / np.average(weight[rows], weights=counts)).astype(np.float32) if len(rows) else weight
