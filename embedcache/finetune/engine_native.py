"""The native engine of last layers: ctypes binding of csrc/block/block.h."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_int32, c_int64, c_uint64, c_void_p
from dataclasses import replace

import numpy as np

from embedcache.common.machine import usable_cores
from embedcache.common.native_library import find_library, open_library
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.finetune.blocks import (
    ACTIVATIONS,
    HEAD_TENSORS,
    LAYER_TENSORS,
    QUERIES,
    Block,
    Ragged,
    Shape,
    TunedBlock,
    check_start,
    check_states,
    tensor_shapes,
)
from embedcache.heads.engine import NativeUnavailableError
from embedcache.heads.engine_native import COMPUTE, LOSS, STATUS, CTask, CView, pointer, run_and_watch
from embedcache.heads.kinds import kind_of
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import SCHEDULES
from embedcache.heads.task import CHOICES, Task, View, training_weight

ABI_VERSION = 4
ERROR_MEMORY = 2


class _States(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("values", "begins", "lengths")),
        *((name, c_int64) for name in ("rows", "tokens", "dim")),
        ("dtype", c_int32),
    ]


class _Shape(Structure):
    _fields_ = [
        ("inner", c_int64),
        ("heads", c_int64),
        ("positions", c_int64),
        ("relative", c_void_p),
        ("epsilon", c_double),
        ("activation", c_int32),
        *((name, c_int32) for name in ("query", "layers", "unit")),
    ]


class _Block(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("task", "hidden", "batch_size", "epochs", "early_stop", "schedule", "loss")),
        *((name, c_double) for name in ("lr", "head_lr", "beta1", "beta2", "eps", "weight_decay")),
        *((name, c_double) for name in ("hidden_dropout", "attention_dropout", "head_dropout", "clip")),
        *((name, c_double) for name in ("label_smoothing", "warmup", "loss_setting")),
        ("class_weight", c_void_p),
        ("start", c_void_p),
        ("seed", c_uint64),
    ]


class _Result(Structure):
    _fields_ = [
        ("best", c_void_p),
        *((name, c_void_p) for name in ("val_logits", "train_loss", "val_loss", "val_accuracy", "val_f1", "norm")),
        *((name, c_int32) for name in ("best_epoch", "epochs_run", "status")),
    ]


class _Options(Structure):
    _fields_ = [
        ("choose", c_int32),
        ("threads", c_int32),
        ("compute", c_int32),
        ("cancel", POINTER(c_int32)),
        ("progress", POINTER(c_int64)),
    ]


_library: list[ctypes.CDLL] = []


def library() -> ctypes.CDLL:
    """The library, loaded once. Raises NativeUnavailableError, saying what is missing."""
    if not _library:
        found, why = open_library(find_library(__file__, "_block_cpu"), "ec_block_abi_version", ABI_VERSION)
        if found is None:
            raise NativeUnavailableError(f"the native engine of last layers {why}")
        found.ec_block_backend.restype = c_char_p
        found.ec_block_last_error.restype = c_char_p
        _library.append(found)
    return _library[0]


def backend(compute: str = "float32") -> str:
    """What it runs on: "cpu-avx512", "cpu-avx512-bf16", "cpu-avx2" or "cpu-plain"."""
    return str(library().ec_block_backend(c_int32(COMPUTE[compute])).decode())


def train(
    states: Ragged,
    shape: Shape,
    tasks: Sequence[Task],
    blocks: Sequence[Block],
    choose: str = "loss",
    compute: str = "float32",
    threads: int = 0,
    progress: Progress | None = None,
) -> list[TunedBlock]:
    """Train the blocks; on KeyboardInterrupt stop between two steps and return what there is.

    Args:
        states: what the layer reads; views' rows and y count its rows, their x is not looked at.
        shape: of every block.
        tasks: what blocks learn (see heads/task.py), without mean and inv_std.
        blocks: what is trained.
        choose: which epoch a block keeps, as heads do.
        compute: "float32" or "bfloat16", of the products.
        threads: 0: one for each core that this process may use.
        progress: hears of training rows.

    Raises:
        EmbedcacheError: states, tensors or settings that cannot be used; too little memory.
        NativeUnavailableError: the library is missing.
    """
    states = check_states(states, shape)
    tasks = [_in_order(task, len(states.begins)) for task in tasks]
    for block in blocks:
        if not 0 <= block.task < len(tasks):
            raise EmbedcacheError(f"a block names task {block.task}, but there are {len(tasks)}")
    starts = [check_start(block, shape, tasks[block.task].classes) for block in blocks]
    outcomes = [_empty(block, shape, tasks[block.task]) for block in blocks]
    weights = [training_weight(block.spec, tasks[block.task]) for block in blocks]
    relative = None if shape.relative is None else np.ascontiguousarray(shape.relative, np.float32)
    c_tasks = (CTask * len(tasks))(*(_task(task, states) for task in tasks))
    begun = [_tensors(start, shape) for start in starts]
    kept = [_tensors(outcome.weights, shape) for outcome in outcomes]
    c_blocks = (_Block * len(blocks))(*map(_block, blocks, begun, weights))
    c_results = (_Result * len(blocks))(*map(_result, outcomes, kept))
    cancel, done = c_int32(0), c_int64(0)
    options = _Options(
        CHOICES.index(choose),
        threads or usable_cores(),
        COMPUTE[compute],
        ctypes.pointer(cancel),
        ctypes.pointer(done),
    )
    c_states = _states(states)
    c_shape = _shape(shape, relative)
    call = library().ec_block_train
    alive = (
        states,
        tasks,
        starts,
        begun,
        outcomes,
        kept,
        weights,
        relative,
        cancel,
        done,
    )  # what the library points to

    def work(_alive: object = alive) -> None:
        many = c_int32(len(tasks)), c_int32(len(blocks))
        code = call(
            *(ctypes.byref(c_states), ctypes.byref(c_shape), c_tasks, many[0]),
            *(c_blocks, c_results, many[1], ctypes.byref(options)),
        )
        _raise(code)

    total = sum(len(tasks[block.task].train.rows) * block.epochs for block in blocks)
    run_and_watch(work, cancel, done, total, progress)
    for outcome, result in zip(outcomes, c_results, strict=True):
        outcome.best_epoch, outcome.epochs_run = result.best_epoch, result.epochs_run
        outcome.status = STATUS[result.status]
    return outcomes


def _in_order(task: Task, rows: int) -> Task:
    """Arrays as the library reads them. Raises EmbedcacheError where y does not go with the states."""

    def ordered(view: View | None) -> View | None:
        if view is None:
            return None
        kind = kind_of(task.kind)
        y: np.ndarray = np.ascontiguousarray(view.y, kind.dtype)
        wanted = (rows, *kind.shape(task.classes))
        if y.shape != wanted:
            raise EmbedcacheError(f"the y of a {task.kind} task must have shape {list(wanted)}, not {list(y.shape)}")
        return View(view.x, y, np.ascontiguousarray(view.rows, np.int64))

    train, weight = ordered(task.train), task.class_weight
    assert train is not None
    weight = None if weight is None else np.ascontiguousarray(weight, np.float32)
    return replace(task, train=train, val=ordered(task.val), class_weight=weight)


def _raise(code: int) -> None:
    """In the thread of the call: the library keeps a message for each."""
    if code:
        message = library().ec_block_last_error().decode(errors="replace")
        if code == ERROR_MEMORY:
            raise EmbedcacheError(f"the layers do not fit in memory ({message}): use fewer threads or smaller batches")
        raise EmbedcacheError(f"the native engine cannot train these layers: {message}")


def _empty(block: Block, shape: Shape, task: Task) -> TunedBlock:
    sizes = tensor_shapes(shape, block.spec.hidden, task.classes)
    rows = 0 if task.val is None else len(task.val.rows)
    logits = np.zeros((rows, task.classes), np.float32)
    weights = {name: np.zeros(size, np.float32) for name, size in sizes.items()}
    train_loss, val_loss, accuracy, macro_f1, norm = (np.full(block.epochs, np.nan) for _ in range(5))
    return TunedBlock(weights, logits, train_loss, val_loss, accuracy, macro_f1, norm)


def _states(states: Ragged) -> _States:
    dtype = 0 if states.values.dtype == np.float16 else 1
    arrays = (states.values, states.begins, states.lengths)
    return _States(*map(pointer, arrays), len(states.begins), *states.values.shape, dtype)


def _shape(shape: Shape, relative: np.ndarray | None) -> _Shape:
    positions = 0 if relative is None else (relative.shape[1] + 1) // 2
    numbers = (shape.epsilon, ACTIVATIONS.index(shape.activation), QUERIES.index(shape.query))
    return _Shape(shape.inner, shape.heads, positions, pointer(relative), *numbers, shape.layers, shape.unit)


def _view(view: View | None, states: Ragged) -> CView:
    if view is None:
        return CView()
    y, targets = (view.y, None) if view.y.dtype == np.int32 else (None, view.y)
    found = CView(y=pointer(y), targets=pointer(targets), rows=pointer(view.rows), n=len(view.rows))
    found.x.data, found.x.rows = pointer(states.values), len(states.begins)
    found.x.dim = found.x.stride = states.values.shape[1]
    return found


def _task(task: Task, states: Ragged) -> CTask:
    views = _view(task.train, states), _view(task.val, states)
    return CTask(*views, task.classes, kind_of(task.kind).code, None, None, pointer(task.class_weight))


def _tensors(arrays: dict[str, np.ndarray], shape: Shape) -> ctypes.Array:
    names = [f"{k}.{name}" for k in range(shape.layers) for name in LAYER_TENSORS]
    found = [pointer(arrays.get(name)) for name in (*names, *HEAD_TENSORS)]
    return (c_void_p * len(found))(*found)


def _block(block: Block, start: ctypes.Array, weight: np.ndarray | None) -> _Block:
    spec, setting = block.spec, LOSSES[block.spec.loss].setting
    sizes = (block.task, spec.hidden, block.batch_size, block.epochs, block.early_stop)
    rates = (spec.lr, block.head_lr, *spec.betas, spec.eps, spec.weight_decay)
    dropped = (block.hidden_dropout, block.attention_dropout, spec.dropout, block.clip)
    of_loss = (spec.label_smoothing, spec.warmup, getattr(spec, setting) if setting else 0.0)
    words = (SCHEDULES.index(spec.schedule), LOSS.index(spec.loss))
    return _Block(*sizes, *words, *rates, *dropped, *of_loss, pointer(weight), ctypes.addressof(start), spec.seed)


def _result(outcome: TunedBlock, kept: ctypes.Array) -> _Result:
    scores = (outcome.train_loss, outcome.val_loss, outcome.val_accuracy, outcome.val_macro_f1, outcome.norm)
    logits = outcome.val_logits if outcome.val_logits.size else None
    return _Result(ctypes.addressof(kept), pointer(logits), *map(pointer, scores))
