"""The CUDA engine's source compiled for the host (csrc/heads/cuda/block.cuh), problems for it and what to expect."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedcache.heads import engine_native
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Outcome, Task, View, WarmStart, standardize_stats, weight_shapes
from tests.heads import float64_reference as reference
from tests.heads.engines import give_sample_weights

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "heads" / "cuda"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")

SPEC = HeadSpec(hidden=37, lr=3e-3, dropout=0.0, weight_decay=0.02, seed=5)


# Names a library that is built already, as with a sanitizer, under whose runtime the compiler is many times slower.
GIVEN = "EMBEDCACHE_EMULATION"
# memset and memcpy must stay calls: ThreadSanitizer does not see the 16-byte moves that the compiler makes of them.
THREAD_FLAGS = ("-g1", "-fno-builtin", "-fsanitize=thread")


def build_library(folder: Path, flags: Sequence[str] = (), source: Path = CUDA) -> Path:
    """The engine of the folder ``source`` compiled for the host."""
    library = folder / f"_heads_cuda{len(list(folder.iterdir()))}.so"
    always = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread", "-Wall", "-Wextra", "-Werror"]
    what = ["-DEC_HOST_EMULATION", "-x", "c++", str(source / "heads.cu"), "-o", str(library)]
    subprocess.run([*str(COMPILER).split(), *always, *flags, *what], check=True)
    return library


def open_library(library: Path) -> engine_native.NativeEngine:
    """The engine on the host, ready to train."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_native, "_path", lambda kind: library)
        patch.setattr(engine_native, "_libraries", {})
        return engine_native.NativeEngine("cuda", 0)


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


def of_kind(kind: str, task: Task) -> Task:
    """The same task with several labels, or several values, a row instead of a class."""

    def target(view: View) -> View:
        direction = np.random.default_rng(1).normal(size=(view.x.shape[1], task.classes))
        y = (view.x.astype(np.float64) @ direction / np.sqrt(view.x.shape[1])).astype(np.float32)
        y = (y > 0.4).astype(np.float32) if kind == "multilabel" else y
        y[:3] = np.nan  # of rows that are never used
        return replace(view, y=y)

    return replace(task, train=target(task.train), val=target(task.val) if task.val else None, kind=kind)


def standardized(task: Task) -> Task:
    shifted = task.train.x * np.float32(3) + np.float32(2)
    task = replace(task, train=replace(task.train, x=shifted))
    mean, inv_std = standardize_stats(shifted, task.train.rows)
    return replace(task, mean=mean, inv_std=inv_std)


def weighted(task: Task) -> Task:
    return replace(task, class_weight=np.linspace(0.3, 2.0, task.classes).astype(np.float32))


def sampled(task: Task) -> Task:
    """With weights of the rows, some of them 0."""
    task = replace(task, train=replace(task.train), val=replace(task.val) if task.val else None)
    give_sample_weights(task)
    return task


def started(task: Task, hidden: int) -> Task:
    """With weights that its heads start from, all but the last output's."""
    shapes = weight_shapes(HeadSpec(hidden=hidden), task.train.x.shape[1], task.classes)
    rng = np.random.default_rng(1)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    return replace(task, start=WarmStart(weights, np.arange(task.classes) < task.classes - 1))


def without_units(
    count: int, weights: dict[str, np.ndarray], expected: dict[str, np.ndarray], initial: dict[str, np.ndarray]
) -> list[dict[str, np.ndarray]]:
    """All three without the ``count`` hidden units whose weights are the furthest from what is expected."""
    off = ((weights["w1"].astype(np.float64) - expected["w1"]) ** 2).sum(1)
    kept = np.sort(np.argsort(off)[: max(1, len(off) - count)])
    cut = {"w1": np.s_[kept], "b1": np.s_[kept], "w2": np.s_[:, kept], "b2": np.s_[:]}
    return [{name: values[cut[name]] for name, values in one.items()} for one in (weights, expected, initial)]


def check(
    outcome: Outcome,
    task: Task,
    spec: HeadSpec,
    batch_size: int,
    epochs: int,
    compute: str = "float32",
    turned: int = 0,
) -> None:
    """Scores of all epochs and the weights of the best one, as the float64 reference has them.

    turned: hidden units that may have gone another way, and are left out: a pre-activation within rounding of zero
    turns a ReLU, and a gradient within rounding of the middle between two numbers of bfloat16 becomes the other one.
    One of 150 random shapes has such a unit, on any device, and the others feel it a little.

    In TF32 a float32 rounding error pushes a few operands over the edge between two TF32 numbers, a GPU's tensor cores
    cut off the sums' last bits, and validation is in float32 where the stacked kernels do not fit the shapes.
    """
    loss, val_loss, way = (1e-5, 1e-5, 2e-5) if compute == "float32" else (2e-5, 1e-4, 1.5e-4)
    expected = reference.train(task, spec, batch_size, epochs, compute)
    assert (outcome.status, outcome.epochs_run) == ("ok", epochs)
    np.testing.assert_allclose(outcome.train_loss, expected.train_loss, rtol=loss)
    best = epochs - 1
    if task.val is None:
        for scores in (outcome.val_loss, outcome.val_accuracy, outcome.val_macro_f1):
            assert np.isnan(scores).all()
    else:
        best = int(np.argmin(expected.val_loss))
        np.testing.assert_allclose(outcome.val_loss, expected.val_loss, rtol=val_loss)
        row = 0.0 if compute == "float32" else 1.0 / len(task.val.rows)  # of two logits that are all but equal
        np.testing.assert_allclose(outcome.val_accuracy, expected.val_accuracy, rtol=0, atol=row + 1e-12)
        np.testing.assert_allclose(outcome.val_macro_f1, expected.val_macro_f1, rtol=0, atol=row + 1e-12)
    assert outcome.best_epoch == best
    if turned:
        compared = without_units(turned, outcome.weights, expected.of_epoch[best], expected.initial)
        assert reference.distance(*compared) < 2 * way
    else:
        assert reference.distance(outcome.weights, expected.of_epoch[best], expected.initial) < way


def assert_same(one: Outcome, other: Outcome) -> None:
    """To the bit."""
    assert (one.status, one.best_epoch, one.epochs_run) == (other.status, other.best_epoch, other.epochs_run)
    for name in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name, weight in one.weights.items():
        np.testing.assert_array_equal(weight, other.weights[name])


def alone_and_backwards(
    emulation: engine_native.NativeEngine,
    monkeypatch: pytest.MonkeyPatch,
    tasks: list[Task],
    heads: list[tuple[HeadSpec, int]],
    options: Options,
    some: Sequence[int],
) -> list[Outcome]:
    """What a bank comes to: to the same bits where ``some`` train alone, and where threads and blocks run backwards."""
    together = emulation.train(tasks, heads, options, None)
    for i in some:
        assert_same(emulation.train(tasks, [heads[i]], options, None)[0], together[i])
    with monkeypatch.context() as patch:
        patch.setenv("EC_EMULATION_BACKWARDS", "1")
        for one, other in zip(emulation.train(tasks, heads, options, None), together, strict=True):
            assert_same(one, other)
    return together


def stopped_diverged_and_slow(
    engine: engine_native.NativeEngine, task: Task, spec: HeadSpec, options: Options
) -> list[Outcome]:
    """Of a head that stops early, one that diverges and one that hardly learns; the first and last as if alone."""
    heads = [(replace(spec, lr=lr, seed=seed), 0) for lr, seed in ((0.05, 5), (1e30, 1), (1e-6, 5))]
    outcomes = engine.train([task], heads, options, None)
    hot, bad, cold = outcomes
    assert hot.status == "ok" and hot.epochs_run == hot.best_epoch + options.early_stop + 1 < options.epochs
    assert (bad.status, bad.best_epoch, bad.epochs_run) == ("diverged", -1, 0)
    assert cold.status == "ok"
    for i in (0, 2):
        assert_same(outcomes[i], engine.train([task], [heads[i]], options, None)[0])
    return outcomes


def check_diverging(engine: engine_native.NativeEngine, task: Task, specs: Sequence[HeadSpec]) -> None:
    """The second of three heads diverges and touches no other."""
    heads, options = [(spec, 0) for spec in specs], Options(batch_size=16, epochs=3)
    good, bad, other = engine.train([task], heads, options, None)
    assert (bad.status, bad.best_epoch, bad.epochs_run) == ("diverged", -1, 0)
    assert np.isnan(bad.train_loss).all() and not any(weight.any() for weight in bad.weights.values())
    for i, outcome in ((0, good), (2, other)):
        assert_same(outcome, engine.train([task], [heads[i]], options, None)[0])


def bank_of(tasks: list[Task]) -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Four heads of several widths on two tasks: more than the emulation trains at a time."""
    shapes = ((20, 0), (70, 1), (260, 0), (36, 1))
    return tasks, [(replace(SPEC, hidden=h, dropout=0.2, seed=s), task) for s, (h, task) in enumerate(shapes)]


def mixed_bank() -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Heads of many shapes on tasks of every kind."""
    shared = make_task(n=80)
    fold = replace(shared, train=replace(shared.train, rows=shared.train.rows[:50]))
    tasks = [
        *(shared, fold, make_task(dim=12, classes=5, dtype=np.float16), weighted(make_task(classes=2, val=0))),
        *(of_kind("multilabel", make_task(n=60)), of_kind("regression", make_task(n=60, classes=1))),
    ]
    specs = [replace(SPEC, hidden=h, dropout=0.2, seed=s) for h in (0, 20, 70) for s in (1, 2)]
    return tasks, [(spec, task) for task in range(len(tasks)) for spec in specs]
