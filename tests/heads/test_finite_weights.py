"""Weights that overflow in the last step, after a loss that was finite: the engines find them, and give zeros."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.engine_torch import TorchEngine
from embedcache.heads.task import Options
from tests.heads.cuda_emulation import SPEC, assert_same, make_task


@pytest.mark.parametrize("hidden", [0, 37, 128])
@pytest.mark.parametrize("name", ["cpu, 1 thread", "cpu, 2 threads", "cuda", "torch"])
def test_overflow_in_the_last_step(name: str, hidden: int, emulation: NativeEngine) -> None:
    """One step an epoch: of the bank's heads the middle one overflows in it, which no loss ever sees."""
    engine = emulation if name == "cuda" else TorchEngine("cpu") if name == "torch" else NativeEngine("cpu", 0)
    task = make_task(n=64, dim=300, classes=3, val=0)
    settings = ((1e-3, 0.0), (9e35, 900.0), (2e-3, 0.0))  # the decay of the second is above what float32 holds
    heads = [(replace(SPEC, hidden=hidden, lr=lr, weight_decay=decay), 0) for lr, decay in settings]
    options = Options(batch_size=64, epochs=1, threads=2 if "2" in name else 1)
    good, bad, other = engine.train([task], heads, options, None)
    assert np.isfinite(bad.train_loss).all()
    assert (bad.status, bad.best_epoch, bad.epochs_run) == ("diverged", -1, 1)
    assert not any(weight.any() for weight in bad.weights.values())
    for i, outcome in ((0, good), (2, other)):
        assert (outcome.status, outcome.best_epoch) == ("ok", 0)
        assert outcome.weights["w2"].any()
        assert_same(outcome, engine.train([task], [heads[i]], options, None)[0])
