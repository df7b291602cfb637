"""The CUDA engine's TF32 kernels on the host: a head per cluster, and stacked products for large batches.

Measured against the float64 reference with the operands of the first layer's products rounded to TF32, as the tensor
cores want them.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from embedcache.heads.engine import EngineWarning
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Task
from tests.heads.cuda_emulation import (
    SPEC,
    alone_and_backwards,
    assert_same,
    check,
    make_task,
    mixed_bank,
    of_kind,
    sampled,
    standardized,
    started,
    stopped_diverged_and_slow,
    weighted,
)

SMALL = replace(SPEC, hidden=40)
CASES = {
    "one block": (make_task(), replace(SPEC, hidden=20), 16),
    "two blocks, ragged": (make_task(), replace(SPEC, hidden=37), 16),
    "sixteen blocks": (make_task(n=70), replace(SPEC, hidden=500), 32),
    "batch of one": (make_task(n=20), SMALL, 1),
    "batch over n": (make_task(n=30), SMALL, 1000),
    "batch of 32": (make_task(n=100), SMALL, 32),
    "five classes": (make_task(classes=5), SMALL, 16),
    "several chunks": (make_task(dim=200, n=60), SMALL, 16),
    "one input, one unit": (make_task(dim=1), replace(SPEC, hidden=1), 7),
    "v in registers": (make_task(dim=600, n=40), replace(SMALL, lr=1e-3), 16),
    "all of v in registers": (make_task(dim=768, n=40), replace(SMALL, lr=1e-3), 16),
    "v beside shared memory": (make_task(dim=900, n=40), replace(SMALL, lr=1e-3), 16),
    "dropout": (make_task(), replace(SPEC, hidden=100, dropout=0.3, seed=2**63 + 12345), 16),
    "float16, dropout": (make_task(dtype=np.float16), replace(SPEC, dropout=0.1), 16),
    "standardised": (standardized(make_task()), SMALL, 16),
    "smoothing, weights": (weighted(make_task(classes=4)), replace(SMALL, label_smoothing=0.2), 16),
    "focal": (make_task(), replace(SMALL, loss="focal"), 16),
    "focal, smoothing, weights": (
        weighted(make_task(classes=4)),
        replace(SMALL, loss="focal", focal_gamma=0.5, label_smoothing=0.2),
        16,
    ),
    "focal, labels": (of_kind("multilabel", make_task()), replace(SMALL, loss="focal"), 16),
    "labels": (weighted(of_kind("multilabel", make_task())), replace(SMALL, label_smoothing=0.1), 16),
    "values": (of_kind("regression", make_task()), SMALL, 16),
    "cosine schedule, warm-up": (make_task(), replace(SMALL, schedule="cosine", warmup=0.3), 16),
    "linear schedule, other betas": (make_task(), replace(SMALL, schedule="linear", betas=(0.8, 0.95), eps=1e-6), 16),
    "weighted rows": (sampled(weighted(make_task(classes=4))), replace(SMALL, label_smoothing=0.2), 16),
    "weighted rows of labels": (sampled(of_kind("multilabel", make_task())), SMALL, 16),
    "started": (started(make_task(), 40), SMALL, 16),
    "no validation": (make_task(val=0), SMALL, 16),
    "long validation": (make_task(val=1100), SMALL, 32),
}
STACKED = {
    "ragged tiles": (make_task(n=500, dim=140, classes=3), replace(SPEC, hidden=132), 300),
    "one tile": (make_task(n=90, dim=20), replace(SPEC, hidden=36), 40),
    "many steps of depth": (make_task(n=300, dim=4), replace(SPEC, hidden=4), 150),
    "six classes": (make_task(n=90, dim=20, classes=6), replace(SPEC, hidden=36), 40),
    "50 classes": (make_task(n=200, dim=20, classes=50), replace(SPEC, hidden=36), 64),
    "dropout": (make_task(n=200, dim=20), replace(SPEC, hidden=136, dropout=0.3, seed=2**63 + 12345), 64),
    "standardised float16": (standardized(make_task(dim=24, dtype=np.float16)), replace(SPEC, hidden=36), 64),
    "labels, weights": (weighted(of_kind("multilabel", make_task(dim=20))), replace(SPEC, hidden=36), 64),
    "focal, smoothing": (make_task(dim=20, classes=9), replace(SPEC, hidden=36, loss="focal", label_smoothing=0.1), 64),
    "values, cosine": (of_kind("regression", make_task(dim=20)), replace(SPEC, hidden=36, schedule="cosine"), 64),
    "weighted rows": (sampled(make_task(n=90, dim=20, classes=6)), replace(SPEC, hidden=36), 40),
    "small batch, many classes": (make_task(dim=20, classes=9), replace(SPEC, hidden=36), 16),
    "long validation": (make_task(dim=20, n=100, val=1100), replace(SPEC, hidden=36), 64),
}


TF32 = Options(batch_size=16, epochs=3, compute="tf32")


@pytest.mark.parametrize("name", CASES)
def test_a_head_per_cluster(cuda: NativeEngine, name: str) -> None:
    task, spec, batch_size = CASES[name]
    (outcome,) = cuda.train([task], [(spec, 0)], replace(TF32, batch_size=batch_size), None)
    check(outcome, task, spec, batch_size, 3, "tf32")


@pytest.mark.parametrize("name", STACKED)
def test_stacked_products(cuda: NativeEngine, name: str) -> None:
    task, spec, batch_size = STACKED[name]
    (outcome,) = cuda.train([task], [(spec, 0)], replace(TF32, batch_size=batch_size), None)
    check(outcome, task, spec, batch_size, 3, "tf32")


def test_a_device_without_large_clusters_stacks(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task, spec = make_task(n=70, dim=20), replace(SPEC, hidden=500)
    monkeypatch.setenv("EC_EMULATION_CLUSTER", "8")
    with pytest.warns(EngineWarning, match="1 of the 1 heads .* for large batches.*clusters have at most 8 blocks"):
        (outcome,) = emulation.train([task], [(spec, 0)], TF32, None)
    check(outcome, task, spec, 16, 3, "tf32")


def test_how_many_clusters_run_at_once(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What benchmarks/heads/gpu_probe.py asks for; the emulation has one of each size that it has."""
    monkeypatch.setenv("EC_EMULATION_CLUSTER", "8")
    assert [emulation._library.active_clusters(blocks) for blocks in (1, 8, 9, 16)] == [1, 1, 0, 0]


@pytest.mark.parametrize(("clusters", "also"), [("16", "512 hidden units"), ("0", "this device has no clusters")])
def test_heads_that_no_tf32_kernel_takes_are_told(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, clusters: str, also: str
) -> None:
    """Nine outputs, and hidden units that no 16-byte copy divides: float32, with a word; a probe without one."""
    monkeypatch.setenv("EC_EMULATION_CLUSTER", clusters)
    task = make_task(n=40, dim=20, classes=9, val=0)
    specs = [replace(SPEC, hidden=h) for h in (70, 0, 38)]
    with pytest.warns(EngineWarning, match=f"^2 of the 3 heads were trained in float32, .*{also}"):
        odd, probe, other = emulation.train([task], [(spec, 0) for spec in specs], TF32, None)
    for outcome, spec in zip((odd, probe, other), specs, strict=True):
        check(outcome, task, spec, 16, 3)


@pytest.mark.parametrize("batch_size", [16, 40])
def test_what_is_as_fast_as_it_can_be_is_not_told(emulation: NativeEngine, batch_size: int) -> None:
    heads = [(replace(SPEC, hidden=hidden), 0) for hidden in (0, 40, 600)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        task = make_task(n=40, dim=20, val=0)
        emulation.train([task], heads, replace(TF32, batch_size=batch_size, epochs=1), None)
        odd = [(replace(SPEC, hidden=37), 0)]  # in float32 as it was asked for
        emulation.train([task], odd, Options(batch_size=batch_size, epochs=1), None)


def bank() -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Heads for all ways of training: of 16 rows, in clusters, stacked (9 classes), plain (9 classes, 70 units)."""
    tasks, heads = mixed_bank()
    return [*tasks, make_task(n=70, dim=20, classes=9)], [*heads, *((spec, len(tasks)) for spec, _ in heads[:6])]


def test_many_heads_of_several_tasks(cuda: NativeEngine) -> None:
    tasks, heads = bank()
    told: list[tuple[int, ...]] = []
    with pytest.warns(EngineWarning, match="^2 of the 42 heads were trained in float32"):
        outcomes = cuda.train(tasks, heads, TF32, lambda *done: told.append(done))
    for outcome, (spec, task) in zip(outcomes, heads, strict=True):
        plain = tasks[task].classes == 9 and spec.hidden % 4 > 0
        check(outcome, tasks[task], spec, 16, 3, "float32" if plain else "tf32")
    total = sum(len(tasks[task].train.rows) for _, task in heads) * 3
    assert told[-1] == (total, total, total)


@pytest.mark.parametrize("batch_size", [16, 50])
def test_order_of_threads_and_of_groups_changes_nothing(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    tasks, heads = bank()
    options = replace(TF32, batch_size=batch_size)
    together = alone_and_backwards(emulation, monkeypatch, tasks, heads, options, [4, len(heads) - 1])
    monkeypatch.setenv("EC_EMULATION_MEMORY", "700000")
    with pytest.warns(EngineWarning, match="groups"):
        grouped = emulation.train(tasks, heads, options, None)
    for one, other in zip(grouped, together, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("batch_size", [8, 40])
def test_heads_that_stop_early_or_diverge(cuda: NativeEngine, batch_size: int) -> None:
    options = Options(batch_size=batch_size, epochs=30, early_stop=2, compute="tf32")
    spec = replace(SPEC, hidden=40)
    hot, bad, cold = stopped_diverged_and_slow(cuda, make_task(n=48, dim=20), spec, options)
    assert np.isnan(hot.train_loss[hot.epochs_run :]).all() and not np.isnan(hot.val_loss[: hot.epochs_run]).any()
    assert not any(weight.any() for weight in bad.weights.values())
    assert cold.epochs_run > cold.best_epoch


@pytest.mark.parametrize("taken", ["0", "9880000"])
def test_no_room_for_x_in_tf32(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    """Then in float32, and says so; also where memory that is said to be free cannot be had."""
    task = make_task(n=400, dim=10, val=0)
    monkeypatch.setenv("EC_EMULATION_MEMORY", "200000" if taken == "0" else "10000000")
    monkeypatch.setenv("EC_EMULATION_TAKEN", taken)
    with pytest.warns(EngineWarning, match="no room for X in TF32"):
        (outcome,) = emulation.train([task], [(SPEC, 0)], TF32, None)
    check(outcome, task, SPEC, 16, 3)
