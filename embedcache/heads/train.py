"""Train a bank of heads through an engine: the native library where it works, else plain torch."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.devices import read_device
from embedcache.common.display import html_table
from embedcache.common.frames import Tabular
from embedcache.common.int8_rows import Matrix
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import as_matrix, json_number
from embedcache.heads.engine import Engine, EngineWarning, NativeUnavailableError, cannot_compute
from embedcache.heads.head import TrainedHead, head_scores
from embedcache.heads.kinds import kind_of
from embedcache.heads.sample_weights import read_sample_weight, weigh
from embedcache.heads.settings import Pair, Whole
from embedcache.heads.spec import BRIEF, SETTINGS, HeadSpec, head_grid
from embedcache.heads.targets import class_weights, known_labels, read_targets, tell_left_out
from embedcache.heads.task import (
    Options,
    Outcome,
    Task,
    View,
    check_bank,
    fold_standardization,
    fold_target_scale,
    standardize_stats,
    with_room,
)

if TYPE_CHECKING:
    import pyarrow as pa

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

HISTORY = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "val_r2")


@dataclass
class BankResult(Tabular):
    """A trained bank.

    ``heads`` in the order given; ``history``: float64 arrays [heads, epochs] train_loss, val_loss, val_accuracy,
    val_macro_f1 and val_r2, the first column of epoch 1, NaN where an epoch was not run or the score makes no sense (r2
    is regression's, the two before it the others'); ``seconds``: the training alone; ``engine``: what trained, like
    "native-cpu-avx512" or "torch-cpu".
    """

    heads: list[TrainedHead]
    history: dict[str, np.ndarray]
    seconds: float
    engine: str

    def __len__(self) -> int:
        return len(self.heads)

    def to_arrow(self) -> pa.Table:
        """A line for each head: its number, its settings, status, epoch (the best, from 1), epochs_run, its scores.

        Scores are those of its best epoch, null where they make no sense or nothing was validated.
        """
        import pyarrow as pa

        settings = {
            name: pa.list_(pa.float64()) if isinstance(one.values, Pair)
            else pa.string() if one.values.text
            else pa.int64() if isinstance(one.values, Whole)
            else pa.float64()
            for name, one in SETTINGS.items() if name != "seed"
        }  # fmt: skip
        types = {"head": pa.int64(), **settings, "seed": pa.uint64(), "status": pa.string()}
        types |= {"epoch": pa.int64(), "epochs_run": pa.int64(), **dict.fromkeys(HISTORY, pa.float64())}
        lines: list[dict[str, Any]] = []
        for place, head in enumerate(self.heads):
            scores = {name: self.history[name][place, head.best_epoch - 1] for name in HISTORY}
            known = {name: float(s) if head.best_epoch and np.isfinite(s) else None for name, s in scores.items()}
            about = {
                name: json.dumps(value) if types[name] == pa.string() and isinstance(value, list) else value
                for name, value in head.spec.to_dict().items()
            }
            epochs = {"epoch": head.best_epoch or None, "epochs_run": head.epochs_run}
            lines.append({"head": place, **about, "status": head.status, **epochs, **known})
        return pa.Table.from_pylist(lines, pa.schema(types))

    def __repr__(self) -> str:
        return describe_bank(self)

    def _repr_html_(self) -> str:
        return bank_html(self)

    @property
    def best(self) -> TrainedHead:
        """The head with the lowest validation loss, or last training loss where nothing was validated."""
        scores = [head.val_loss for head in self.heads]
        if not np.isfinite(scores).any():
            scores = [
                self.history["train_loss"][i, head.best_epoch - 1] if head.best_epoch else np.nan
                for i, head in enumerate(self.heads)
            ]
        if not np.isfinite(scores).any():
            raise EmbedcacheError("every head diverged: try a lower lr")
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
    choose: str = "loss",
    progress: Progress | None = None,
    folder: Path | None = None,
) -> BankResult:
    """Train heads, each a (settings, number of its task), in one call of an engine.

    ``choose``: which epoch a head keeps: that of the lowest validation "loss", or of the highest "accuracy" or
    "macro_f1". ``early_stop``: stop a head after so many epochs without a better one (0: never). ``engine``: "auto",
    "native" or "torch"; ``device``: "auto", "cpu", "cuda" or "cuda:N"; ``compute``: "float32" (which is "auto"),
    "bfloat16" (CPU) or "tf32" (CUDA): the products' operands, while weights and sums stay float32.
    ``threads``: CPU threads (None: one per core). ``progress(done, total, rows)`` hears of training rows, summed over
    heads, a few times a second. On Ctrl-C what is finished is returned, and ``cancelled`` is true. A head whose
    loss explodes is marked "diverged" and touches no other. Where memory does not hold the weights of all heads, a file
    without a name in ``folder`` does (None: the system's for temporary files), and an EngineWarning says so. Raises
    EmbedcacheError for data or settings that cannot be trained.
    """
    options = Options(batch_size, epochs, early_stop, _compute(compute), threads or 0, choose=choose)
    tasks = check_bank(tasks, heads)
    chosen, options = choose_engine(engine, device, options)
    options = with_room(options, tasks, heads, folder)
    if options.room is not None and options.room.note:
        warnings.warn(options.room.note, EngineWarning, stacklevel=2)
    start = time.perf_counter()
    outcomes = chosen.train(tasks, heads, options, progress)
    seconds = time.perf_counter() - start
    histories = [_history(tasks[task], outcome) for (_, task), outcome in zip(heads, outcomes, strict=True)]
    trained = [
        _trained(spec, task, tasks[task], outcome, history)
        for (spec, task), outcome, history in zip(heads, outcomes, histories, strict=True)
    ]
    stacked = {name: np.stack([history[name] for history in histories]) for name in HISTORY}
    return BankResult(trained, stacked, seconds, chosen.name)


def _history(task: Task, outcome: Outcome) -> dict[str, np.ndarray]:
    history = {name: getattr(outcome, name) for name in HISTORY if name != "val_r2"}
    history["val_r2"] = np.full_like(outcome.val_loss, np.nan)
    if kind_of(task.kind).main == "r2" and task.val is not None:
        weight = None if task.val.sample_weight is None else task.val.sample_weight[task.val.rows]
        history["val_r2"] = r2_of(outcome.val_loss, task.val.y[task.val.rows].astype(np.float64), weight)
    return history


def r2_of(loss: np.ndarray | float, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """R2 by a mean squared error over the rows of y, float64 [n, outputs]; NaN where y is the same in all of them.

    weight: of the rows [n], as in the error.
    """
    squares = (y - np.average(y, axis=0, weights=weight)) ** 2
    spread = float(np.average(squares, axis=0, weights=weight).mean())
    return 1.0 - np.asarray(loss) / spread if spread else np.full_like(loss, np.nan)


def _trained(spec: HeadSpec, number: int, task: Task, outcome: Outcome, history: dict[str, np.ndarray]) -> TrainedHead:
    best, run = outcome.best_epoch, outcome.epochs_run  # best: from 0, -1 for none, as the engines count
    weights, outcome.weights = outcome.weights, {}
    folded = fold_standardization(weights, task)
    if best >= 0:  # else they are zeros
        folded = fold_target_scale(folded, task)
    for name, array in folded.items():  # into their place: never two copies of a whole bank
        if array is not weights[name]:
            np.copyto(weights[name], array)
    return TrainedHead(
        spec,
        weights,
        best_epoch=best + 1,
        epochs_run=run,
        status=outcome.status,
        val_loss=float(outcome.val_loss[best]) if best >= 0 else float("nan"),
        val_accuracy=float(outcome.val_accuracy[best]) if best >= 0 else float("nan"),
        task=number,
        kind=task.kind,
        history={name: history[name][:run].tolist() for name in HISTORY},
    )


def _compute(compute: str) -> str:
    if compute not in ("auto", "float32", "bfloat16", "tf32"):
        raise EmbedcacheError(f"compute must be auto, float32, bfloat16 or tf32, not {compute!r}")
    return "float32" if compute == "auto" else compute


def choose_engine(engine: str, device: str, options: Options) -> tuple[Engine, Options]:
    """The engine that will train, and the options with its device settled.

    The native library comes first, on a GPU if one works. Where it cannot be
    had, "auto" takes torch and says so by an EngineWarning.

    Raises:
        EmbedcacheError: "native" cannot be had, or nothing here trains in ``options.compute``.
    """
    from embedcache.heads import engine_native

    if engine not in ("auto", "native", "torch"):
        raise EmbedcacheError(f"engine must be auto, native or torch, not {engine!r}")
    read_device(device)
    reason = ""
    if engine != "torch":
        try:
            chosen = engine_native.find(device, options.compute)
            return chosen, replace(options, device=chosen.device)
        except NativeUnavailableError as error:
            if engine == "native":
                raise
            reason = str(error)
    if why := cannot_compute("torch", options.compute):
        raise EmbedcacheError(reason or f"{why}: leave out compute {options.compute}")
    from embedcache.heads import engine_torch

    try:
        reference_engine = engine_torch.TorchEngine(device)
    except EmbedcacheError as error:
        raise EmbedcacheError(f"{reason}; {error}" if reason else str(error)) from None
    if reason:
        warnings.warn(f"{reason}; the torch engine does the work, more slowly", EngineWarning, stacklevel=3)
    return reference_engine, replace(options, device=reference_engine.device)


def train_heads(
    X: Any,
    y: Any,
    grid: HeadSpec | Sequence[HeadSpec],
    *,
    batch_size: int = 32,
    epochs: int = 5,
    validation: tuple[Any, Any] | tuple[Any, Any, Any] | None = None,
    sample_weight: Any = None,
    standardize: bool = False,
    class_weight: str | dict[Any, float] | Sequence[float] | None = None,
    early_stop: int = 0,
    task: str = "auto",
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    choose: str = "loss",
    progress: Progress | None = None,
) -> BankResult:
    """Train every head of a grid on X [n, D] and its labels y [n]; see train_bank for the other options.

    ``X``: NumPy (float16 and float32 are read in place, memory-mapped too; other numbers are converted), vectors of a
    cache (in place, too, int8 as well) or a torch tensor. ``task``: "classification": y integers, strings or booleans,
    the classes are its sorted values; "multilabel": y a 0/1 matrix [n, C] or a list of lists of labels; "regression": y
    numbers [n] or [n, C]; "auto": one of the first two. Of a y from a cache, ``cache.labels(COLUMN)`` or a part of its
    codes, rows without a label are left out, and a LabelWarning says how many. ``validation``: (Xv, yv), by which each
    head's best epoch is chosen; without it the last epoch's weights stay. ``sample_weight`` [n], finite and 0 or more,
    multiplies each row's loss; only what weights are to each other counts, and rows of weight 0 are left out. A third
    member of ``validation`` is the same for its loss (accuracy and F1 count every row once). ``standardize``: train on
    columns of mean 0 and spread 1, folded into the returned weights.
    ``class_weight``, of heads that have none of their own: None, "balanced", a dict label -> weight, or one weight per
    class (see HeadSpec); it weighs the validation loss too. Regression trains on y of mean 0 and spread 1, also folded
    into the weights: losses are in those units, where 1 is what the mean alone reaches. Raises EmbedcacheError.
    """
    specs = _specs(grid)
    x = as_matrix(X)
    known, rows = known_labels(y, len(x))
    targets = read_targets(known, len(rows), task)
    train, val = _view(x, targets.y, rows), None
    weight_of_rows = None if sample_weight is None else read_sample_weight(sample_weight, len(x))
    val_weight_of_rows = None
    if validation is not None:
        if not isinstance(validation, (tuple, list)) or len(validation) not in (2, 3):
            raise EmbedcacheError("validation must be a pair (X, y), or (X, y, sample_weight)")
        xv = as_matrix(validation[0], "the validation X")
        if not len(xv):
            raise EmbedcacheError("the validation X has no rows: leave validation out, or give it some")
        known, val_rows = known_labels(validation[1], len(xv))
        val = _view(xv, targets.more(known, len(val_rows)), val_rows)
        if len(validation) == 3 and validation[2] is not None:
            val_weight_of_rows = read_sample_weight(validation[2], len(xv), "validation")
    elif early_stop:
        raise EmbedcacheError("early_stop needs validation rows: give validation=(X, y)")
    tell_left_out(train, val)
    names = range(targets.outputs) if targets.classes is None else targets.classes
    weight = class_weights(class_weight, targets.y, names, targets.kind)
    what = Task(train, val, targets.outputs, class_weight=weight, kind=targets.kind)
    what.target_mean, what.target_std = targets.mean, targets.std
    what = weigh(what, weight_of_rows, val_weight_of_rows)
    if standardize:
        what.mean, what.inv_std = standardize_stats(x, what.train.rows)
    result = train_bank(
        [what],
        [(spec, 0) for spec in specs],
        batch_size=batch_size,
        epochs=epochs,
        early_stop=early_stop,
        engine=engine,
        device=device,
        compute=compute,
        threads=threads,
        choose=choose,
        progress=progress,
    )
    for head in result.heads:
        if targets.classes is not None:
            head.classes = targets.classes.tolist()
    return result


def _view(x: Matrix, y: np.ndarray, rows: np.ndarray) -> View:
    """``rows`` of x, read where they lie; y has theirs alone."""
    if len(rows) < len(x):
        of_rows, y = y, np.zeros((len(x), *y.shape[1:]), y.dtype)
        y[rows] = of_rows
    return View(x, y, rows)


def _specs(grid: Any) -> list[HeadSpec]:
    specs = [grid] if isinstance(grid, HeadSpec) else list(grid) if isinstance(grid, Iterable) else None
    if specs is None or not all(isinstance(spec, HeadSpec) for spec in specs):
        raise EmbedcacheError("grid must be a HeadSpec or a list of them: head_grid(lr=[1e-4, 1e-3]) makes one")
    return specs


def describe_bank(bank: BankResult) -> str:
    ok = sum(head.status == "ok" for head in bank.heads)
    best = min((head.val_loss for head in bank.heads if head.val_loss == head.val_loss), default=None)
    scored = "" if best is None else f", best val_loss {best:.4f}"
    return f"BankResult({len(bank.heads):,} heads, {ok:,} ok, {bank.engine}, {bank.seconds:.2f} s{scored})"


def bank_html(bank: BankResult) -> str:
    """The first ten heads by validation loss (the last training loss where nothing was validated)."""
    columns = ("head", *BRIEF, "epoch", *(head_scores(bank.heads[0]) if bank.heads else ()), "status")
    order = sorted(range(len(bank.heads)), key=lambda i: _rank(bank.heads[i]))
    rows = (
        (
            i,
            *(getattr(head.spec, name) for name in BRIEF),
            head.best_epoch,
            *head_scores(head).values(),
            head.status,
        )
        for i, head in ((i, bank.heads[i]) for i in order)
    )
    title = f"{len(bank.heads):,} heads in {bank.seconds:.2f} s ({bank.engine}), best first"
    return html_table(title, columns, rows)


def _rank(head: TrainedHead) -> tuple[bool, float]:
    losses = [head.val_loss, *head.history.get("train_loss", [])[-1:]]
    finite = [loss for loss in losses if json_number(loss) is not None]
    return (head.status != "ok" or not finite, finite[0] if finite else 0.0)
