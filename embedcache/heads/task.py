"""What every engine reads and gives back: views, tasks, options and outcomes; and the checks before them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from embedcache.common.int8_rows import Matrix, part_of, stored_type
from embedcache.errors import EmbedcacheError
from embedcache.heads import random_streams
from embedcache.heads.arrays import as_matrix, finite
from embedcache.heads.kinds import kind_of
from embedcache.heads.memory import WeightRoom, fitting_threads
from embedcache.heads.settings import whole_number
from embedcache.heads.spec import SETTINGS, HeadSpec, weight_names

CHOICES = ("loss", "accuracy", "macro_f1")  # what may decide which epoch of a head is kept
CHUNK_ROWS = 8192  # rows looked at at a time where a whole matrix is read


@dataclass
class View:
    """Some rows of a matrix and what is to be learned of them: x[rows[i]] and y[rows[i]].

    ``x`` [N, D] float16, float32 or int8 with scales (memory maps are read in place); ``rows`` int64 [n]. ``y``: int32
    [N], classes from 0 (classification); float32 [N, C] of 0 and 1 (multilabel); float32 [N, C] (regression). Values of
    y outside ``rows`` are never looked at. ``finite``: x[rows] was found to hold neither NaN nor infinity; no engine
    looks again. ``sample_weight`` float32 [N], finite and 0 or more, multiplies each row's loss; their mean over
    ``rows`` should be 1 (sample_weights.weigh): steps are then as long as without.
    """

    x: Matrix
    y: np.ndarray
    rows: np.ndarray
    finite: bool = False
    sample_weight: np.ndarray | None = None


@dataclass(frozen=True)
class WarmStart:
    """Where heads begin, in place of random weights: trained ones, which act on the standardized x.

    ``weights``: float32 arrays as a head has them, w1 and b1 only with a hidden layer. ``known``: bool [classes], the
    outputs whose rows of w2 and b2 are among them; the others begin as usual.
    """

    weights: dict[str, np.ndarray]
    known: np.ndarray


@dataclass
class Task:
    """What a head learns. Many heads may share a task (a sweep); a bank may hold many tasks (folds, label columns).

    ``kind``: "classification" (softmax; negative log-likelihood), "multilabel" (sigmoid; binary cross-entropy) or
    "regression" (mean squared error). ``classes``: outputs of a head, which are classes, labels or values.
    ``mean`` and ``inv_std`` (float32 [D], both or neither): heads are trained on (x - mean) * inv_std.
    ``class_weight`` (float32 [classes]) weighs the validation loss, and the training loss of heads that bring no
    weights of their own: as torch.nn.CrossEntropyLoss(weight) and torch.nn.BCEWithLogitsLoss(pos_weight) do.
    ``target_mean`` and ``target_std`` (float64 [classes], both or neither; regression): y is (values - mean) / std, and
    what is trained predicts values. ``start``: where all heads of the task begin; they have its hidden units.
    """

    train: View
    val: View | None
    classes: int
    mean: np.ndarray | None = None
    inv_std: np.ndarray | None = None
    class_weight: np.ndarray | None = None
    kind: str = "classification"
    target_mean: np.ndarray | None = None
    target_std: np.ndarray | None = None
    start: WarmStart | None = None


@dataclass(frozen=True)
class Options:
    """How a bank is trained: the same for all its heads. ``threads=0``: one per core that the process may use.

    ``choose``: the epoch that a head keeps, and that early stopping waits for, has the lowest validation "loss", or the
    highest "accuracy" or "macro_f1"; of equal scores the lowest loss decides. A regression goes by its loss, whose
    order is that of R2.
    """

    batch_size: int = 32
    epochs: int = 5
    early_stop: int = 0
    compute: str = "float32"
    threads: int = 0
    device: str = "cpu"
    choose: str = "loss"
    room: WeightRoom | None = None  # for the heads' weights; None: in memory

    def __post_init__(self) -> None:
        for name, low in (("batch_size", 1), ("epochs", 1), ("early_stop", 0), ("threads", 0)):
            value = whole_number(name, getattr(self, name), low, 2**31 - 1)
            object.__setattr__(self, name, value)  # frozen: only here
        if self.choose not in CHOICES:
            raise EmbedcacheError(f"choose must be {', '.join(CHOICES[:-1])} or {CHOICES[-1]}, not {self.choose!r}")


@dataclass
class Outcome:
    """One head as an engine leaves it. Scores are NaN where not run.

    ``weights``, all finite, act on the standardized x.

    ``best_epoch`` counts from 0, and is -1 for none (a TrainedHead's counts from 1).
    Accuracy and macro F1 are NaN for regression; several labels a row are right together or not at all.
    """

    weights: dict[str, np.ndarray]
    train_loss: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    val_macro_f1: np.ndarray
    best_epoch: int
    epochs_run: int
    status: str


def with_room(
    options: Options, tasks: Sequence[Task], heads: Sequence[tuple[HeadSpec, int]], folder: Path | None
) -> Options:
    """The options, with room for the weights of all heads (in a file of ``folder`` if it must be) and for the work.

    Raises:
        EmbedcacheError: not even one head fits the memory, or all of them the disk.
    """
    shapes = (weight_shapes(spec, tasks[task].train.x.shape[1], tasks[task].classes) for spec, task in heads)
    sizes = [sum(math.prod(shape) for shape in one.values()) for one in shapes]
    if options.device == "cpu":
        options = replace(options, threads=fitting_threads(options.threads, max(sizes, default=0)))
    return replace(options, room=WeightRoom(4 * sum(sizes), len(heads), folder))


def empty_outcome(spec: HeadSpec, task: Task, options: Options) -> Outcome:
    """What there is of a head before its first epoch ends."""
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    room = options.room
    weights = room.zeros(shapes) if room else {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    train_loss, val_loss, val_accuracy, val_macro_f1 = (np.full(options.epochs, np.nan) for _ in range(4))
    return Outcome(weights, train_loss, val_loss, val_accuracy, val_macro_f1, -1, 0, "cancelled")


def weight_shapes(spec: HeadSpec, dim: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a head's weights, in the order in which every file and module lists them."""
    first, last = ((spec.hidden, dim), (spec.hidden,)), ((classes, spec.hidden or dim), (classes,))
    return dict(zip(weight_names(spec.hidden), (*first, *last) if spec.hidden else last, strict=True))


def check_bank(tasks: Sequence[Task], heads: Sequence[tuple[HeadSpec, int]]) -> list[Task]:
    """The tasks with arrays of the promised types. Raises EmbedcacheError for what no engine could train."""
    if not heads:
        raise EmbedcacheError("no heads to train: give at least one HeadSpec")
    for _, task in heads:
        if not 0 <= task < len(tasks):
            raise EmbedcacheError(f"a head names task {task}, but there are {len(tasks)}")
    checked = [_check_task(task) for task in tasks]
    for spec, task in heads:
        if not kind_of(checked[task].kind).has_classes:
            _check_for_numbers(spec)
        _check_start(spec, checked[task])
    _check_finite([view for task in checked for view in (task.train, task.val) if view is not None])
    return checked


def _check_for_numbers(spec: HeadSpec) -> None:
    """Raises EmbedcacheError for settings that mean something for classes alone."""
    given = [n for n, one in SETTINGS.items() if one.classes and getattr(spec, n) not in one.silent]
    if given:
        raise EmbedcacheError(f"regression has no classes: leave out {' and '.join(given)}")


def _check_start(spec: HeadSpec, task: Task) -> None:
    """Raises EmbedcacheError where a head does not fit the weights that it shall begin with."""
    if task.start is None:
        return
    wanted = weight_shapes(spec, task.train.x.shape[1], task.classes)
    given = {name: array.shape for name, array in task.start.weights.items()}
    if given != wanted:
        shown = ", ".join(f"{name} {list(shape)}" for name, shape in given.items())
        raise EmbedcacheError(f"a head of {spec.hidden} hidden units cannot start from {shown}")


def _check_task(task: Task) -> Task:
    kind = kind_of(task.kind)
    if task.classes < kind.fewest:
        raise EmbedcacheError(f"there is {task.classes} {kind.output} to learn: a head needs at least {kind.fewest}")
    train = _check_view(task.train, task, "train")
    if not len(train.rows):
        raise EmbedcacheError("there are no rows to train on")
    val = None if task.val is None or not len(task.val.rows) else _check_view(task.val, task, "validation")
    dim = train.x.shape[1]
    if val is not None and val.x.shape[1] != dim:
        raise EmbedcacheError(f"the validation X has {val.x.shape[1]} columns, but the training X has {dim}")
    if (task.mean is None) != (task.inv_std is None):
        raise EmbedcacheError("a task needs both mean and inv_std, or neither")
    mean, inv_std = _vector("mean", task.mean, dim), _vector("inv_std", task.inv_std, dim)
    class_weight = _vector("class_weight", task.class_weight, task.classes)
    if class_weight is not None and not (class_weight > 0).all():
        raise EmbedcacheError("every class weight must be above 0")
    if class_weight is not None and not kind.has_classes:
        raise EmbedcacheError(f"{kind.name} has no classes: leave out class_weight")
    return replace(task, train=train, val=val, mean=mean, inv_std=inv_std, class_weight=class_weight)


def _check_view(view: View, task: Task, what: str) -> View:
    x = as_matrix(view.x, f"the {what} X")
    kind = kind_of(task.kind)
    y: np.ndarray = np.ascontiguousarray(view.y, kind.dtype)
    rows = np.ascontiguousarray(view.rows, np.int64)
    if len(y) != len(x):
        raise EmbedcacheError(f"the {what} X has {len(x)} rows, but y has {len(y)} labels")
    if y.shape[1:] != kind.shape(task.classes):
        wanted = f"{task.classes} columns" if kind.shape(task.classes) else f"one {kind.output} a row"
        raise EmbedcacheError(f"the {what} y of a {task.kind} task must have {wanted}, not shape {list(y.shape)}")
    if rows.ndim != 1 or len(rows) >= 2**32:
        raise EmbedcacheError(f"the {what} rows must be a list of fewer than 2^32 row numbers")
    if len(rows) and (rows.min() < 0 or rows.max() >= len(x)):
        raise EmbedcacheError(f"a {what} row number is outside 0..{len(x) - 1}")
    wrong = kind.wrong(y[rows], task.classes)
    if wrong.any():
        row = int(rows[wrong.argmax()])
        why = kind.unfit.format(y=y[row], last=task.classes - 1)
        raise EmbedcacheError(f"row {row} of the {what} data has {why}")
    found = View(x, y, rows, view.finite and stored_type(x) == stored_type(view.x))
    if view.sample_weight is not None:
        found.sample_weight = _check_sample_weight(view.sample_weight, rows, len(x), what)
    return found


def _check_sample_weight(values: np.ndarray, rows: np.ndarray, n: int, what: str) -> np.ndarray:
    weight = np.ascontiguousarray(values, np.float32)
    if weight.shape != (n,):
        raise EmbedcacheError(f"the {what} X has {n} rows, but the sample weights have shape {list(weight.shape)}")
    wrong = ~((weight[rows] >= 0) & np.isfinite(weight[rows]))
    if wrong.any():
        row = int(rows[wrong.argmax()])
        raise EmbedcacheError(f"row {row} of the {what} data has the weight {weight[row]:g}: it must be 0 or more")
    return weight


def training_weight(spec: HeadSpec, task: Task) -> np.ndarray | None:
    """float32 [classes], the weights of a head's training loss, or None for none."""
    if spec.class_weight is None:
        return task.class_weight
    if spec.class_weight == "none":
        return None
    if spec.class_weight == "balanced":
        return kind_of(task.kind).balanced_weight(task.train.y[task.train.rows], task.classes)
    return _vector("class_weight", np.asarray(spec.class_weight), task.classes)


def start_bias(spec: HeadSpec, task: Task) -> np.ndarray:
    """float32 [classes]: where the biases of a linear probe start, so that it says what is known without looking at x.

    Classification: the logarithm of each class's share of the training loss's weight. Multilabel: the logit of each
    label's. Regression: 0. A class without rows counts as half a row. There are hundreds of input weights to one bias,
    and AdamW moves each equally fast: from 0, the input weights learn unequal classes first, and early stopping keeps
    that. A row counts as its sample weight.
    """
    view, weight = task.train, training_weight(spec, task)
    sample = None if view.sample_weight is None else view.sample_weight[view.rows]
    return kind_of(task.kind).start_bias(view.y[view.rows], weight, task.classes, sample)


def start_weights(spec: HeadSpec, task: Task) -> dict[str, np.ndarray]:
    """The weights that a head does not begin with by its seed: a probe's biases, and all where the task has a start."""
    usual = {} if spec.hidden else {"b2": start_bias(spec, task)}
    if task.start is None:
        return usual
    given, known = task.start.weights, task.start.known
    if known.all():
        return dict(given)
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    begun = random_streams.initial_weights(spec.seed, shapes) | usual
    for name in ("w2", "b2"):
        begun[name][known] = given[name][known]
    return {**given, "w2": begun["w2"], "b2": begun["b2"]}


def _vector(name: str, values: np.ndarray | None, size: int) -> np.ndarray | None:
    if values is None:
        return None
    vector = np.ascontiguousarray(values, np.float32)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise EmbedcacheError(f"{name} must be {size} finite numbers")
    return vector


def _check_finite(views: Sequence[View]) -> None:
    """Every used row is looked at once, however many tasks share its matrix, and not where it was before."""
    views = [view for view in views if not view.finite]
    for x in {id(view.x): view.x for view in views}.values():
        used = np.zeros(len(x), bool)
        for view in views:
            if view.x is x:
                used[view.rows] = True
        for start in range(0, len(x), CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            if not used[chunk].any() or finite(part_of(x, chunk)):
                continue
            bad = used[chunk] & ~np.isfinite(x[chunk]).all(axis=1)
            if bad.any():
                name = "X" if views[0].x is x else "another X of the bank, like the validation's,"
                raise EmbedcacheError(
                    f"{name} holds NaN or infinity, first in row {start + int(bad.argmax())}: leave such rows out"
                )


def standardize_stats(x: Matrix, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, inv_std), float32 [D], over the given rows of x [N, D]; summed in float64, chunk by chunk.

    A constant column gets inv_std 1: it becomes 0, whatever noise the rounding left in it. So does one that varies by
    less than a millionth of the median column: encoders have dead units, and their rounding noise, other in every
    batch, would be blown up to the size of the others. Raises EmbedcacheError where x holds NaN or infinity.
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
        raise EmbedcacheError("there are no rows to standardize")
    std = np.sqrt(spread / seen)
    constant = std <= 1e-6 * np.maximum(np.abs(mean), np.median(std))
    return mean.astype(np.float32), (1.0 / np.where(constant, 1.0, std)).astype(np.float32)


def fold_standardization(weights: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Weights for the raw x from weights for (x - mean) * inv_std; computed in float64, returned in float32."""
    if task.mean is None or task.inv_std is None:
        return weights
    w, b = ("w1", "b1") if "w1" in weights else ("w2", "b2")
    scaled = weights[w].astype(np.float64) * task.inv_std
    shifted = weights[b] - scaled @ task.mean.astype(np.float64)
    return {**weights, w: scaled.astype(np.float32), b: shifted.astype(np.float32)}


def fold_target_scale(weights: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """Weights whose outputs are values from weights whose outputs are (values - mean) / std."""
    mean, std = task.target_mean, task.target_std
    if mean is None or std is None:
        return weights
    w2 = (weights["w2"] * std[:, None]).astype(np.float32)
    return {**weights, "w2": w2, "b2": (weights["b2"] * std + mean).astype(np.float32)}


def unfold_standardization(weights: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """The inverse of fold_standardization, for the mean and spread of this task."""
    if task.mean is None or task.inv_std is None:
        return weights
    w, b = ("w1", "b1") if "w1" in weights else ("w2", "b2")
    raw = weights[w].astype(np.float64)
    shifted = weights[b] + raw @ task.mean.astype(np.float64)
    return {**weights, w: (raw / task.inv_std).astype(np.float32), b: shifted.astype(np.float32)}


def unfold_target_scale(weights: dict[str, np.ndarray], task: Task) -> dict[str, np.ndarray]:
    """The inverse of fold_target_scale."""
    mean, std = task.target_mean, task.target_std
    if mean is None or std is None:
        return weights
    w2 = (weights["w2"] / std[:, None]).astype(np.float32)
    return {**weights, "w2": w2, "b2": ((weights["b2"] - mean) / std).astype(np.float32)}
