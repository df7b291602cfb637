"""Every engine against the float64 reference, over the options."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from engines import Engine, all_engines, make_task, parametrize
from float64_reference import Trained, batches, distance, standardised, train

from embedcache.heads import philox
from embedcache.heads.bank import weight_shapes
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import Task, standardize_stats

WIDE = make_task(1600, 768, 2, noise=1.0)  # 50 steps an epoch at batch 32
SEEDS = range(3)


@cache
def wide_reference(dropout: float, seed: int) -> Trained:
    return train(WIDE, wide_spec(dropout, seed), 32, 4)


@cache
def pytorch_distance(dropout: float, seed: int) -> float:
    """How far a plain PyTorch float32 loop ends from the float64 reference."""
    spec, reference = wide_spec(dropout, seed), wide_reference(dropout, seed)
    weights = pytorch_float32(WIDE, spec, 32, 4)
    return distance(weights, reference.weights, reference.initial)


def wide_spec(dropout: float, seed: int) -> HeadSpec:
    return HeadSpec(hidden=64, dropout=dropout, seed=seed)


def pytorch_float32(task: Task, spec: HeadSpec, batch_size: int, epochs: int) -> dict[str, np.ndarray]:
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    w = [torch.tensor(a, requires_grad=True) for a in philox.initial_weights(spec.seed, shapes).values()]
    adamw = torch.optim.AdamW(w, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay)
    x, y = torch.tensor(task.train.x[task.train.rows]), torch.tensor(task.train.y[task.train.rows]).long()
    step = 0
    for epoch in range(epochs):
        for rows in batches(spec, len(y), batch_size, epoch):
            a = torch.relu(torch.nn.functional.linear(x[rows], w[0], w[1]))
            if spec.dropout:
                kept = philox.dropout_kept(spec.seed, step, len(rows), spec.hidden, spec.dropout)
                a = a * torch.tensor(kept) / (1 - spec.dropout)
            logits = torch.nn.functional.linear(a, w[2], w[3])
            adamw.zero_grad()
            torch.nn.functional.cross_entropy(logits, y[rows]).backward()
            adamw.step()
            step += 1
    return {name: value.detach().numpy() for name, value in zip(shapes, w, strict=True)}


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


OPTIONS = {
    "probe": ({}, {"hidden": 0}, 32),
    "probe, 40 classes": ({"classes": 40}, {"hidden": 0}, 32),
    "one hidden unit": ({}, {"hidden": 1}, 32),
    "odd shapes": ({"dim": 45, "classes": 3}, {"hidden": 37}, 7),
    "300 classes": ({"classes": 300}, {"hidden": 96}, 32),
    "class weights": ({"classes": 4, "weighted": True}, {"hidden": 48}, 32),
    "standardised": ({"standardize": True}, {"hidden": 48}, 32),
    "float16, standardised": ({"dtype": np.float16, "standardize": True, "dim": 50}, {"hidden": 48}, 32),
    "half dropped": ({}, {"hidden": 100, "dropout": 0.5}, 32),
    "large batch": ({"dim": 64}, {"hidden": 48}, 700),
    "batch larger than the data": ({}, {"hidden": 48}, 5000),
    "batch of one": ({"n": 60}, {"hidden": 33}, 1),
    "AdamW settings": ({}, {"hidden": 48, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.3, "lr": 3e-3}, 32),
    "no momentum": ({}, {"hidden": 48, "betas": (0.0, 0.9)}, 32),
    "no memory": ({}, {"hidden": 48, "betas": (0.0, 0.0), "eps": 1e-6}, 32),
    "large seed": ({}, {"hidden": 48, "seed": 2**64 - 1}, 32),
}


@parametrize(all_engines)
class TestEngine:
    @pytest.mark.parametrize("dropout", [0.0, 0.1])
    def test_two_hundred_steps_as_close_to_float64_as_pytorch(self, engine: Engine, dropout: float) -> None:
        """The median of three seeds: a pre-activation within rounding of 0 may fall on the other side of ReLU."""
        heads = [(wide_spec(dropout, seed), 0) for seed in SEEDS]
        result = engine.train([WIDE], heads, epochs=4)
        far = []
        for i, seed in enumerate(SEEDS):
            reference = wide_reference(dropout, seed)
            np.testing.assert_allclose(result.history["train_loss"][i], reference.train_loss, rtol=1e-5)
            far.append(distance(result.heads[i].weights, reference.weights, reference.initial))
        assert np.median(far) <= 2 * np.median([pytorch_distance(dropout, seed) for seed in SEEDS])

    @pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
    def test_options(self, engine: Engine, options: tuple) -> None:
        changed, settings, batch_size = options
        task = make_task(**{"n": 300, "dim": 40, "classes": 2, "n_val": 150, **changed})
        spec = HeadSpec(**{"seed": 5, **settings})
        result = engine.train([task], [(spec, 0)], batch_size=batch_size, epochs=3)
        reference = train(task, spec, batch_size, 3)
        np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=1e-5)
        np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=1e-4)
        np.testing.assert_allclose(result.history["val_accuracy"][0], reference.val_accuracy, atol=1.01 / 150)
        head, best = result.heads[0], int(np.argmin(reference.val_loss))
        assert (head.status, head.best_epoch, head.epochs_run) == ("ok", best, 3)
        x = task.train.x[task.train.rows]
        raw = standardised(task, x)
        w = reference.of_epoch[best]
        a = np.maximum(raw @ w["w1"].T + w["b1"], 0) if spec.hidden else raw
        z = a @ w["w2"].T + w["b2"]
        log_p = z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)
        np.testing.assert_allclose(head.predict_log_proba(x), log_p, rtol=1e-3, atol=2e-3)

    def test_every_half_is_read_exactly(self, engine: Engine) -> None:
        """Subnormal ones too: a nearly constant column of a float16 cache may hold no others."""
        task = make_task(300, 41, 2, n_val=50, dtype=np.float16)
        task.train.x[:, ::2] *= np.float16(1e-5)  # column 40 is beyond the last whole vector
        task.mean, task.inv_std = standardize_stats(task.train.x, task.train.rows)
        spec = HeadSpec(hidden=32, seed=3)
        result = engine.train([task], [(spec, 0)], epochs=3)
        expected = train(task, spec, 32, 3)
        np.testing.assert_allclose(result.history["train_loss"][0], expected.train_loss, rtol=1e-5)
        np.testing.assert_allclose(result.history["val_loss"][0], expected.val_loss, rtol=1e-4)

    def test_a_bank_of_different_tasks_and_heads(self, engine: Engine) -> None:
        tasks = [make_task(200, 33, 2), make_task(150, 20, 5, n_val=70, weighted=True, seed=1)]
        heads = [(HeadSpec(hidden=h, seed=s), t) for t in (1, 0) for h in (0, 40) for s in (0, 1)]
        result = engine.train(tasks, heads, batch_size=16, epochs=2)
        for head, losses, (spec, task) in zip(result.heads, result.history["train_loss"], heads, strict=True):
            np.testing.assert_allclose(losses, train(tasks[task], spec, 16, 2).train_loss, rtol=1e-5)
            assert head.task == task
            assert head.weights["b2"].shape == (tasks[task].classes,)
            assert np.isnan(head.val_loss) == (task == 0)

    def test_early_stop_keeps_the_best_epoch(self, engine: Engine) -> None:
        task = make_task(120, 60, 2, n_val=100, noise=5.0)  # soon learnt by heart
        spec = HeadSpec(hidden=64, lr=3e-3)
        result = engine.train([task], [(spec, 0)], epochs=30, early_stop=2)
        head, losses = result.heads[0], result.history["val_loss"][0]
        assert head.status == "ok"
        assert head.epochs_run == head.best_epoch + 3 < 30
        assert np.nanargmin(losses) == head.best_epoch
        assert np.isnan(losses[head.epochs_run :]).all() and np.isfinite(losses[: head.epochs_run]).all()
        full = engine.train([task], [(spec, 0)], epochs=head.best_epoch + 1)
        np.testing.assert_allclose(full.heads[0].weights["w1"], head.weights["w1"], rtol=1e-6)

    def test_without_validation_the_last_epoch_stays(self, engine: Engine) -> None:
        task = make_task(100, 30, 3)
        result = engine.train([task], [(HeadSpec(hidden=32), 0)], epochs=4, early_stop=1)
        assert result.heads[0].best_epoch == 3
        assert np.isnan(result.history["val_loss"]).all()
        reference = train(task, HeadSpec(hidden=32), 32, 4)
        np.testing.assert_allclose(result.heads[0].weights["w2"], reference.weights["w2"], atol=1e-5)

    def test_a_diverging_head_is_named_and_touches_no_other(self, engine: Engine) -> None:
        task = make_task(200, 30, 2, n_val=50)
        good = [(HeadSpec(hidden=40, seed=s), 0) for s in range(3)]
        bad = (HeadSpec(hidden=40, lr=1e30), 0)
        alone = engine.train([task], good, epochs=2)
        among = engine.train([task], [good[0], bad, *good[1:]], epochs=2)
        assert [head.status for head in among.heads] == ["ok", "diverged", "ok", "ok"]
        assert among.heads[1].best_epoch == -1
        assert not any(array.any() for array in among.heads[1].weights.values())
        assert among.best.status == "ok"
        for i, j in ((0, 0), (2, 1), (3, 2)):
            for name, array in alone.heads[j].weights.items():
                assert array.tobytes() == among.heads[i].weights[name].tobytes()

    @pytest.mark.parametrize("n_val", [0, 50])
    def test_weights_that_overflow_are_never_returned(self, engine: Engine, n_val: int) -> None:
        """Learning rates from stable to hopeless, also where the last step alone overflows."""
        task = make_task(64, 30, 2, n_val=n_val)
        heads = [(HeadSpec(hidden=40, lr=10.0**power), 0) for power in (0, 4, 12, 18, 25, 30, 35)]
        for epochs in (1, 2):
            result = engine.train([task], heads, epochs=epochs)
            for head in result.heads:
                assert all(np.isfinite(array).all() for array in head.weights.values())
                assert (head.best_epoch >= 0) or head.status == "diverged"
            assert result.heads[0].status == "ok"
            assert result.heads[-1].status == "diverged"

    def test_it_learns(self, engine: Engine) -> None:
        task = make_task(1000, 40, 3, n_val=300, noise=0.1)
        result = engine.train([task], [(HeadSpec(hidden=64, lr=3e-3), 0)], epochs=8)
        assert result.heads[0].val_accuracy > 0.85
        assert (np.diff(result.history["train_loss"][0]) < 0).all()
