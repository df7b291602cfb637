"""The bfloat16 compute mode: against the float64 reference whose first layer's operands are rounded just so."""

from __future__ import annotations

import importlib.util
import platform
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec, head_grid
from tests.heads.engines import Engine, make_task, native_cpu_engines, parametrize, same_heads
from tests.heads.float64_reference import Trained, distance, train
from tests.heads.test_engine import OPTIONS

TASK = make_task(800, 96, 3, n_val=100, noise=1.0)
SEEDS = range(4)


def native_engines() -> dict[str, Engine]:
    """The last with the instructions for bfloat16 where the machine has them; the others do without."""
    return {**native_cpu_engines(), "native-cpu": Engine("native", "cpu")}


def engines() -> dict[str, Engine]:
    torch = {"torch-cpu": Engine("torch", "cpu")} if importlib.util.find_spec("torch") else {}
    return {**native_engines(), **torch}


@cache
def long_run(seed: int, compute: str) -> Trained:
    """100 steps."""
    return train(TASK, long_spec(seed), 32, 4, compute)


def long_spec(seed: int) -> HeadSpec:
    return HeadSpec(hidden=48, dropout=0.2, seed=seed, lr=3e-3)


@parametrize(engines)
class TestRoundedOperands:
    @pytest.mark.parametrize("batch_size", [1, 7, 32])
    def test_first_steps(self, engine: Engine, batch_size: int) -> None:
        """Odd shapes everywhere. Later an operand within rounding of a tie may fall on its other side."""
        task = make_task(3 * batch_size, 45, 3, n_val=40, standardize=True)
        spec = HeadSpec(hidden=37, lr=1e-2, seed=2)
        losses = engine.train([task], [(spec, 0)], epochs=1, batch_size=batch_size, compute="bfloat16").history
        rounded, exact = (train(task, spec, batch_size, 1, compute) for compute in ("bfloat16", "float32"))
        for name in ("train_loss", "val_loss"):
            expected = getattr(rounded, name)[0]
            off = abs(losses[name][0, 0] / expected - 1)
            assert 5 * off < abs(getattr(exact, name)[0] / expected - 1)
            assert off < 2e-6

    def test_a_hundred_steps(self, engine: Engine) -> None:
        """Ends much closer to the rounded reference than that is to float32."""
        bank = engine.train([TASK], [(long_spec(seed), 0) for seed in SEEDS], epochs=4, compute="bfloat16")
        far, float32_far = [], []
        for head, seed in zip(bank.heads, SEEDS, strict=True):
            rounded, exact = long_run(seed, "bfloat16"), long_run(seed, "float32")
            far.append(distance(head.weights, rounded.of_epoch[head.best_epoch - 1], rounded.initial))
            float32_far.append(distance(exact.weights, rounded.weights, rounded.initial))
        assert 4 * np.median(far) < np.median(float32_far) < 0.1

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
    def test_options(self, engine: Engine, options: tuple) -> None:
        changed, settings, batch_size = options
        task = make_task(**{"n": 300, "dim": 40, "classes": 2, "n_val": 150, **changed})
        spec = HeadSpec(**{"seed": 5, **settings})
        result = engine.train([task], [(spec, 0)], batch_size=batch_size, epochs=3, compute="bfloat16")
        reference = train(task, spec, batch_size, 3, "bfloat16")
        np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=5e-5)
        np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=2e-4)

    def test_it_learns_as_float32_does(self, engine: Engine) -> None:
        task = make_task(1000, 40, 3, n_val=300, noise=0.1)
        heads = [(HeadSpec(hidden=64, lr=3e-3, seed=seed), 0) for seed in SEEDS]
        rounded, exact = (engine.train([task], heads, epochs=8, compute=c) for c in ("bfloat16", "float32"))
        np.testing.assert_allclose(rounded.history["train_loss"], exact.history["train_loss"], rtol=0.01)
        accuracy = [np.mean([head.val_accuracy for head in bank.heads]) for bank in (rounded, exact)]
        assert accuracy[1] > 0.85
        assert abs(accuracy[0] - accuracy[1]) < 0.01

    def test_validation_is_of_the_weights_that_are_returned(self, engine: Engine) -> None:
        """They are float32 and act in float32, as in predict."""
        head = engine.train([TASK], [(long_spec(0), 0)], epochs=2, compute="bfloat16").heads[0]
        assert TASK.val is not None
        x, y = TASK.val.x[TASK.val.rows], TASK.val.y[TASK.val.rows]
        log_p = head.predict_log_proba(x)
        np.testing.assert_allclose(head.val_loss, -log_p[np.arange(len(y)), y].mean(), rtol=1e-6)

    def test_a_linear_probe_is_float32(self, engine: Engine) -> None:
        heads = [(HeadSpec(hidden=0, seed=seed), 0) for seed in SEEDS]
        rounded, exact = (engine.train([TASK], heads, epochs=2, compute=c) for c in ("bfloat16", "float32"))
        assert same_heads(rounded, exact)


@parametrize(native_engines)
class TestSameBits:
    def test_alone_among_others_and_on_any_number_of_threads(self, engine: Engine) -> None:
        tasks = [make_task(151, 50, 3, n_val=40), make_task(90, 50, 2, seed=1)]
        specs = head_grid(hidden=[0, 37, 96], lr=[1e-3, 1e-2], dropout=[0.0, 0.2], seed=range(2))
        heads = [(spec, i % 2) for i, spec in enumerate(specs)]
        bank = engine.train(tasks, heads, epochs=2, compute="bfloat16", threads=1)
        assert same_heads(bank, engine.train(tasks, heads, epochs=2, compute="bfloat16", threads=2))
        for i in (3, 9, 19):
            assert same_heads(engine.train(tasks, [heads[i]], epochs=2, compute="bfloat16"), bank, pick_b=[i])

    @pytest.mark.parametrize("batch_size", [31, 64])
    def test_a_team(self, engine: Engine, batch_size: int) -> None:
        """Members gather shares of a batch whose rows go in pairs."""
        task = make_task(500, 700, 2, n_val=30)
        options = {"epochs": 2, "compute": "bfloat16", "batch_size": batch_size}
        one = engine.train([task], [(HeadSpec(hidden=128), 0)], threads=1, **options)
        for threads in (2, 3, 4):
            assert same_heads(one, engine.train([task], [(HeadSpec(hidden=128), 0)], threads=threads, **options))

    def test_a_diverging_head_touches_no_other(self, engine: Engine) -> None:
        good, bad = (HeadSpec(hidden=40), 0), (HeadSpec(hidden=40, lr=1e30), 0)
        alone = engine.train([TASK], [good], epochs=2, compute="bfloat16")
        among = engine.train([TASK], [bad, good], epochs=2, compute="bfloat16")
        assert [head.status for head in among.heads] == ["diverged", "ok"]
        assert same_heads(alone, among, pick_b=[1])


def test_the_instructions_and_their_emulation_do_the_same() -> None:
    """Sums may be rounded in another order, so not to the bit."""
    on_arm = platform.machine() in ("aarch64", "arm64")
    if not (on_arm or "avx512_bf16" in Path("/proc/cpuinfo").read_text()):
        pytest.skip("this machine has no AVX512-BF16")
    heads = [(long_spec(seed), 0) for seed in SEEDS]
    both = ("", "neon" if on_arm else "avx512")
    fast, emulated = (Engine("native", "cpu", isa).train([TASK], heads, epochs=4, compute="bfloat16") for isa in both)
    np.testing.assert_allclose(fast.history["train_loss"], emulated.history["train_loss"], rtol=1e-4)


def test_auto_is_float32() -> None:
    engine = Engine("native", "cpu")
    auto, exact, rounded = (
        engine.train([TASK], [(long_spec(0), 0)], epochs=1, compute=c) for c in ("auto", "float32", "bfloat16")
    )
    assert same_heads(auto, exact)
    assert not same_heads(auto, rounded)


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_tf32_is_not_of_a_cpu(engine: str) -> None:
    with pytest.raises(EmbedcacheError, match="float32 or bfloat16"):
        Engine(engine, "cpu").train([TASK], [(long_spec(0), 0)], epochs=1, compute="tf32")
