"""Train a bank of heads through an engine: the native library where it works, else plain torch."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.bank import (
    Options,
    Outcome,
    Progress,
    Task,
    View,
    as_matrix,
    check_bank,
    fold_standardization,
    standardize_stats,
)
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.heads.trained import TrainedHead, to_numpy

__all__ = [
    "BankResult",
    "HeadSpec",
    "Task",
    "TrainedHead",
    "View",
    "head_grid",
    "standardize_stats",
    "train_bank",
    "train_heads",
]

HISTORY = ("train_loss", "val_loss", "val_accuracy")


class EngineWarning(UserWarning):
    """The native engine was not used, and why."""


class Engine(Protocol):
    """What native.NativeEngine and reference.TorchEngine have in common."""

    name: str

    def train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        options: Options,
        progress: Progress | None,
    ) -> list[Outcome]: ...


@dataclass
class BankResult:
    """A trained bank.

    ``heads`` in the order given; ``history``: float64 arrays [heads, epochs] train_loss, val_loss, val_accuracy,
    NaN where an epoch was not run; ``seconds``: the training alone; ``engine``: what trained, like
    "native-cpu-avx512" or "torch-cpu".
    """

    heads: list[TrainedHead]
    history: dict[str, np.ndarray]
    seconds: float
    engine: str

    @property
    def best(self) -> TrainedHead:
        """The head with the lowest validation loss, or last training loss where nothing was validated."""
        scores = [head.val_loss for head in self.heads]
        if not np.isfinite(scores).any():
            scores = [
                self.history["train_loss"][i, head.best_epoch] if head.best_epoch >= 0 else np.nan
                for i, head in enumerate(self.heads)
            ]
        if not np.isfinite(scores).any():
            raise EmbedcacheError("no head came to a finite end: try a lower lr")
        return self.heads[int(np.nanargmin(np.where(np.isfinite(scores), scores, np.nan)))]

    @property
    def cancelled(self) -> bool:
        """Whether the training was interrupted: heads that had not finished say "cancelled"."""
        return any(head.status == "cancelled" for head in self.heads)


def train_bank(
    tasks: Sequence[Task],
    heads: Sequence[tuple[HeadSpec, int]],
    *,
    batch_size: int = 32,
    epochs: int = 5,
    early_stop: int = 0,
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> BankResult:
    """Train heads, each a (settings, number of its task), in one call of an engine.

    ``early_stop``: stop a head after so many epochs without a better validation loss (0: never). ``engine``: "auto",
    "native" or "torch"; ``device``: "auto", "cpu", "cuda" or "cuda:N"; ``compute``: "auto" or "float32".
    ``threads``: CPU threads (None: one per core). ``progress(done, total)`` hears of training rows, summed over
    heads, a few times a second. On Ctrl-C what is finished is returned, and ``cancelled`` is true. A head whose
    loss explodes is marked "diverged" and touches no other. Raises EmbedcacheError for data or settings that
    cannot be trained.
    """
    options = Options(batch_size, epochs, early_stop, _compute(compute), 0 if threads is None else threads)
    tasks = check_bank(tasks, heads)
    chosen, options = choose_engine(engine, device, options)
    start = time.perf_counter()
    outcomes = chosen.train(tasks, heads, options, progress)
    seconds = time.perf_counter() - start
    history = {name: np.stack([getattr(outcome, name) for outcome in outcomes]) for name in HISTORY}
    trained = [
        _trained(spec, task, tasks[task], outcome) for (spec, task), outcome in zip(heads, outcomes, strict=True)
    ]
    return BankResult(trained, history, seconds, chosen.name)


def _trained(spec: HeadSpec, number: int, task: Task, outcome: Outcome) -> TrainedHead:
    if not all(np.isfinite(array).all() for array in outcome.weights.values()):  # the very last step overflowed
        outcome.weights = {name: np.zeros_like(array) for name, array in outcome.weights.items()}
        outcome.status, outcome.best_epoch = "diverged", -1
    best, run = outcome.best_epoch, outcome.epochs_run
    weights, outcome.weights = fold_standardization(outcome.weights, task), {}  # never two copies of a whole bank
    return TrainedHead(
        spec,
        weights,
        best_epoch=best,
        epochs_run=run,
        status=outcome.status,
        val_loss=float(outcome.val_loss[best]) if best >= 0 else float("nan"),
        val_accuracy=float(outcome.val_accuracy[best]) if best >= 0 else float("nan"),
        task=number,
        history={name: getattr(outcome, name)[:run].tolist() for name in HISTORY},
    )


def _compute(compute: str) -> str:
    if compute in ("auto", "float32"):
        return "float32"
    if compute in ("bfloat16", "tf32"):
        raise EmbedcacheError(f"compute {compute!r} is not there yet in this version: use float32")
    raise EmbedcacheError(f"compute must be auto or float32, not {compute!r}")


def choose_engine(engine: str, device: str, options: Options) -> tuple[Engine, Options]:
    """The engine that will train, and the options with its device settled.

    The native library comes first, on a GPU only if one works. Where it cannot be had, "auto" takes torch and says so
    by an EngineWarning; "native" raises EmbedcacheError.
    """
    from embedcache.heads import native

    if engine not in ("auto", "native", "torch"):
        raise EmbedcacheError(f"engine must be auto, native or torch, not {engine!r}")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise EmbedcacheError(f"device must be auto, cpu, cuda or cuda:N, not {device!r}")
    if engine != "torch":
        try:
            chosen = native.find(device)
            return chosen, replace(options, device=chosen.device)
        except native.NativeUnavailableError as error:
            if engine == "native":
                raise
            message = f"{error}; the torch engine does the work, more slowly"
            warnings.warn(message, EngineWarning, stacklevel=3)
    from embedcache.heads import reference

    reference_engine = reference.TorchEngine(device)
    return reference_engine, replace(options, device=reference_engine.device)


def train_heads(
    X: Any,
    y: Any,
    grid: HeadSpec | Sequence[HeadSpec],
    *,
    batch_size: int = 32,
    epochs: int = 5,
    validation: tuple[Any, Any] | None = None,
    standardize: bool = False,
    class_weight: str | dict[Any, float] | Sequence[float] | None = None,
    early_stop: int = 0,
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> BankResult:
    """Train every head of a grid on X [n, D] and its labels y [n]; see train_bank for the other options.

    ``X``: NumPy (float16 and float32 are read in place, memory-mapped too; other numbers are converted) or a torch
    tensor. ``y``: integers, strings or booleans; the classes are its sorted values. ``validation``: (Xv, yv), by which
    each head's best epoch is chosen; without it the last epoch's weights stay. ``standardize``: train on columns of
    mean 0 and spread 1, folded into the returned weights. ``class_weight``: None, "balanced" (n / (C * count), as
    scikit-learn), a dict label -> weight, or one weight per class. Raises EmbedcacheError.
    """
    specs = [grid] if isinstance(grid, HeadSpec) else list(grid)
    x = as_matrix(X)
    classes, codes = _encode_labels(y, len(x))
    train = View(x, codes, np.arange(len(x)))
    val = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise EmbedcacheError("validation must be a pair: (X, y)")
        xv = as_matrix(validation[0], "the validation X")
        val = View(xv, _codes_of(validation[1], classes, len(xv)), np.arange(len(xv)))
    task = Task(train, val, len(classes), class_weight=class_weights(class_weight, codes, classes))
    if standardize:
        task.mean, task.inv_std = standardize_stats(x, train.rows)
    result = train_bank(
        [task],
        [(spec, 0) for spec in specs],
        batch_size=batch_size,
        epochs=epochs,
        early_stop=early_stop,
        engine=engine,
        device=device,
        compute=compute,
        threads=threads,
        progress=progress,
    )
    for head in result.heads:
        head.classes = classes.tolist()
    return result


def class_weights(wanted: Any, codes: np.ndarray, classes: Sequence[Any] | np.ndarray) -> np.ndarray | None:
    """float32 [C] for a Task from None, "none", "balanced", a dict by label, or a sequence; ``codes`` of the rows."""
    if wanted is None or (isinstance(wanted, str) and wanted == "none"):
        return None
    if isinstance(wanted, str):
        if wanted != "balanced":
            raise EmbedcacheError(f"class_weight must be none, balanced or weights, not {wanted!r}")
        counts = np.bincount(codes, minlength=len(classes))
        return (counts.sum() / (len(classes) * np.maximum(counts, 1))).astype(np.float32)
    if isinstance(wanted, dict):
        unknown = [label for label in wanted if label not in list(classes)]
        if unknown:
            raise EmbedcacheError(f"class_weight names {unknown[0]!r}, which is no class of y")
        wanted = [wanted.get(label, 1.0) for label in classes]
    weights = np.asarray(wanted, np.float32)
    if weights.shape != (len(classes),):
        raise EmbedcacheError(f"class_weight has {weights.size} weights for {len(classes)} classes")
    return weights


def _encode_labels(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(classes, codes): the sorted distinct labels, and each row's place among them."""
    labels = _labels(y, n)
    if not n:
        raise EmbedcacheError("there are no rows to train on")
    classes, codes = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise EmbedcacheError(f"y holds one class only ({classes[0].item()!r}): a head needs at least two")
    return classes, codes.astype(np.int32)


def _codes_of(y: Any, classes: np.ndarray, n: int) -> np.ndarray:
    labels = _labels(y, n)
    if len(labels) and labels.dtype.kind != classes.dtype.kind and "U" in (labels.dtype.kind, classes.dtype.kind):
        raise EmbedcacheError("the validation labels are of another type than y")
    codes = np.minimum(np.searchsorted(classes, labels), len(classes) - 1)
    unknown = classes[codes] != labels
    if unknown.any():
        label = labels[unknown.argmax()].item()
        raise EmbedcacheError(f"the validation labels hold {label!r}, which is no class of y")
    return codes.astype(np.int32)


def _labels(y: Any, n: int) -> np.ndarray:
    labels = np.asarray(y, object) if isinstance(y, (list, tuple)) else to_numpy(y)  # NumPy would make "nan" of a NaN
    if labels.dtype == object:
        if len({isinstance(label, str) for label in labels.flat}) > 1 or any(label is None for label in labels.flat):
            raise EmbedcacheError("y must be all integers or all strings, without missing values")
        labels = np.array(labels.tolist())
    if labels.dtype.kind not in "iubU":
        raise EmbedcacheError(f"y must hold integers or strings, not {labels.dtype}")
    if labels.shape != (n,):
        raise EmbedcacheError(f"X has {n} rows, but y has shape {list(labels.shape)}")
    return labels
