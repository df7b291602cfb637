"""What every engine reads and gives back: views, tasks, options and outcomes; and the checks before them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, whole_number
from embedcache.heads.trained import to_numpy

Progress = Callable[[int, int], None]  # training rows done, and in all
CHUNK_ROWS = 8192  # rows looked at at a time where a whole matrix is read


@dataclass
class View:
    """Some rows of a matrix and their classes: x[rows[i]] has class y[rows[i]].

    ``x`` [N, D] float16 or float32 (a memory map is read in place); ``y`` int32 [N], classes from 0;
    ``rows`` int64 [n]. Values of y outside ``rows`` are never looked at.
    """

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray


@dataclass
class Task:
    """What a head learns. Many heads may share a task (a sweep); a bank may hold many tasks (folds, label columns).

    ``mean`` and ``inv_std`` (float32 [D], both or neither): heads are trained on (x - mean) * inv_std.
    ``class_weight`` (float32 [classes]) weighs the loss as torch.nn.NLLLoss(weight) does.
    """

    train: View
    val: View | None
    classes: int
    mean: np.ndarray | None = None
    inv_std: np.ndarray | None = None
    class_weight: np.ndarray | None = None


@dataclass(frozen=True)
class Options:
    """How a bank is trained: the same for all its heads. ``threads=0``: one per core that the process may use."""

    batch_size: int = 32
    epochs: int = 5
    early_stop: int = 0
    compute: str = "float32"
    threads: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, low in (("batch_size", 1), ("epochs", 1), ("early_stop", 0), ("threads", 0)):
            value = whole_number(name, getattr(self, name), low, 2**31 - 1)
            object.__setattr__(self, name, value)  # frozen: only here


@dataclass
class Outcome:
    """One head as an engine leaves it; ``weights`` act on the standardised x. Losses are NaN where not run."""

    weights: dict[str, np.ndarray]
    train_loss: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    best_epoch: int
    epochs_run: int
    status: str


def empty_outcome(spec: HeadSpec, task: Task, epochs: int) -> Outcome:
    """What there is of a head before its first epoch ends."""
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    train_loss, val_loss, val_accuracy = (np.full(epochs, np.nan) for _ in range(3))
    return Outcome(weights, train_loss, val_loss, val_accuracy, -1, 0, "cancelled")


def weight_shapes(spec: HeadSpec, dim: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's weights, in the order in which every file and module lists them."""
    if not spec.hidden:
        return {"w2": (classes, dim), "b2": (classes,)}
    return {"w1": (spec.hidden, dim), "b1": (spec.hidden,), "w2": (classes, spec.hidden), "b2": (classes,)}


def as_matrix(x: Any, name: str = "X") -> np.ndarray:
    """x as [N, D] float16 or float32 with adjacent columns: itself where it is one already, else a float32 copy."""
    x = to_numpy(x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise EmbedcacheError(f"{name} must be a matrix [rows, columns], not of shape {list(x.shape)}")
    if x.dtype.kind not in "fiub":
        raise EmbedcacheError(f"{name} must hold numbers, not {x.dtype}")
    in_place = x.dtype in (np.float16, np.float32) and x.dtype.isnative and x.flags.aligned
    if in_place and x.strides[1] == x.itemsize and x.strides[0] >= 0 and x.strides[0] % x.itemsize == 0:
        return x
    return np.ascontiguousarray(x, x.dtype.newbyteorder("=") if x.dtype == np.float16 else np.float32)


def check_bank(tasks: Sequence[Task], heads: Sequence[tuple[HeadSpec, int]]) -> list[Task]:
    """The tasks with arrays of the promised types. Raises EmbedcacheError for what no engine could train."""
    if not heads:
        raise EmbedcacheError("no heads to train: give at least one HeadSpec")
    for _, task in heads:
        if not 0 <= task < len(tasks):
            raise EmbedcacheError(f"a head names task {task}, but there are {len(tasks)}")
    checked = [_check_task(task) for task in tasks]
    _check_finite([view for task in checked for view in (task.train, task.val) if view is not None])
    return checked


def _check_task(task: Task) -> Task:
    if task.classes < 2:
        raise EmbedcacheError(f"there is {task.classes} class to learn: a head needs at least two")
    train = _check_view(task.train, task.classes, "train")
    if not len(train.rows):
        raise EmbedcacheError("there are no rows to train on")
    val = None if task.val is None or not len(task.val.rows) else _check_view(task.val, task.classes, "validation")
    dim = train.x.shape[1]
    if val is not None and val.x.shape[1] != dim:
        raise EmbedcacheError(f"the validation X has {val.x.shape[1]} columns, but the training X has {dim}")
    if (task.mean is None) != (task.inv_std is None):
        raise EmbedcacheError("a task needs both mean and inv_std, or neither")
    mean, inv_std = _vector("mean", task.mean, dim), _vector("inv_std", task.inv_std, dim)
    class_weight = _vector("class_weight", task.class_weight, task.classes)
    if class_weight is not None and not (class_weight > 0).all():
        raise EmbedcacheError("every class weight must be above 0")
    return replace(task, train=train, val=val, mean=mean, inv_std=inv_std, class_weight=class_weight)


def _check_view(view: View, classes: int, what: str) -> View:
    x = as_matrix(view.x, f"the {what} X")
    y = np.ascontiguousarray(view.y, np.int32)
    rows = np.ascontiguousarray(view.rows, np.int64)
    if y.ndim != 1 or len(y) != len(x):
        raise EmbedcacheError(f"the {what} X has {len(x)} rows, but y has {len(y)} labels")
    if rows.ndim != 1 or len(rows) >= 2**32:
        raise EmbedcacheError(f"the {what} rows must be a list of fewer than 2^32 row numbers")
    if len(rows) and (rows.min() < 0 or rows.max() >= len(x)):
        raise EmbedcacheError(f"a {what} row number is outside 0..{len(x) - 1}")
    wrong = (y[rows] < 0) | (y[rows] >= classes)
    if wrong.any():
        row = int(rows[wrong.argmax()])
        raise EmbedcacheError(f"row {row} of the {what} data has class {y[row]}, outside 0..{classes - 1}")
    return View(x, y, rows)


def _vector(name: str, values: np.ndarray | None, size: int) -> np.ndarray | None:
    if values is None:
        return None
    vector = np.ascontiguousarray(values, np.float32)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise EmbedcacheError(f"{name} must be {size} finite numbers")
    return vector


def _check_finite(views: Sequence[View]) -> None:
    """Every used row is looked at once, however many tasks share its matrix."""
    for x in {id(view.x): view.x for view in views}.values():
        used = np.zeros(len(x), bool)
        for view in views:
            if view.x is x:
                used[view.rows] = True
        for start in range(0, len(x), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            if not used[chunk].any() or finite(x[chunk]):
                continue
            bad = used[chunk] & ~np.isfinite(x[chunk]).all(axis=1)
            if bad.any():
                raise EmbedcacheError(
                    f"X holds NaN or infinity, first in row {start + int(bad.argmax())}: leave such rows out"
                )


def finite(x: np.ndarray) -> bool:
    """Whether no element is NaN or infinite; for float16 by its exponent bits, ten times as fast as isfinite."""
    if x.dtype == np.float16:
        return not bool(((x.view(np.uint16) & 0x7C00) == 0x7C00).any())
    return bool(np.isfinite(x).all())


def standardize_stats(x: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, inv_std), float32 [D], over the given rows of x [N, D]; summed in float64, chunk by chunk.

    A constant column gets inv_std 1: it becomes 0, whatever noise the rounding left in it. Raises EmbedcacheError where
    x holds NaN or infinity.
    """
    x = as_matrix(x)
    dim = x.shape[1]
    mean, spread, seen = np.zeros(dim), np.zeros(dim), 0
    for start in range(0, len(rows), CHUNK_ROWS):  # Chan's update: no cancellation, one pass
        part = x[rows[start : start + CHUNK_ROWS]]
        if not finite(part):
            _check_finite([View(x, np.empty(0), rows)])
        chunk = part.astype(np.float64)
        n, chunk_mean = len(chunk), chunk.mean(axis=0)
        delta = chunk_mean - mean
        spread += ((chunk - chunk_mean) ** 2).sum(axis=0) + delta**2 * (seen * n / (seen + n))
        mean += delta * (n / (seen + n))
        seen += n
    if not seen:
        raise EmbedcacheError("there are no rows to standardise")
    std = np.sqrt(spread / seen)
    constant = std <= 1e-6 * np.maximum(np.abs(mean), 1e-6)
    return mean.astype(np.float32), (1.0 / np.where(constant, 1.0, std)).astype(np.float32)


def fold_standardization(weights: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Weights for the raw x from weights for (x - mean) * inv_std; computed in float64, returned in float32."""
    if task.mean is None or task.inv_std is None:
        return weights
    w, b = ("w1", "b1") if "w1" in weights else ("w2", "b2")
    scaled = weights[w].astype(np.float64) * task.inv_std
    shifted = weights[b] - scaled @ task.mean.astype(np.float64)
    return {**weights, w: scaled.astype(np.float32), b: shifted.astype(np.float32)}
