"""Which epoch every engine keeps, and when it stops."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import CHOICES
from embedcache.heads.train import BankResult, TrainedHead
from tests.heads.engines import Engine, all_engines, make_task, parametrize, same_heads
from tests.heads.float64_reference import train

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def first_of(history: dict[str, np.ndarray], head: int, choose: str, kind: str = "classification") -> int:
    """The epoch that comes first by a history: highest score, lowest loss, earliest."""
    loss = history["val_loss"][head]
    score = np.zeros_like(loss) if choose == "loss" or kind == "regression" else history[f"val_{choose}"][head]
    return min(range(len(loss)), key=lambda epoch: (-score[epoch], loss[epoch]))


def patient_epochs(history: dict[str, np.ndarray], head: int, choose: str, patience: int) -> int:
    """How many epochs of the whole history a head runs that stops after so many without a better one."""
    for run in range(1, history["val_loss"].shape[1]):
        if run - 1 - first_of({name: values[:, :run] for name, values in history.items()}, head, choose) >= patience:
            return run
    return history["val_loss"].shape[1]


def head_epochs(result: BankResult, head: int) -> int:
    return result.heads[head].best_epoch


def same_weights(one: TrainedHead, other: TrainedHead) -> bool:
    return all(np.allclose(one.weights[name], other.weights[name], rtol=1e-6) for name in one.weights)


@parametrize(all_engines)
class TestEpochs:
    @pytest.mark.parametrize("kind", KINDS)
    def test_early_stop_keeps_the_best_epoch(self, engine: Engine, kind: str) -> None:
        task = make_task(120, 60, 2, n_val=100, noise=5.0, kind=kind)  # soon learnt by heart
        spec = HeadSpec(hidden=64, lr=3e-3)
        result = engine.train([task], [(spec, 0)], epochs=30, early_stop=2)
        head, losses = result.heads[0], result.history["val_loss"][0]
        assert head.status == "ok"
        assert head.epochs_run == head.best_epoch + 2 < 30
        assert np.nanargmin(losses) + 1 == head.best_epoch
        assert np.isnan(losses[head.epochs_run :]).all() and np.isfinite(losses[: head.epochs_run]).all()
        full = engine.train([task], [(spec, 0)], epochs=head.best_epoch)
        np.testing.assert_allclose(full.heads[0].weights["w1"], head.weights["w1"], rtol=1e-6)

    @pytest.mark.parametrize("hidden", [0, 32])
    @pytest.mark.parametrize("kind", KINDS)
    def test_choose_decides_which_epoch_is_kept(self, engine: Engine, kind: str, hidden: int) -> None:
        """Every head keeps the epoch that its own history puts first; of equal scores, that of the lowest loss."""
        task = make_task(150, 40, 3, n_val=30, noise=3.0, kind=kind)  # few rows to choose by: many equal scores
        heads = [(HeadSpec(hidden=hidden, lr=2e-2, seed=s), 0) for s in range(3)]
        kept = {}
        for choose in CHOICES:
            result = engine.train([task], heads, epochs=20, choose=choose)
            for i, head in enumerate(result.heads):
                assert head.best_epoch == first_of(result.history, i, choose, kind) + 1
            kept[choose] = [head.best_epoch for head in result.heads]
            one = engine.train([task], heads[:1], epochs=head_epochs(result, 0), choose=choose)
            assert same_weights(one.heads[0], result.heads[0])
        if kind == "regression":
            assert kept["accuracy"] == kept["macro_f1"] == kept["loss"]
        else:
            assert len({tuple(epochs) for epochs in kept.values()}) == 3

    def test_early_stop_waits_for_what_is_chosen_by(self, engine: Engine) -> None:
        task = make_task(150, 40, 3, n_val=30, noise=3.0)
        heads = [(HeadSpec(hidden=32, lr=5e-3, seed=s), 0) for s in range(2)]
        for choose in CHOICES:
            whole = engine.train([task], heads, epochs=40, choose=choose)
            for patience in (1, 4):
                stopped = engine.train([task], heads, epochs=40, choose=choose, early_stop=patience)
                for i, head in enumerate(stopped.heads):
                    run = patient_epochs(whole.history, i, choose, patience)
                    assert head.epochs_run == run < 40
                    best = first_of({k: v[:, :run] for k, v in whole.history.items()}, i, choose)
                    assert head.best_epoch == best + 1

    def test_no_label_anywhere_is_chosen_by_loss(self, engine: Engine) -> None:
        """There is no F1 then."""
        task = make_task(100, 10, 3, n_val=40, noise=5.0, kind="multilabel")
        task.val.y[task.val.rows] = 0
        heads = [(HeadSpec(hidden=16, lr=0.003, seed=s), 0) for s in range(3)]
        by_loss, by_f1 = (engine.train([task], heads, epochs=1, choose=choose) for choose in ("loss", "macro_f1"))
        assert same_heads(by_loss, by_f1)

    def test_a_schedule_runs_over_all_epochs_early_stop_or_not(self, engine: Engine) -> None:
        task = make_task(120, 60, 2, n_val=100, noise=5.0)
        spec = HeadSpec(hidden=64, lr=3e-3, schedule="linear", warmup=0.1)
        stopped = engine.train([task], [(spec, 0)], epochs=30, early_stop=2)
        run, whole = stopped.heads[0].epochs_run, engine.train([task], [(spec, 0)], epochs=30)
        assert run < 30
        assert (stopped.history["train_loss"][0, :run] == whole.history["train_loss"][0, :run]).all()

    def test_without_validation_the_last_epoch_stays(self, engine: Engine) -> None:
        task = make_task(100, 30, 3)
        result = engine.train([task], [(HeadSpec(hidden=32), 0)], epochs=4, early_stop=1)
        assert result.heads[0].best_epoch == 4
        assert np.isnan(result.history["val_loss"]).all()
        assert np.isnan(result.history["val_macro_f1"]).all()
        reference = train(task, HeadSpec(hidden=32), 32, 4)
        np.testing.assert_allclose(result.heads[0].weights["w2"], reference.weights["w2"], atol=1e-5)
