"""Linear probes of one task and seed are trained as a group that shares its batches: nothing of that may show."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest

from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.heads.train import train_bank
from tests.heads.engines import Engine, make_task, native_cpu_engines, parametrize, same_heads
from tests.heads.float64_reference import train


def every_setting(kind: str, outputs: int) -> list[HeadSpec]:
    """Probes of one seed that differ in everything else."""
    varied: list[dict] = [
        {"lr": 3e-2},
        {"weight_decay": 0.5},
        {"betas": (0.5, 0.9), "eps": 1e-6},
        {"schedule": "cosine", "warmup": 0.3},
        {"schedule": "linear", "lr": 1e-2},
        {"lr": 1e30},  # diverges
    ]
    if kind != "regression":
        weights = tuple(np.linspace(0.4, 2, outputs))
        varied += [{"label_smoothing": 0.2}, {"class_weight": "balanced"}, {"class_weight": weights, "lr": 0.1}]
        varied += [{"loss": "focal"}, {"loss": "focal", "focal_gamma": 0.5, "label_smoothing": 0.2}]
    return [HeadSpec(hidden=0, seed=3, **settings) for settings in varied]


@parametrize(native_cpu_engines)
class TestSameBits:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("outputs, batch_size", [(2, 32), (3, 7), (5, 1), (11, 64)])
    def test_alone_and_in_a_group(self, engine: Engine, kind: str, outputs: int, batch_size: int) -> None:
        task = make_task(131, 70, outputs, n_val=150, kind=kind, standardize=True)
        heads = [(spec, 0) for spec in every_setting(kind, outputs)]
        options = {"epochs": 3, "batch_size": batch_size}
        group = engine.train([task], heads, threads=1, **options)
        assert [head.status == "diverged" for head in group.heads] == [spec.lr == 1e30 for spec, _ in heads]
        for i, head in enumerate(heads):
            assert same_heads(engine.train([task], [head], **options), group, pick_b=[i])

    @pytest.mark.parametrize("classes, dim", [(2, 3000), (3, 2000), (40, 700)])
    def test_any_number_of_threads(self, engine: Engine, classes: int, dim: int) -> None:
        """Teams whose members own parts of a probe, and share out the losses."""
        task = make_task(300, dim, classes, n_val=140)
        specs = head_grid(hidden=[0], lr=np.geomspace(1e-4, 1e-1, 21).tolist())
        for heads in ([(spec, 0) for spec in specs], [(specs[0], 0)]):
            one = engine.train([task], heads, epochs=2, threads=1)
            for threads in (2, 3, 7):
                assert same_heads(one, engine.train([task], heads, epochs=2, threads=threads)), threads

    def test_some_stop_early(self, engine: Engine) -> None:
        task = make_task(120, 60, 3, n_val=100, noise=5.0)
        heads = [(spec, 0) for spec in head_grid(hidden=[0], lr=np.geomspace(1e-4, 1.0, 9).tolist())]
        group = engine.train([task], heads, epochs=25, early_stop=2)
        assert len({head.epochs_run for head in group.heads}) > 3
        for i, head in enumerate(heads):
            assert same_heads(engine.train([task], [head], epochs=25, early_stop=2), group, pick_b=[i])

    def test_more_weights_than_a_group_holds(self, engine: Engine) -> None:
        task = make_task(70, 300, 401, n_val=20)
        heads = [(spec, 0) for spec in head_grid(hidden=[0], lr=np.geomspace(1e-4, 1e-2, 12).tolist())]
        bank = engine.train([task], heads, epochs=2)
        for i in (0, 7, 8, 11):
            assert same_heads(engine.train([task], [heads[i]], epochs=2), bank, pick_b=[i])

    def test_orders_and_tasks_do_not_mix(self, engine: Engine) -> None:
        tasks = [make_task(80, 30, 2, n_val=20), make_task(80, 30, 2, n_val=20, seed=1)]
        heads = [(HeadSpec(hidden=hidden, seed=s, lr=lr), t) for lr in (1e-3, 1e-2) for t in (0, 1) for s in (0, 1)
                 for hidden in (0, 16)]  # fmt: skip
        bank = engine.train(tasks, heads, epochs=2)
        for i in range(len(heads)):
            assert same_heads(engine.train(tasks, [heads[i]], epochs=2), bank, pick_b=[i])


@parametrize(native_cpu_engines)
@pytest.mark.parametrize("lr, rtol", [(1e-3, 1e-5), (1.0, 1e-5), (10.0, 0.01)])
def test_losses_from_small_to_huge(engine: Engine, lr: float, rtol: float) -> None:
    """With lr 10 probabilities go down to nothing and up to 1, and float32's own rounding shows, in torch as here."""
    task = make_task(300, 50, 7, n_val=100)
    specs = [HeadSpec(hidden=0, lr=lr, label_smoothing=smoothing) for smoothing in (0.0, 0.3)]
    bank = engine.train([task], [(spec, 0) for spec in specs], epochs=3)
    for i, spec in enumerate(specs):
        reference = train(task, spec, 32, 3)
        np.testing.assert_allclose(bank.history["train_loss"][i], reference.train_loss, rtol=rtol)
        np.testing.assert_allclose(bank.history["val_loss"][i], reference.val_loss, rtol=rtol)


def test_ctrl_c_in_a_group() -> None:
    task = make_task(4000, 256, 2, n_val=50)
    heads = [(spec, 0) for spec in head_grid(hidden=[0], lr=np.geomspace(1e-4, 1e-2, 60).tolist())]
    main = threading.main_thread().ident
    assert main is not None

    def interrupt(done: int, total: int, rows: int) -> None:
        if done > total / 50:
            signal.pthread_kill(main, signal.SIGINT)

    result = train_bank([task], heads, epochs=400, device="cpu", engine="native", progress=interrupt)
    assert {head.status for head in result.heads} == {"cancelled"}
    for i, head in enumerate(result.heads):
        assert 0 < head.epochs_run < 400
        assert np.isfinite(result.history["train_loss"][i, : head.epochs_run]).all()
        assert np.isnan(result.history["train_loss"][i, head.epochs_run :]).all()
        assert head.weights["w2"].any()
