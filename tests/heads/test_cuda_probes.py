"""The CUDA engine's kernel for linear probes on the host: one or some of a task and seed to a block (probes.cuh)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Outcome, Task
from tests.heads import float64_reference as reference
from tests.heads.cuda_emulation import (
    SPEC,
    assert_same,
    check,
    check_diverging,
    make_task,
    of_kind,
    sampled,
    standardized,
    started,
    weighted,
)

PROBE = replace(SPEC, hidden=0)
CASES = {
    "eight classes, standardised float16": (standardized(make_task(classes=8, dtype=np.float16)), PROBE, 16),
    "one column": (make_task(dim=1), PROBE, 7),
    "batch of one": (make_task(n=20), PROBE, 1),
    "batch over n": (make_task(n=30, classes=2), replace(PROBE, label_smoothing=0.2), 1000),
    "batch of 64": (make_task(n=150, classes=2), PROBE, 64),
    "batch of 39": (make_task(n=100, dim=70), PROBE, 39),
    "three columns a thread": (make_task(dim=600, n=40, classes=2), replace(PROBE, lr=1e-3), 9),
    "no room for two batches": (make_task(dim=1000, n=70, classes=2), replace(PROBE, lr=1e-3), 32),
    "hardly room for one": (make_task(dim=1400, n=70, classes=2), replace(PROBE, lr=1e-3), 32),
    "many classes, hardly room for one": (make_task(dim=1000, n=90, classes=8), replace(PROBE, lr=1e-3), 44),
    "weights of its own": (make_task(classes=5), replace(PROBE, class_weight=(2.0, 0.5, 1.0, 3.0, 0.1)), 16),
    "weights, smoothing": (weighted(make_task(n=100, classes=4)), replace(PROBE, label_smoothing=0.2), 36),
    "focal, smoothing": (weighted(make_task(classes=7)), replace(PROBE, loss="focal", label_smoothing=0.1), 16),
    "weighted rows": (sampled(weighted(make_task(n=100, classes=4))), replace(PROBE, label_smoothing=0.2), 36),
    "weighted rows of values": (sampled(of_kind("regression", make_task(classes=2))), PROBE, 16),
    "started": (started(make_task(classes=4), 0), PROBE, 16),
    "labels": (weighted(of_kind("multilabel", make_task(classes=6))), replace(PROBE, label_smoothing=0.1), 16),
    "values": (of_kind("regression", make_task(classes=2)), PROBE, 16),
    "schedule": (make_task(), replace(PROBE, schedule="cosine", warmup=0.3, betas=(0.8, 0.95), eps=1e-6), 16),
    "no validation": (make_task(val=0, classes=2), PROBE, 16),
}
QUICK = (
    "weighted rows",
    "started",
    "eight classes, standardised float16",
    "no room for two batches",
    "weights, smoothing",
    "labels",
    "values",
)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_against_float64(cuda: NativeEngine, name: str) -> None:
    task, spec, batch_size = CASES[name]
    (outcome,) = cuda.train([task], [(spec, 0)], Options(batch_size=batch_size, epochs=3), None)
    check(outcome, task, spec, batch_size, 3)


def bank() -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Probes that share rows and those that do not: of two tasks, by one, two and four to a block."""
    tasks = [make_task(n=50, classes=2), weighted(make_task(n=45, classes=3, seed=1))]
    settings = [
        *({"lr": 1e-2}, {"lr": 1e-3, "class_weight": "balanced"}, {"loss": "focal"}, {"label_smoothing": 0.1}),
        *({"schedule": "linear"}, {"weight_decay": 0.5}, {"seed": 8}),
    ]
    return tasks, [(replace(PROBE, **chosen), task) for task in range(2) for chosen in settings]


def train(engine: NativeEngine, heads: list[int] | None = None, **options: Any) -> list[Outcome]:
    tasks, all_heads = bank()
    chosen = all_heads if heads is None else [all_heads[i] for i in heads]
    return engine.train(tasks, chosen, Options(**{"batch_size": 16, "epochs": 2, **options}), None)


def assert_all_same(one: list[Outcome], other: list[Outcome]) -> None:
    for a, b in zip(one, other, strict=True):
        assert_same(a, b)


def test_alone_and_together_to_the_bit(cuda: NativeEngine) -> None:
    tasks, heads = bank()
    together = train(cuda, epochs=3)
    for outcome, (spec, task) in zip(together, heads, strict=True):
        check(outcome, tasks[task], spec, 16, 3)
    for i in (0, 1, 6, 9, len(heads) - 1):
        assert_same(train(cuda, [i], epochs=3)[0], together[i])


def test_neither_threads_nor_ends_of_launches_change_a_bit(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = train(emulation)
    for variable in ("EC_EMULATION_BACKWARDS", "EC_EMULATION_SPEED"):  # so slow that a step is a launch
        with monkeypatch.context() as patch:
            patch.setenv(variable, "1")
            assert_all_same(train(emulation), expected)


def test_a_device_without_clusters_takes_the_plain_kernel(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose sums have another order: that shows who trained the probes. In TF32 too they are float32."""
    expected = train(emulation, [0, 1])
    assert_all_same(train(emulation, [0, 1], compute="tf32"), expected)
    monkeypatch.setenv("EC_EMULATION_CLUSTER", "0")
    for one, other in zip(train(emulation, [0, 1]), expected, strict=True):
        np.testing.assert_allclose(one.train_loss, other.train_loss, rtol=1e-5)
        assert (one.weights["w2"] != other.weights["w2"]).any()


def test_a_probe_that_diverges_touches_no_other_of_its_block(cuda: NativeEngine) -> None:
    check_diverging(cuda, make_task(classes=2), [replace(PROBE, lr=lr) for lr in (1e-3, 1e30, 3e-3)])


@st.composite
def drawn(draw: Any) -> tuple[Task, HeadSpec, int]:
    kind, dim = draw(st.sampled_from(KINDS)), draw(st.one_of(st.integers(1, 140), st.integers(500, 1536)))
    most = 8 if dim < 900 else 2
    classes = draw(st.integers(2 if kind == "classification" else 1, most))
    n = draw(st.integers(9, 90))
    task = make_task(n, dim, classes, draw(st.sampled_from([np.float16, np.float32])), val=9)
    task = task if kind == "classification" else of_kind(kind, task)
    task = weighted(task) if kind != "regression" and draw(st.booleans()) else task
    spec = replace(
        PROBE,
        lr=1e-3,
        seed=draw(st.integers(0, 2**64 - 1)),
        loss="nll" if kind == "regression" else draw(st.sampled_from(["nll", "focal"])),
        label_smoothing=0.0 if kind == "regression" else draw(st.sampled_from([0.0, 0.1])),
        schedule=draw(st.sampled_from(["constant", "linear", "cosine"])),
    )
    return task, spec, draw(st.integers(1, min(64, n - 1)))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=drawn())
def test_any_shape(emulation: NativeEngine, case: tuple[Task, HeadSpec, int]) -> None:
    task, spec, batch_size = case
    heads = [(replace(spec, lr=lr), 0) for lr in (1e-3, 2e-3)]
    outcomes = emulation.train([task], heads, Options(batch_size=batch_size, epochs=2), None)
    for outcome, (one, _) in zip(outcomes, heads, strict=True):
        expected = reference.train(task, one, batch_size, 2)
        best = int(np.argmin(expected.val_loss))
        assert (outcome.status, outcome.best_epoch) == ("ok", best)
        np.testing.assert_allclose(outcome.train_loss, expected.train_loss, rtol=1e-5)
        np.testing.assert_allclose(outcome.val_loss, expected.val_loss, rtol=1e-5)
        # Gradients of biases all but cancel where those start, and AdamW divides them by their own size.
        for name, way in (("w2", 2e-5), ("b2", 1e-3)):
            weights, reached, initial = (
                {name: w[name]} for w in (outcome.weights, expected.of_epoch[best], expected.initial)
            )
            assert reference.distance(weights, reached, initial) < way, name
    assert_same(emulation.train([task], heads[1:], Options(batch_size=batch_size, epochs=2), None)[0], outcomes[1])
