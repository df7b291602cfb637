"""The native engine: ctypes binding of csrc/heads/heads.h, the same for the CPU and the CUDA library."""

from __future__ import annotations

import ctypes
import threading
import warnings
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_int32, c_int64, c_uint64, c_void_p
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from embedcache.common.devices import read_device
from embedcache.common.int8_rows import Int8Rows, stored_type
from embedcache.common.machine import usable_cores
from embedcache.common.native_library import find_library, open_library
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads.engine import EngineWarning, NativeUnavailableError, cannot_compute
from embedcache.heads.kinds import kind_of
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import SCHEDULES, WEIGHTS, HeadSpec, weight_names
from embedcache.heads.task import (
    CHOICES,
    Options,
    Outcome,
    Task,
    View,
    empty_outcome,
    start_weights,
    training_weight,
)

ABI_VERSION = 8
POLL_SECONDS = 0.1  # how often progress is told and Ctrl-C is heard
STATUS = ("ok", "diverged", "cancelled")
DTYPE = ("float16", "float32", "int8")  # of X, by the number in ec_matrix
COMPUTE = {"float32": 0, "bfloat16": 1, "tf32": 2}
LOSS = tuple(LOSSES)  # by the number in ec_head
ERROR_ARGUMENT, ERROR_MEMORY, ERROR_DEVICE, ERROR_UNSUPPORTED = 1, 2, 3, 4


class CMatrix(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("rows", c_int64),
        ("dim", c_int64),
        ("stride", c_int64),
        ("dtype", c_int32),
        ("scale", c_void_p),
    ]


class CView(Structure):
    _fields_ = [
        ("x", CMatrix),
        ("y", c_void_p),
        ("targets", c_void_p),
        ("rows", c_void_p),
        ("n", c_int64),
        ("sample_weight", c_void_p),
    ]


class CTask(Structure):
    _fields_ = [
        ("train", CView),
        ("val", CView),
        ("outputs", c_int32),
        ("kind", c_int32),
        ("mean", c_void_p),
        ("inv_std", c_void_p),
        ("class_weight", c_void_p),
    ]


class _Start(Structure):
    _fields_ = [(name, c_void_p) for name in WEIGHTS]


class _Head(Structure):
    _fields_ = [
        ("task", c_int32),
        ("hidden", c_int32),
        ("schedule", c_int32),
        ("loss", c_int32),
        ("lr", c_double),
        ("beta1", c_double),
        ("beta2", c_double),
        ("eps", c_double),
        ("weight_decay", c_double),
        ("dropout", c_double),
        ("label_smoothing", c_double),
        ("warmup", c_double),
        ("loss_setting", c_double),
        ("class_weight", c_void_p),
        ("start", _Start),
        ("seed", c_uint64),
    ]


class _Result(Structure):
    _fields_ = [
        ("w1", c_void_p),
        ("b1", c_void_p),
        ("w2", c_void_p),
        ("b2", c_void_p),
        ("train_loss", c_void_p),
        ("val_loss", c_void_p),
        ("val_accuracy", c_void_p),
        ("val_f1", c_void_p),
        ("best_epoch", c_int32),
        ("epochs_run", c_int32),
        ("status", c_int32),
    ]


class _Options(Structure):
    _fields_ = [
        ("batch_size", c_int32),
        ("epochs", c_int32),
        ("early_stop", c_int32),
        ("choose", c_int32),
        ("threads", c_int32),
        ("compute", c_int32),
        ("device", c_int32),
        ("stream", c_uint64),
        ("cancel", POINTER(c_int32)),
        ("progress", POINTER(c_int64)),
    ]


class Library:
    """A loaded library with checked version. Raises NativeUnavailableError, saying what is missing."""

    def __init__(self, kind: str) -> None:
        found, why = open_library(_path(kind), "ec_abi_version", ABI_VERSION)
        if found is None:
            raise NativeUnavailableError(f"the native {kind} engine {why}")
        self._library = found
        self._library.ec_backend.restype = c_char_p
        self._library.ec_last_error.restype = c_char_p
        self._library.ec_train.argtypes = [
            POINTER(CTask),
            c_int32,
            POINTER(_Head),
            POINTER(_Result),
            c_int32,
            POINTER(_Options),
        ]

    def backend(self) -> str:
        """What it runs on: "cpu-avx512", "cpu-avx2", "cpu-plain" or "cuda"."""
        return str(self._library.ec_backend().decode())

    def devices(self) -> int:
        return int(self._library.ec_device_count())

    def active_clusters(self, blocks: int) -> int:
        """Clusters of so many blocks that GPU 0 runs at the same time; of the CUDA library alone."""
        return int(self._library.ec_active_clusters(c_int32(blocks)))

    def last_error(self) -> str:
        return str(self._library.ec_last_error().decode(errors="replace"))

    def train(self, tasks: ctypes.Array, heads: ctypes.Array, results: ctypes.Array, options: _Options) -> str:
        """Blocks, without the GIL; returns what there is to say about work that went well. Raises EmbedcacheError."""
        code = self._library.ec_train(tasks, len(tasks), heads, results, len(heads), options)
        message = self.last_error()
        if code == 0:
            return message
        if code == ERROR_MEMORY:
            raise EmbedcacheError(f"the heads do not fit in memory ({message}): use fewer threads or smaller heads")
        raise EmbedcacheError(f"the native engine cannot train this bank: {message}")


def _path(kind: str) -> Path | None:
    """Where the library lies: beside this file, where it was compiled; that for CUDA also in a package of its own."""
    found = find_library(__file__, f"_heads_{kind}")
    if found is None and kind == "cuda" and (package := find_spec("embedcache_cuda")) and package.origin:
        found = find_library(package.origin, "_heads_cuda")
    return found


_libraries: dict[str, Library] = {}


def library(kind: str) -> Library:
    """The "cpu" or "cuda" library, loaded once. Raises NativeUnavailableError."""
    if kind not in _libraries:
        _libraries[kind] = Library(kind)
    return _libraries[kind]


def find(device: str, compute: str = "float32") -> NativeEngine:
    """The engine for "auto", "cpu", "cuda" or "cuda:N" that trains in ``compute``.

    "auto" is a GPU if one works: its engine trains in whatever any engine trains in. An EngineWarning says why it is
    not: the GPU is too old for the library, or has a driver that is.

    Raises:
        NativeUnavailableError: there is none.
    """
    kind, number = read_device(device)
    if kind != "auto":
        if why := cannot_compute(f"native {kind}", compute):
            raise NativeUnavailableError(f"{why}: leave out compute {compute}, or choose another device")
        return NativeEngine(kind, number or 0)
    try:
        return NativeEngine("cuda", 0)
    except NativeUnavailableError as error:
        if "too old" in str(error):
            _warn(f"{error}; the CPU does the work")
        return find("cpu", compute)


def _warn(message: str) -> None:
    warnings.warn(message, EngineWarning, stacklevel=4)


class NativeEngine:
    """One of the two libraries on one device."""

    def __init__(self, kind: str, number: int) -> None:
        self._library = library(kind)
        devices = self._library.devices()
        if kind == "cuda" and number >= devices:
            why = self._library.last_error() or f"{devices} found"
            raise NativeUnavailableError(f"there is no usable GPU {number} ({why})")
        self._number = number
        self.name = f"native-{self._library.backend()}"
        self.device = f"cuda:{number}" if kind == "cuda" else "cpu"

    def train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        options: Options,
        progress: Progress | None,
    ) -> list[Outcome]:
        """Train the bank; on KeyboardInterrupt stop between two steps and return what there is."""
        outcomes = [empty_outcome(spec, tasks[task], options) for spec, task in heads]
        c_tasks = (CTask * len(tasks))(*(c_task(task) for task in tasks))
        weights, starts = {}, {}  # both count all labels: once for each task, not for each head
        for spec, task in heads:
            key = spec.class_weight, task
            if key not in weights:
                weights[key] = training_weight(spec, tasks[task])
            if (begun := _start_key(spec, tasks[task], task)) not in starts:
                starts[begun] = start_weights(spec, tasks[task])
        c_heads = (_Head * len(heads))(
            *(
                _head(spec, task, weights[spec.class_weight, task], starts[_start_key(spec, tasks[task], task)])
                for spec, task in heads
            )
        )
        c_results = (_Result * len(heads))(*(_result(outcome) for outcome in outcomes))
        cancel, done = c_int32(0), c_int64(0)
        c_options = _Options(
            options.batch_size,
            options.epochs,
            options.early_stop,
            CHOICES.index(options.choose),
            options.threads or usable_cores(),
            COMPUTE[options.compute],
            self._number,
            0,
            ctypes.pointer(cancel),
            ctypes.pointer(done),
        )
        total = sum(len(tasks[task].train.rows) for _, task in heads) * options.epochs
        alive = (
            tasks,
            weights,
            starts,
            outcomes,
            cancel,
            done,
        )  # what the library points to, whatever becomes of this frame

        notes: list[str] = []

        def work(_alive: object = alive) -> None:
            notes.append(self._library.train(c_tasks, c_heads, c_results, c_options))

        run_and_watch(work, cancel, done, total, progress)
        if notes[0]:
            _warn(notes[0])
        for outcome, result in zip(outcomes, c_results, strict=True):
            outcome.best_epoch, outcome.epochs_run = result.best_epoch, result.epochs_run
            outcome.status = STATUS[result.status]
        return outcomes


def run_and_watch(
    work: Callable[[], None], cancel: c_int32, done: c_int64, total: int, progress: Progress | None
) -> None:
    """Run the work in a thread of its own, so that this one can tell of progress and hear Ctrl-C."""
    failure: list[BaseException] = []
    finished = threading.Event()  # Thread.join takes a thread for dead when Ctrl-C interrupts it, before Python 3.13

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # handed to the caller's thread below
            failure.append(error)
        finally:
            finished.set()

    threading.Thread(target=guarded, name="embedcache-heads").start()
    told = -1
    while not finished.is_set():
        try:
            finished.wait(POLL_SECONDS)
            if progress is not None and done.value != told and not finished.is_set():
                told = done.value
                progress(told, total, told)
        except KeyboardInterrupt:
            cancel.value = 1
        except BaseException:
            cancel.value = 1  # the library still writes to our arrays: they must outlive it
            finished.wait()
            raise
    if failure:
        raise failure[0]
    if progress is not None and not cancel.value:
        progress(total, total, total)  # heads that stopped early have nothing left to do


def pointer(array: np.ndarray | None) -> int | None:
    return None if array is None else array.ctypes.data


def _view(view: View | None) -> CView:
    if view is None:
        return CView()
    values, scales = (view.x.values, view.x.scales) if isinstance(view.x, Int8Rows) else (view.x, None)
    stride = values.strides[0] // values.itemsize
    matrix = CMatrix(pointer(values), *values.shape, stride, DTYPE.index(stored_type(view.x)), pointer(scales))
    y, targets = (view.y, None) if view.y.dtype == np.int32 else (None, view.y)
    rows = (pointer(view.rows), len(view.rows))
    return CView(matrix, pointer(y), pointer(targets), *rows, pointer(view.sample_weight))


def c_task(task: Task) -> CTask:
    pointers = (pointer(task.mean), pointer(task.inv_std), pointer(task.class_weight))
    return CTask(_view(task.train), _view(task.val), task.classes, kind_of(task.kind).code, *pointers)


def _start_key(spec: HeadSpec, task: Task, number: int) -> tuple[object, ...]:
    """Heads with equal keys start from the same given weights, or all of them from their seeds."""
    if task.start is not None:
        return (number,) if task.start.known.all() else (number, spec.class_weight, spec.seed)
    return (number, "seed") if spec.hidden else (number, spec.class_weight)


def _head(spec: HeadSpec, task: int, class_weight: np.ndarray | None, start: dict[str, np.ndarray]) -> _Head:
    setting = LOSSES[spec.loss].setting
    numbers = (spec.lr, *spec.betas, spec.eps, spec.weight_decay, spec.dropout, spec.label_smoothing, spec.warmup)
    words = (SCHEDULES.index(spec.schedule), LOSS.index(spec.loss))
    of_loss = getattr(spec, setting) if setting else 0.0
    begin = _Start(*(pointer(start.get(name)) for name in WEIGHTS))
    return _Head(task, spec.hidden, *words, *numbers, of_loss, pointer(class_weight), begin, spec.seed)


def _result(outcome: Outcome) -> _Result:
    weights = [pointer(outcome.weights.get(name)) for name in weight_names(1)]
    scores = (outcome.train_loss, outcome.val_loss, outcome.val_accuracy, outcome.val_macro_f1)
    return _Result(*weights, *(pointer(values) for values in scores))
