"""Large batches in bfloat16 on the host: products by four warps at once out of swizzled shared memory (wgmma).

Measured against the float64 reference with the operands of the first layer's products rounded to bfloat16, over shapes
whose rows, units, inputs and outputs fill no tile, and with hypothesis (slow).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.heads.engine import EngineWarning
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.task import Options
from tests.heads.cuda_emulation import (
    SPEC,
    alone_and_backwards,
    bank_of,
    check,
    make_task,
    of_kind,
    sampled,
    standardized,
    started,
    stopped_diverged_and_slow,
    weighted,
)

SMALL = replace(SPEC, hidden=36)
BF16 = Options(batch_size=64, epochs=2, compute="bfloat16")
CASES = {
    "two row tiles, two chunks, ragged": (make_task(n=200, dim=70), replace(SMALL, dropout=0.3), 190),
    "a last batch of one row": (make_task(n=71, dim=8, val=0), SMALL, 70),
    "two inputs, one unit, batch over n": (make_task(n=40, dim=2), replace(SPEC, hidden=1), 1000),
    "a small batch, eight classes": (make_task(n=40, dim=20, classes=8), SMALL, 16),
    "smoothing, weights": (weighted(make_task(dim=20, classes=4)), replace(SMALL, label_smoothing=0.2), 50),
    "weighted rows, started": (started(sampled(make_task(n=90, dim=20)), 36), SMALL, 50),
    "standardised float16": (standardized(make_task(dim=24, dtype=np.float16)), SMALL, 50),
    "labels, weights, focal": (weighted(of_kind("multilabel", make_task(dim=20))), replace(SMALL, loss="focal"), 50),
}
SLOW = {
    "three row tiles": (make_task(n=300, dim=130), replace(SPEC, hidden=100, dropout=0.2), 300),
    "two unit tiles": (make_task(n=150, dim=66), replace(SPEC, hidden=300, dropout=0.5, seed=2**63 + 5), 140),
    "four unit tiles": (make_task(n=90, dim=20), replace(SPEC, hidden=1000), 45),
    "many chunks": (make_task(n=64, dim=600), replace(SMALL, lr=1e-3), 64),
    "a long batch": (make_task(n=900, dim=10), SMALL, 700),
    "values, cosine, warm-up": (
        of_kind("regression", make_task(dim=20)),
        replace(SMALL, schedule="cosine", warmup=0.3),
        50,
    ),
}


def check_head(cuda: NativeEngine, case: tuple[Any, Any, int], turned: int = 0) -> None:
    task, spec, batch_size = case
    (outcome,) = cuda.train([task], [(spec, 0)], replace(BF16, batch_size=batch_size), None)
    check(outcome, task, spec, batch_size, 2, "bfloat16", turned)


@pytest.mark.parametrize("name", CASES)
def test_large_batches(cuda: NativeEngine, name: str) -> None:
    check_head(cuda, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_large_batches_of_more_tiles(cuda: NativeEngine, name: str) -> None:
    check_head(cuda, SLOW[name])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_large_batches_of_any_shape(cuda: NativeEngine, data: st.DataObject) -> None:
    """The same shapes each time: who looks for a failure long enough finds one, a head of whose units half have turned
    (see check()). Heads of few units are among the cases above."""

    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    n, dim, classes = draw(34, 300), 2 * draw(1, 70), draw(2, 8)
    task = make_task(n=n, dim=dim, classes=classes, val=draw(0, 1) * 30, seed=draw(0, 99))
    if data.draw(st.booleans()):
        task = weighted(task)
    spec = replace(
        SPEC,
        hidden=draw(8, 300),
        dropout=data.draw(st.sampled_from([0.0, 0.3])),
        label_smoothing=data.draw(st.sampled_from([0.0, 0.1])),
        lr=1e-3,
        seed=draw(0, 2**64 - 1),
    )
    check_head(cuda, (task, spec, draw(33, n)), turned=2)


def bank() -> tuple[list[Any], list[Any]]:
    """Heads of several shapes and both tasks, more than the emulation trains at a time; some in clusters' reach."""
    return bank_of([make_task(n=60, dim=12), weighted(make_task(n=80, dim=18, classes=5, val=0))])


def test_order_of_threads_and_of_groups_changes_nothing(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, heads = bank()
    together = alone_and_backwards(emulation, monkeypatch, tasks, heads, BF16, [3])
    for (spec, task), outcome in zip(heads[1:3], together[1:3], strict=True):
        check(outcome, tasks[task], spec, 64, 2, "bfloat16")


def test_heads_that_stop_early_or_diverge(cuda: NativeEngine) -> None:
    options = replace(BF16, batch_size=40, epochs=12, early_stop=2)
    *_, cold = stopped_diverged_and_slow(cuda, make_task(n=48, dim=30), SMALL, options)
    assert cold.epochs_run == 12


def test_what_is_trained_in_float32_is_told(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Odd numbers of inputs, more than 8 outputs or 1,024 units, and devices with small clusters or little memory."""
    for task, hidden in ((make_task(dim=21), 20), (make_task(dim=20, classes=9), 20), (make_task(dim=4), 1025)):
        spec = replace(SPEC, hidden=hidden)
        with pytest.warns(EngineWarning, match="^1 of the 1 heads were trained in float32, which is slower: bfloat16"):
            (outcome,) = emulation.train([task], [(spec, 0)], BF16, None)
        check(outcome, task, spec, 64, 2)
    task = make_task(dim=20)
    monkeypatch.setenv("EC_EMULATION_CLUSTER", "1")
    with pytest.warns(EngineWarning, match="hidden units: this device's clusters have at most 1 blocks"):
        (outcome,) = emulation.train([task], [(SMALL, 0)], BF16, None)
    check(outcome, task, SMALL, 64, 2)
    monkeypatch.delenv("EC_EMULATION_CLUSTER")
    monkeypatch.setenv("EC_EMULATION_MEMORY", "100000")
    task = make_task(n=400, dim=40, val=0)
    with pytest.warns(EngineWarning, match="no room for X in bfloat16"):
        (outcome,) = emulation.train([task], [(replace(SPEC, hidden=3), 0)], BF16, None)
    check(outcome, task, replace(SPEC, hidden=3), 64, 2)
