"""The CUDA engine's own source, compiled for the host (csrc/cuda/block.cuh) and measured against float64.

Shows that the kernels' arithmetic, indexing and phases are right and that the host side of the engine is; what only a
GPU can show (barriers, launches, copies, speed) it does not. With sanitizers:
EMBEDCACHE_CXXFLAGS="-fsanitize=address,undefined" LD_PRELOAD="$(gcc -print-file-name=libasan.so)" pytest THIS_FILE
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import float64_reference as reference
import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads import native
from embedcache.heads.bank import Options, Outcome, Task, View, standardize_stats
from embedcache.heads.spec import HeadSpec

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> native.NativeEngine:
    library = tmp_path_factory.mktemp("emulation") / "_heads_cuda.so"
    flags = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    flags += os.environ.get("EMBEDCACHE_CXXFLAGS", "").split()
    source = ["-DEC_HOST_EMULATION", "-x", "c++", str(CUDA / "heads.cu"), "-o", str(library)]
    subprocess.run([*str(COMPILER).split(), *flags, *source], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_path", lambda kind: library)
        patch.setattr(native, "_libraries", {})
        return native.NativeEngine("cuda", 0)


def make_view(rng: np.random.Generator, n: int, dim: int, classes: int, dtype: type) -> View:
    """n scattered rows of a longer, wider matrix, so that strides and row numbers matter; labels that can be learnt."""
    x = rng.normal(size=(n + 9, dim + 5)).astype(dtype)[:, 2 : dim + 2]
    y = (x[:, :3].astype(np.float64).sum(axis=1) * 2).round().astype(np.int64) % classes
    y[:3] = -1  # these rows are never used: so their labels may be anything
    return View(x, y.astype(np.int32), rng.permutation(np.arange(3, n + 9))[:n].astype(np.int64))


def make_task(
    n: int = 90, dim: int = 21, classes: int = 3, dtype: type = np.float32, val: int = 40, seed: int = 0
) -> Task:
    rng = np.random.default_rng(seed)
    train = make_view(rng, n, dim, classes, dtype)
    return Task(train, make_view(rng, val, dim, classes, dtype) if val else None, classes)


def standardized(task: Task) -> Task:
    shifted = task.train.x * np.float32(3) + np.float32(2)
    task = replace(task, train=replace(task.train, x=shifted))
    mean, inv_std = standardize_stats(shifted, task.train.rows)
    return replace(task, mean=mean, inv_std=inv_std)


def weighted(task: Task) -> Task:
    return replace(task, class_weight=np.linspace(0.3, 2.0, task.classes).astype(np.float32))


def check(outcome: Outcome, task: Task, spec: HeadSpec, batch_size: int, epochs: int) -> None:
    """Losses of all epochs and the weights of the best one, as the float64 reference has them."""
    expected = reference.train(task, spec, batch_size, epochs)
    assert (outcome.status, outcome.epochs_run) == ("ok", epochs)
    np.testing.assert_allclose(outcome.train_loss, expected.train_loss, rtol=1e-5)
    best = epochs - 1
    if task.val is None:
        assert np.isnan(outcome.val_loss).all() and np.isnan(outcome.val_accuracy).all()
    else:
        best = int(np.argmin(expected.val_loss))
        np.testing.assert_allclose(outcome.val_loss, expected.val_loss, rtol=1e-5)
        np.testing.assert_allclose(outcome.val_accuracy, expected.val_accuracy, atol=1e-12)
    assert outcome.best_epoch == best
    assert reference.distance(outcome.weights, expected.of_epoch[best], expected.initial) < 2e-5


SPEC = HeadSpec(hidden=37, lr=3e-3, dropout=0.0, weight_decay=0.02, seed=5)
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
    "standardised": (standardized(make_task()), SPEC, 16),
    "standardised probe, weights": (standardized(weighted(make_task())), replace(SPEC, hidden=0), 16),
    "no validation": (make_task(val=0), SPEC, 16),
    "long validation": (make_task(val=300), SPEC, 16),
    "other betas, eps": (make_task(), replace(SPEC, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.0), 16),
}


@pytest.mark.parametrize("name", CASES)
def test_against_float64(engine: native.NativeEngine, name: str) -> None:
    task, spec, batch_size = CASES[name]
    (outcome,) = engine.train([task], [(spec, 0)], Options(batch_size=batch_size, epochs=3), None)
    check(outcome, task, spec, batch_size, 3)


def mixed_bank() -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    shared = make_task(n=80)
    fold = replace(shared, train=replace(shared.train, rows=shared.train.rows[:50]))
    tasks = [shared, fold, make_task(dim=12, classes=5, dtype=np.float16), weighted(make_task(classes=2, val=0))]
    specs = [replace(SPEC, hidden=h, dropout=0.2, seed=s) for h in (0, 20, 70) for s in (1, 2)]
    return tasks, [(spec, task) for task in range(len(tasks)) for spec in specs]


def assert_same(one: Outcome, other: Outcome) -> None:
    assert (one.status, one.best_epoch, one.epochs_run) == (other.status, other.best_epoch, other.epochs_run)
    for name in ("train_loss", "val_loss", "val_accuracy"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(weight, other.weights[name])


def test_many_heads_of_several_tasks(engine: native.NativeEngine) -> None:
    tasks, heads = mixed_bank()
    told: list[tuple[int, int]] = []
    outcomes = engine.train(tasks, heads, Options(batch_size=16, epochs=3), lambda *done: told.append(done))
    for outcome, (spec, task) in zip(outcomes, heads, strict=True):
        check(outcome, tasks[task], spec, 16, 3)
    total = sum(len(tasks[task].train.rows) for _, task in heads) * 3
    assert told[-1] == (total, total)


def test_a_head_alone_and_among_others_to_the_bit(engine: native.NativeEngine) -> None:
    tasks, heads = mixed_bank()
    options = Options(batch_size=16, epochs=2)
    together = engine.train(tasks, heads, options, None)
    for i in (0, 5, len(heads) - 1):
        assert_same(engine.train(tasks, [heads[i]], options, None)[0], together[i])


def test_threads_of_a_phase_do_not_touch_each_other(
    engine: native.NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of threads and blocks within a phase changes no bit: on a GPU it is any order."""
    tasks, heads = mixed_bank()
    forwards = engine.train(tasks, heads, Options(batch_size=16, epochs=2), None)
    monkeypatch.setenv("EC_EMULATION_BACKWARDS", "1")
    backwards = engine.train(tasks, heads, Options(batch_size=16, epochs=2), None)
    for one, other in zip(forwards, backwards, strict=True):
        assert_same(one, other)


def test_heads_that_do_not_fit_together_go_in_groups(
    engine: native.NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, heads = mixed_bank()
    together = engine.train(tasks, heads, Options(batch_size=16, epochs=2), None)
    monkeypatch.setenv("EC_EMULATION_MEMORY", "230000")
    for one, other in zip(engine.train(tasks, heads, Options(batch_size=16, epochs=2), None), together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize(("memory", "what"), [(5000, "X"), (40000, "head 0")])
def test_no_room_at_all(engine: native.NativeEngine, monkeypatch: pytest.MonkeyPatch, memory: int, what: str) -> None:
    monkeypatch.setenv("EC_EMULATION_MEMORY", str(memory))
    with pytest.raises(EmbedcacheError, match=f"no room for {what}: 1 MiB needed"):
        engine.train([make_task()], [(replace(SPEC, hidden=500), 0)], Options(epochs=1), None)


def test_early_stop(engine: native.NativeEngine) -> None:
    task = make_task(n=40)
    heads = [(replace(SPEC, lr=lr), 0) for lr in (0.05, 1e-6)]
    hot, cold = engine.train([task], heads, Options(batch_size=8, epochs=30, early_stop=2), None)
    expected = reference.train(task, heads[0][0], 8, 30)
    best = next(e for e in range(30) if min(expected.val_loss[e + 1 : e + 3]) >= min(expected.val_loss[: e + 1]))
    assert (hot.status, hot.best_epoch, hot.epochs_run) == ("ok", best, best + 3)
    assert np.isnan(hot.train_loss[best + 3 :]).all() and not np.isnan(hot.val_loss[: best + 3]).any()
    assert reference.distance(hot.weights, expected.of_epoch[best], expected.initial) < 1e-3
    assert cold.epochs_run == 30


def test_a_head_that_diverges_touches_no_other(engine: native.NativeEngine) -> None:
    task = make_task()
    heads = [(replace(SPEC, lr=lr, seed=i), 0) for i, lr in enumerate((1e-3, 1e30, 3e-3))]
    options = Options(batch_size=16, epochs=3)
    good, bad, other = engine.train([task], heads, options, None)
    assert (bad.status, bad.best_epoch, bad.epochs_run) == ("diverged", -1, 0)
    assert np.isnan(bad.train_loss).all() and not any(weight.any() for weight in bad.weights.values())
    for i, outcome in ((0, good), (2, other)):
        assert_same(outcome, engine.train([task], [heads[i]], options, None)[0])


def test_progress_and_cancel(engine: native.NativeEngine) -> None:
    """Cancelled in the middle: the finished epochs and their best weights stay."""
    seen = threading.Event()

    def stop(done: int, total: int) -> None:
        if 0 < done < total and not seen.is_set():
            seen.set()
            raise KeyboardInterrupt

    task = make_task(n=200)
    heads = [(replace(SPEC, seed=seed), 0) for seed in range(4)]
    outcomes = engine.train([task], heads, Options(batch_size=16, epochs=2000), stop)
    assert seen.is_set()
    for outcome in outcomes:
        assert outcome.status == "cancelled" and 0 < outcome.epochs_run < 2000
        assert outcome.best_epoch >= 0 and outcome.weights["w1"].any()
        assert np.isnan(outcome.train_loss[outcome.epochs_run :]).all()


def test_bad_arguments(engine: native.NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    task.train.rows[7] = 10**6
    with pytest.raises(EmbedcacheError, match="a row number is outside x"):
        engine.train([task], [(SPEC, 0)], Options(), None)
    monkeypatch.setitem(native.COMPUTE, "tf32", 2)
    with pytest.raises(EmbedcacheError, match="float32 only"):
        engine.train([make_task()], [(SPEC, 0)], Options(compute="tf32"), None)


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
