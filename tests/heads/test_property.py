"""Shapes and options drawn by hypothesis: the native engine against the float64 reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.heads.kinds import KINDS
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import SCHEDULES, HeadSpec
from tests.heads.conftest import has_gpu
from tests.heads.engines import Engine, make_task, same_heads
from tests.heads.float64_reference import distance, train

DEVICES = ("cpu", "cuda") if has_gpu() else ("cpu",)
ENGINES = [Engine("native", "cpu", isa) for isa in ("avx512", "avx2", "plain")]
ENGINES += [Engine("native", "cuda")] * (len(DEVICES) - 1)


@st.composite
def tasks(draw: Any) -> dict[str, Any]:
    """Arguments of make_task."""
    kind = draw(st.sampled_from(KINDS))
    return {
        "n": draw(st.integers(9, 90)),
        "dim": draw(st.integers(1, 80)),
        "classes": draw(st.integers(2 if kind == "classification" else 1, 9)),
        "n_val": draw(st.integers(0, 140)),
        "dtype": draw(st.sampled_from([np.float16, np.float32])),
        "weighted": kind != "regression" and draw(st.booleans()),
        "standardize": draw(st.booleans()),
        "kind": kind,
        "seed": draw(st.integers(0, 3)),
    }


@st.composite
def specs(draw: Any, task: dict[str, Any]) -> HeadSpec:
    plain, weights = task["kind"] == "regression", st.floats(0.125, 8, width=32)
    return HeadSpec(
        hidden=draw(st.one_of(st.just(0), st.integers(1, 140))),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.6])),
        seed=draw(st.integers(0, 2**64 - 1)),
        weight_decay=draw(st.sampled_from([0.0, 0.01, 1.0])),
        schedule=draw(st.sampled_from(SCHEDULES)),
        warmup=draw(st.one_of(st.just(0.0), st.floats(0, 0.999, allow_subnormal=False))),
        label_smoothing=0.0 if plain else draw(st.one_of(st.just(0.0), st.floats(0, 0.99))),
        loss="nll" if plain else draw(st.sampled_from(tuple(LOSSES))),
        focal_gamma=draw(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.5])),
        class_weight=None
        if plain
        else draw(st.sampled_from([None, "none", "balanced"]) | st.tuples(*[weights] * task["classes"])),
    )


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    data=st.data(),
    engine=st.sampled_from(ENGINES),
    batch_size=st.integers(1, 100),
    threads=st.integers(1, 4),
)
def test_any_shape_and_option(data: st.DataObject, engine: Engine, batch_size: int, threads: int) -> None:
    drawn = data.draw(tasks())
    task, spec = make_task(**drawn), data.draw(specs(drawn))
    result = engine.train([task], [(spec, 0)], batch_size=batch_size, epochs=2, threads=threads)
    reference = train(task, spec, batch_size, 2)
    np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=2e-5)
    # A probe's biases start where the gradient of all rows together is 0: of a batch that holds them all, AdamW's
    # first step there is rounding divided by itself.
    undecided = {"b2"} if not spec.hidden and batch_size >= len(task.train.rows) else set()
    if task.val is not None:  # two steps, each of up to lr either way
        near = 8 * spec.lr if undecided else 0.0
        np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=1e-4, atol=near)
    elif task.mean is None:  # else the weights come back folded
        weights, expected, initial = (
            {name: array for name, array in one.items() if name not in undecided}
            for one in (result.heads[0].weights, reference.weights, reference.initial)
        )
        assert distance(weights, expected, initial) < 1e-3


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data(), batch_size=st.integers(1, 60), threads=st.integers(1, 4))
def test_any_bank_is_its_heads(device: str, data: st.DataObject, batch_size: int, threads: int) -> None:
    """To the bit, whatever kinds and options stand beside one another."""
    drawn = data.draw(st.lists(tasks(), min_size=1, max_size=3))
    numbers = data.draw(st.lists(st.integers(0, len(drawn) - 1), min_size=2, max_size=6))
    heads = [(data.draw(specs(drawn[number])), number) for number in numbers]
    bank = [make_task(**arguments) for arguments in drawn]
    engine = Engine("native", device)
    together = engine.train(bank, heads, batch_size=batch_size, epochs=2, threads=threads)
    for i, head in enumerate(heads):
        assert same_heads(engine.train(bank, [head], batch_size=batch_size, epochs=2, threads=1), together, None, [i])
