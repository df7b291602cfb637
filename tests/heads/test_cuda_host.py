"""The CUDA engine's own source, compiled for the host (csrc/heads/cuda/block.cuh) and measured against float64.

Shows that the kernels' arithmetic, indexing and phases are right and that the host side of the engine is; what only a
GPU can show (barriers, launches, copies, speed) it does not. With sanitizers: make sanitize.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import float64_reference as reference
import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_native
from embedcache.heads.engine import EngineWarning
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.kinds import KINDS
from embedcache.heads.task import CHOICES, Options
from tests.heads.cuda_emulation import (
    CUDA,
    SPEC,
    assert_same,
    check,
    check_diverging,
    make_task,
    mixed_bank,
    of_kind,
    sampled,
    standardized,
    started,
    weighted,
)

CASES = {
    "plain": (make_task(), SPEC, 16),
    "probe": (make_task(), replace(SPEC, hidden=0), 16),
    "probe, 50 classes": (make_task(classes=50, n=130), replace(SPEC, hidden=0), 24),
    "two classes": (make_task(classes=2), SPEC, 32),
    "50 classes, wide": (make_task(classes=50, dim=150, n=70), replace(SPEC, hidden=131), 33),
    "dim over a chain": (make_task(dim=700, n=40), replace(SPEC, hidden=9, lr=1e-3), 8),
    "one hidden unit": (make_task(dim=1), replace(SPEC, hidden=1), 7),
    "batch of one": (make_task(n=20), SPEC, 1),
    "batch over n": (make_task(), SPEC, 1000),
    "batch divides n": (make_task(n=64), SPEC, 32),
    "large batch": (make_task(n=600, dim=8), replace(SPEC, hidden=6), 300),
    "dropout": (make_task(), replace(SPEC, hidden=150, dropout=0.3, seed=2**63 + 12345), 16),
    "float16": (make_task(dtype=np.float16), replace(SPEC, dropout=0.1), 16),
    "class weights": (weighted(make_task()), SPEC, 16),
    "weighted rows": (sampled(make_task()), SPEC, 16),
    "weighted rows, probe": (sampled(weighted(make_task())), replace(SPEC, hidden=0), 16),
    "weighted rows, large batch": (sampled(make_task(n=600, dim=8)), replace(SPEC, hidden=6), 300),
    "started": (started(make_task(), 20), replace(SPEC, hidden=20), 16),
    "started probe": (started(make_task(), 0), replace(SPEC, hidden=0), 16),
    "standardised": (standardized(make_task()), SPEC, 16),
    "standardised probe, weights": (standardized(weighted(make_task())), replace(SPEC, hidden=0), 16),
    "no validation": (make_task(val=0), SPEC, 16),
    "long validation": (make_task(val=300), SPEC, 16),
    "smoothing": (make_task(classes=4), replace(SPEC, label_smoothing=0.2), 16),
    "smoothing, own weights": (
        weighted(make_task()),
        replace(SPEC, label_smoothing=0.1, class_weight=(2.0, 0.5, 1.0)),
        16,
    ),
    "focal": (make_task(), replace(SPEC, loss="focal"), 16),
    "focal, probe, weights": (weighted(make_task()), replace(SPEC, hidden=0, loss="focal", focal_gamma=0.5), 16),
    "focal, smoothing, weights": (
        weighted(make_task(classes=40)),
        replace(SPEC, loss="focal", focal_gamma=5.0, label_smoothing=0.2),
        16,
    ),
    "focal, labels": (
        weighted(of_kind("multilabel", make_task(classes=5))),
        replace(SPEC, loss="focal", label_smoothing=0.1),
        16,
    ),
    "balanced": (make_task(), replace(SPEC, class_weight="balanced"), 16),
    "the task's weights for validation only": (weighted(make_task()), replace(SPEC, class_weight="none"), 16),
    "labels": (of_kind("multilabel", make_task()), SPEC, 16),
    "labels, weights, smoothing": (
        weighted(of_kind("multilabel", make_task(classes=40))),
        replace(SPEC, label_smoothing=0.1),
        16,
    ),
    "one label, probe": (of_kind("multilabel", make_task(classes=1)), replace(SPEC, hidden=0), 16),
    "values": (of_kind("regression", make_task()), replace(SPEC, dropout=0.1), 16),
    "one value": (of_kind("regression", standardized(make_task(classes=1))), SPEC, 33),
    "linear schedule": (make_task(), replace(SPEC, schedule="linear"), 16),
    "cosine schedule, warm-up": (make_task(), replace(SPEC, schedule="cosine", warmup=0.3), 16),
    "warm-up": (make_task(), replace(SPEC, warmup=0.5), 16),
    "other betas, eps": (make_task(), replace(SPEC, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.0), 16),
}


@pytest.mark.parametrize("name", CASES)
def test_against_float64(cuda: NativeEngine, name: str) -> None:
    task, spec, batch_size = CASES[name]
    (outcome,) = cuda.train([task], [(spec, 0)], Options(batch_size=batch_size, epochs=3), None)
    check(outcome, task, spec, batch_size, 3)


def test_many_heads_of_several_tasks(cuda: NativeEngine) -> None:
    tasks, heads = mixed_bank()
    told: list[tuple[int, ...]] = []
    outcomes = cuda.train(tasks, heads, Options(batch_size=16, epochs=3), lambda *done: told.append(done))
    for outcome, (spec, task) in zip(outcomes, heads, strict=True):
        check(outcome, tasks[task], spec, 16, 3)
    total = sum(len(tasks[task].train.rows) for _, task in heads) * 3
    assert told[-1] == (total, total, total)


def test_a_head_alone_and_among_others_to_the_bit(cuda: NativeEngine) -> None:
    tasks, heads = mixed_bank()
    options = Options(batch_size=16, epochs=2)
    together = cuda.train(tasks, heads, options, None)
    for i in (0, 5, len(heads) - 1):
        assert_same(cuda.train(tasks, [heads[i]], options, None)[0], together[i])


def test_threads_of_a_phase_do_not_touch_each_other(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of threads and blocks within a phase changes no bit: on a GPU it is any order."""
    tasks, heads = mixed_bank()
    forwards = emulation.train(tasks, heads, Options(batch_size=16, epochs=2), None)
    monkeypatch.setenv("EC_EMULATION_BACKWARDS", "1")
    backwards = emulation.train(tasks, heads, Options(batch_size=16, epochs=2), None)
    for one, other in zip(forwards, backwards, strict=True):
        assert_same(one, other)


def test_heads_that_do_not_fit_together_go_in_groups(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, heads = mixed_bank()
    options = Options(batch_size=40, epochs=2)  # more than clusters take, which need more memory
    together = emulation.train(tasks, heads, options, None)
    settings = {"EC_EMULATION_MEMORY": "250000"}, {"EC_EMULATION_MEMORY": "600000", "EC_EMULATION_TAKEN": "300000"}
    for variables in settings:  # so little, or so much less than the driver says
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.warns(EngineWarning, match=f"of the {len(heads)} heads at a time: .* in [0-9]+ groups"):
            grouped = emulation.train(tasks, heads, options, None)
        for one, other in zip(grouped, together, strict=True):
            assert_same(one, other)


def test_no_room_for_what_clusters_read(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(n=400, dim=10, val=0)
    monkeypatch.setenv("EC_EMULATION_MEMORY", "200000")
    with pytest.warns(EngineWarning, match="no room for X as the faster kernels read it"):
        (outcome,) = emulation.train([task], [(SPEC, 0)], Options(batch_size=16, epochs=3), None)
    check(outcome, task, SPEC, 16, 3)


@pytest.mark.parametrize(("memory", "what"), [(5000, "X"), (40000, "head 0")])
def test_no_room_at_all(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, memory: int, what: str) -> None:
    monkeypatch.setenv("EC_EMULATION_MEMORY", str(memory))
    with pytest.raises(EmbedcacheError, match=f"no room for {what}: 1 MiB needed"):
        emulation.train([make_task()], [(replace(SPEC, hidden=500), 0)], Options(epochs=1), None)


@pytest.mark.parametrize(
    ("why", "warned"),
    [("the NVIDIA driver is too old: it offers CUDA 11.4", True), ("no NVIDIA driver: install one", False)],
)
def test_a_gpu_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, why: str, warned: bool) -> None:
    """Asked for: an error. Not asked for: the CPU, and a word about it if there is a GPU at all."""
    if engine_native._path("cpu") is None:
        pytest.skip("the native library is not built")
    unusable = SimpleNamespace(devices=lambda: 0, last_error=lambda: why)
    monkeypatch.setitem(engine_native._libraries, "cuda", unusable)
    with pytest.raises(EmbedcacheError, match=why):
        engine_native.find("cuda")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert engine_native.find("auto").device == "cpu"
    assert [str(warning.message).count(why) for warning in caught] == [1] * warned


def test_early_stop(cuda: NativeEngine) -> None:
    task = make_task(n=40)
    heads = [(replace(SPEC, lr=lr), 0) for lr in (0.05, 1e-6)]
    hot, cold = cuda.train([task], heads, Options(batch_size=8, epochs=30, early_stop=2), None)
    expected = reference.train(task, heads[0][0], 8, 30)
    best = next(e for e in range(30) if min(expected.val_loss[e + 1 : e + 3]) >= min(expected.val_loss[: e + 1]))
    assert (hot.status, hot.best_epoch, hot.epochs_run) == ("ok", best, best + 3)
    assert np.isnan(hot.train_loss[best + 3 :]).all() and not np.isnan(hot.val_loss[: best + 3]).any()
    assert reference.distance(hot.weights, expected.of_epoch[best], expected.initial) < 1e-3
    assert cold.epochs_run == 30


@pytest.mark.parametrize("hidden", [0, 37])
@pytest.mark.parametrize("kind", KINDS)
def test_choose(cuda: NativeEngine, kind: str, hidden: int) -> None:
    """The epoch that is kept, and waited for, is the first by the head's own scores; its weights are float64's."""
    task = make_task(n=60, val=24) if kind == "classification" else of_kind(kind, make_task(n=60, val=24))
    task = replace(task, train=replace(task.train, y=task.train.y.copy()))
    spec = replace(SPEC, hidden=hidden, lr=2e-2)
    expected, kept = reference.train(task, spec, 16, 25), []
    for choose in CHOICES:
        (head,) = cuda.train([task], [(spec, 0)], Options(batch_size=16, epochs=25, choose=choose), None)
        scores = {"accuracy": head.val_accuracy, "macro_f1": head.val_macro_f1}.get(choose, np.zeros(25))
        scores = np.zeros(25) if kind == "regression" else scores
        order = sorted(range(25), key=lambda epoch: (-scores[epoch], head.val_loss[epoch]))
        assert head.best_epoch == order[0]
        assert reference.distance(head.weights, expected.of_epoch[order[0]], expected.initial) < 1e-3
        kept.append(head.best_epoch)
        options = Options(batch_size=16, epochs=25, choose=choose, early_stop=3)
        (stopped,) = cuda.train([task], [(spec, 0)], options, None)
        assert stopped.epochs_run == min(25, stopped.best_epoch + 4)
        assert stopped.best_epoch == min(range(stopped.epochs_run), key=lambda e: (-scores[e], head.val_loss[e]))
    assert (len(set(kept)) == 1) == (kind == "regression"), kept


def test_a_head_that_diverges_touches_no_other(cuda: NativeEngine) -> None:
    check_diverging(cuda, make_task(), [replace(SPEC, lr=lr, seed=i) for i, lr in enumerate((1e-3, 1e30, 3e-3))])


def test_progress_and_cancel(cuda: NativeEngine) -> None:
    """Cancelled in the middle: the finished epochs and their best weights stay."""
    seen = threading.Event()

    def stop(done: int, total: int, rows: int) -> None:
        if 0 < done < total and not seen.is_set():
            seen.set()
            raise KeyboardInterrupt

    task = make_task(n=200)
    heads = [(replace(SPEC, seed=seed), 0) for seed in range(4)]
    outcomes = cuda.train([task], heads, Options(batch_size=16, epochs=2000), stop)
    assert seen.is_set()
    for outcome in outcomes:
        assert outcome.status == "cancelled" and 0 < outcome.epochs_run < 2000
        assert outcome.best_epoch >= 0 and outcome.weights["w1"].any()
        assert np.isnan(outcome.train_loss[outcome.epochs_run :]).all()


@pytest.mark.parametrize("compute", ["float32", "tf32"])
def test_how_long_a_launch_is_changes_nothing(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, compute: str
) -> None:
    """To a device that calls itself slow go a step, and a chunk of validation rows, of few heads at a time."""
    tasks, heads = mixed_bank()
    options = Options(batch_size=16, epochs=2, compute=compute)
    together = emulation.train(tasks, heads, options, None)
    monkeypatch.setenv("EC_EMULATION_SPEED", "1")
    for one, other in zip(emulation.train(tasks, heads, options, None), together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(("speed", "rows"), [(1, 3 * 16), (200_000_000, 4 * 16), (1 << 50, 7 * 80)])
def test_the_caller_is_heard_after_half_a_second(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, speed: int, rows: int
) -> None:
    """Cancelled by the first row that is done: that is a launch. The emulation runs three heads at a time."""
    train = engine_native.Library.train

    def cancel_by_progress(self: object, tasks: object, heads: object, results: object, options: object) -> str:
        options.cancel = ctypes.cast(options.progress, ctypes.POINTER(ctypes.c_int32))
        note = train(self, tasks, heads, results, options)
        done.append(options.progress.contents.value)
        return note

    done: list[int] = []
    monkeypatch.setattr(engine_native.Library, "train", cancel_by_progress)
    monkeypatch.setenv("EC_EMULATION_SPEED", str(speed))
    task = make_task(n=80, dim=300)
    heads = [(replace(SPEC, hidden=300, seed=seed), 0) for seed in range(7)]
    outcomes = emulation.train([task], heads, Options(batch_size=16, epochs=2), None)
    assert done == [rows]
    assert {outcome.status for outcome in outcomes} == {"cancelled"}


def test_bad_arguments(cuda: NativeEngine) -> None:
    task = make_task()
    task.train.rows[7] = 10**6
    with pytest.raises(EmbedcacheError, match="a row number outside x"):
        cuda.train([task], [(SPEC, 0)], Options(), None)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_nvcc_compiles_it_without_warnings_and_spills(tmp_path: Path) -> None:
    library = tmp_path / "_heads_cuda.so"
    flags = ["-std=c++17", "-O3", "-cudart", "static", "-gencode=arch=compute_90a,code=sm_90a", "-Xptxas", "-v"]
    flags += ["-Werror", "all-warnings", "-Xcompiler", "-fPIC,-Wall,-Wextra,-fvisibility=hidden", "--shared"]
    command = ["nvcc", *flags, str(CUDA / "heads.cu"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    spills = re.findall(r"(\d+) bytes spill stores", done.stderr)
    assert len(spills) >= 4 and set(spills) == {"0"}, done.stderr

    loaded = ctypes.CDLL(str(library))
    loaded.ec_last_error.restype = ctypes.c_char_p
    if loaded.ec_device_count() == 0:
        assert b"NVIDIA driver" in loaded.ec_last_error() or b"CUDA" in loaded.ec_last_error()
