"""Float32 on the CUDA engine's tensor cores, in batches that no cluster takes, on the host: each operand of the first
layer's products is the sum of two in TF32 (csrc/heads/cuda/split.cuh).

Measured against the float64 reference by float32's own tolerances. The emulated tensor cores cut off the sums' last
bits, as the real ones do: long sums would drift by more than these tolerances if those cores alone added them up.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedcache.heads.engine import EngineWarning
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Outcome, Task
from tests.heads import float64_reference as reference
from tests.heads.cuda_emulation import (
    SPEC,
    alone_and_backwards,
    bank_of,
    check,
    make_task,
    of_kind,
    standardized,
    stopped_diverged_and_slow,
    weighted,
)

FLOAT = Options(batch_size=64, epochs=2)
SMALL = replace(SPEC, hidden=36)
# A larger eps: AdamW's first steps would make a full step of whatever rounding leaves of a gradient that is all but 0,
# in any float32 engine.
SMOOTH = replace(SPEC, eps=1e-4, lr=1e-3)
CASES = {
    "ragged tiles": (make_task(n=180, dim=140, classes=3), replace(SPEC, hidden=132), 150),
    "one input quad, one unit quad": (make_task(n=100, dim=4), replace(SPEC, hidden=4), 50),
    "batch over n": (make_task(n=50, dim=20), SMALL, 1000),
    "a last batch of one row": (make_task(n=71, dim=8), SMALL, 70),
    "a small batch, many classes": (make_task(dim=20, classes=9), SMALL, 16),
    "50 classes": (make_task(n=100, dim=20, classes=50), SMALL, 64),
    "dropout": (make_task(n=100, dim=20), replace(SPEC, hidden=136, dropout=0.3, seed=2**63 + 12345), 64),
    "standardised float16": (standardized(make_task(dim=24, dtype=np.float16)), replace(SMOOTH, hidden=36), 64),
    "labels, weights": (weighted(of_kind("multilabel", make_task(dim=20))), SMALL, 64),
    "focal, smoothing": (make_task(dim=20), replace(SMALL, loss="focal", label_smoothing=0.1), 64),
    "values, cosine": (of_kind("regression", make_task(dim=20)), replace(SMALL, schedule="cosine"), 64),
    "long validation": (make_task(dim=20, n=100, val=1100), SMALL, 64),
    "no validation": (make_task(dim=20, n=100, val=0), SMALL, 64),
}
LONG = {
    "over rows": (make_task(n=1100, dim=20), replace(SMOOTH, hidden=36), 1024),
    "over inputs": (make_task(n=70, dim=768), replace(SMOOTH, hidden=36), 64),
}
SLOW = {
    "over rows and inputs": (make_task(n=2100, dim=400), replace(SMOOTH, hidden=132), 1024),
    "three row tiles": (make_task(n=300, dim=260), replace(SMOOTH, hidden=300, dropout=0.2), 290),
}


def check_head(cuda: NativeEngine, case: tuple[Task, HeadSpec, int], turned: int = 0) -> Outcome:
    """A head that is trained as it should be, and without a word: nothing about it is slower than it could be."""
    task, spec, batch_size = case
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        (outcome,) = cuda.train([task], [(spec, 0)], replace(FLOAT, batch_size=batch_size), None)
    check(outcome, task, spec, batch_size, 2, turned=turned)
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_against_float64(cuda: NativeEngine, name: str) -> None:
    check_head(cuda, CASES[name])


@pytest.mark.parametrize("name", [*LONG, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_long_sums_do_not_drift(cuda: NativeEngine, name: str) -> None:
    """Added up by the tensor cores alone, which cut off, they would put the loss off by up to 7e-7."""
    task, spec, batch_size = case = (LONG | SLOW)[name]
    outcome = check_head(cuda, case)
    expected = reference.train(task, spec, batch_size, 2, "float32")
    np.testing.assert_allclose(outcome.train_loss, expected.train_loss, rtol=1e-7)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape(cuda: NativeEngine, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    n, dim, classes = draw(34, 250), 4 * draw(1, 40), draw(2, 12)
    task = make_task(n=n, dim=dim, classes=classes, val=draw(0, 1) * 30, seed=draw(0, 99))
    task = weighted(task) if data.draw(st.booleans()) else task
    spec = replace(
        SMOOTH,
        hidden=4 * draw(1, 50),
        dropout=data.draw(st.sampled_from([0.0, 0.3])),
        label_smoothing=data.draw(st.sampled_from([0.0, 0.1])),
        seed=draw(0, 2**64 - 1),
    )
    check_head(cuda, (task, spec, draw(33, n)), turned=2)


def bank() -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Heads of several shapes and two tasks, more than the emulation trains at a time; 70 units go the plain way."""
    return bank_of([make_task(n=60, dim=12), weighted(make_task(n=80, dim=20, classes=5))])


def test_order_of_threads_and_of_groups_changes_nothing(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, heads = bank()
    together = alone_and_backwards(emulation, monkeypatch, tasks, heads, FLOAT, [0, 3])
    for (spec, task), outcome in zip(heads, together, strict=True):
        check(outcome, tasks[task], spec, 64, 2)


def test_heads_that_stop_early_or_diverge(cuda: NativeEngine) -> None:
    options = replace(FLOAT, batch_size=40, epochs=12, early_stop=2)
    *_, cold = stopped_diverged_and_slow(cuda, make_task(n=48, dim=20), SMALL, options)
    assert cold.epochs_run == 12


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_small_batches_on_a_device_without_clusters(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch, compute: Any
) -> None:
    """The tensor cores are there all the same: so are the products in float32, whatever was asked for."""
    task, spec = make_task(n=70, dim=20), replace(SPEC, hidden=100)
    monkeypatch.setenv("EC_EMULATION_CLUSTER", "0")
    options = Options(batch_size=16, epochs=2, compute=compute)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", EngineWarning)
        (outcome,) = emulation.train([task], [(spec, 0)], options, None)
    check(outcome, task, spec, 16, 2)
    words = ["1 of the 1 heads were trained in float32, which is slower"] * (compute == "bfloat16")
    assert [str(warning.message).split(":")[0] for warning in told] == words


def test_products_show_in_the_bits(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where x does not fit once more, the plain kernels train, and the caller is told: as right, with other bits."""
    task, spec, options = make_task(n=400, dim=20, val=0), SMALL, replace(FLOAT, batch_size=40)
    (fast,) = emulation.train([task], [(spec, 0)], options, None)
    monkeypatch.setenv("EC_EMULATION_MEMORY", "200000")
    with pytest.warns(EngineWarning, match="no room for X as the faster kernels read it: .* by slower ones"):
        (plain,) = emulation.train([task], [(spec, 0)], options, None)
    for outcome in (fast, plain):
        check(outcome, task, spec, 40, 2)
    assert not np.array_equal(fast.weights["w1"], plain.weights["w1"])
