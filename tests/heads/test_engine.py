"""Every engine against the float64 reference, over the options."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import WarmStart, weight_shapes
from embedcache.heads.train import Task, standardize_stats
from tests.heads.engines import Engine, all_engines, make_task, parametrize, same_heads
from tests.heads.float64_reference import Trained, distance, forward, standardised, train
from tests.heads.long_references import LONG, SEEDS, compute, long_run, stored

pytestmark = pytest.mark.usefixtures("one_torch_thread")
OPTIONS = {
    "probe": ({}, {"hidden": 0}, 32),
    "probe, 40 classes": ({"classes": 40}, {"hidden": 0}, 32),
    "one hidden unit": ({}, {"hidden": 1}, 32),
    "odd shapes": ({"dim": 45, "classes": 3}, {"hidden": 37}, 7),
    "300 classes": ({"classes": 300}, {"hidden": 96}, 32),
    "300 classes, smoothed": ({"classes": 300, "weighted": True}, {"hidden": 96, "label_smoothing": 0.2}, 32),
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
    "warm-up throughout": ({}, {"hidden": 48, "warmup": 0.99, "schedule": "linear"}, 32),
    "nearly all smoothed": ({"classes": 5}, {"hidden": 48, "label_smoothing": 0.99}, 32),
    "decay on a schedule": ({}, {"hidden": 48, "weight_decay": 3.0, "schedule": "cosine", "warmup": 0.3}, 32),
    "focal": ({"classes": 3}, {"hidden": 48, "loss": "focal"}, 32),
    "focal, weighted probe": ({"classes": 3, "weighted": True}, {"hidden": 0, "loss": "focal", "focal_gamma": 0.5}, 7),
    "focal, 300 classes, smoothed": (
        {"classes": 300, "weighted": True},
        {"hidden": 96, "label_smoothing": 0.2, "loss": "focal"},
        32,
    ),
    "focal, smoothed probe": ({"classes": 40}, {"hidden": 0, "label_smoothing": 0.1, "loss": "focal"}, 33),
    "focal, large gamma": ({}, {"hidden": 48, "loss": "focal", "focal_gamma": 20.0}, 32),
    "focal, one label": ({"kind": "multilabel", "classes": 1}, {"hidden": 48, "loss": "focal"}, 32),
    "focal, 300 labels, probe": (
        {"kind": "multilabel", "classes": 300, "weighted": True},
        {"hidden": 0, "loss": "focal", "focal_gamma": 3.0, "label_smoothing": 0.1},
        33,
    ),
    "one label": ({"kind": "multilabel", "classes": 1}, {"hidden": 48}, 32),
    "300 labels": ({"kind": "multilabel", "classes": 300}, {"hidden": 96, "class_weight": "balanced"}, 32),
    "300 labels, probe": ({"kind": "multilabel", "classes": 300, "weighted": True}, {"hidden": 0}, 33),
    "one value": ({"kind": "regression", "classes": 1}, {"hidden": 48}, 32),
    "one value, probe": ({"kind": "regression", "classes": 1, "standardize": True}, {"hidden": 0}, 7),
    "weighted rows": ({"sampled": True, "classes": 3}, {"hidden": 48}, 32),
    "weighted rows, class weights, smoothed": (
        {"sampled": True, "weighted": True, "classes": 5, "standardize": True},
        {"hidden": 48, "label_smoothing": 0.1, "class_weight": "balanced"},
        7,
    ),
    "weighted rows, probe": ({"sampled": True, "classes": 40}, {"hidden": 0}, 33),
    "weighted rows, smoothed probe": ({"sampled": True, "weighted": True}, {"hidden": 0, "label_smoothing": 0.2}, 32),
    "weighted rows, focal": ({"sampled": True, "classes": 3}, {"hidden": 48, "loss": "focal"}, 32),
    "weighted rows, focal, smoothed": (
        {"sampled": True, "weighted": True, "classes": 3},
        {"hidden": 0, "loss": "focal", "label_smoothing": 0.1},
        32,
    ),
    "weighted rows, large batch": ({"sampled": True, "dim": 64}, {"hidden": 48}, 700),
    "weighted rows of labels": ({"sampled": True, "kind": "multilabel", "classes": 5}, {"hidden": 48}, 32),
    "weighted rows of labels, focal probe": (
        {"sampled": True, "kind": "multilabel", "classes": 40, "weighted": True},
        {"hidden": 0, "loss": "focal"},
        33,
    ),
    "weighted rows of values": ({"sampled": True, "kind": "regression", "classes": 2}, {"hidden": 48}, 32),
    "weighted rows of values, probe": ({"sampled": True, "kind": "regression", "classes": 1}, {"hidden": 0}, 7),
    "300 values": ({"kind": "regression", "classes": 300}, {"hidden": 96, "schedule": "linear"}, 32),
}

SCHEDULES = (("constant", 0.0), ("constant", 0.4), ("linear", 0.1), ("cosine", 0.25))


def every_combination(kind: str) -> tuple[list[Task], list[tuple[HeadSpec, int]]]:
    """Tasks of one kind, and for each of them heads with every combination of the settings that it can have."""
    outputs = {"classification": 3, "multilabel": 5, "regression": 2}[kind]
    weights = (None, "none", "balanced", tuple(np.linspace(0.3, 3, outputs)))
    plain = kind == "regression"
    half = {"dtype": np.float16, "standardize": True}
    tasks = [
        make_task(90, 21, outputs, n_val=60, kind=kind, weighted=weighted, **changed)
        for weighted in (False,) + (True,) * (not plain)
        for changed in ({}, half)
    ]
    specs = [
        HeadSpec(
            hidden=hidden, label_smoothing=smoothing, class_weight=weight, schedule=schedule, warmup=warmup, seed=7
        )
        for hidden, smoothing, weight, (schedule, warmup) in itertools.product(
            (0, 40), (0.0,) if plain else (0.0, 0.15), (None,) if plain else weights, SCHEDULES
        )
    ]
    focal = itertools.product((0, 40), (0.0, 0.15), weights, (0.5, 3.0))
    specs += [
        HeadSpec(hidden=hidden, label_smoothing=smoothing, class_weight=weight, loss="focal", focal_gamma=gamma, seed=7)
        for hidden, smoothing, weight, gamma in focal
        if not plain
    ]
    return tasks, [(spec, task) for task in range(len(tasks)) for spec in specs]


@cache
def combinations_reference(kind: str) -> list[Trained]:
    tasks, heads = every_combination(kind)
    return [train(tasks[task], spec, 16, 2) for spec, task in heads]


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_the_stored_references_are_what_is_computed(name: str) -> None:
    """The end of the runs in float64; PyTorch's float32 end depends on its version and the processor."""
    for seed in SEEDS:
        pytest.importorskip("torch")
        kept, made = stored(name, seed), compute(name, seed)
        np.testing.assert_array_equal(kept.start, made.start)
        np.testing.assert_allclose(kept.train_loss, made.train_loss, rtol=1e-9)
        assert np.linalg.norm(kept.end - made.end) < 1e-9 * np.linalg.norm(made.start - made.end)
        assert 0 < kept.pytorch < 1e-3 and 0 < made.pytorch < 1e-3


@parametrize(all_engines)
class TestEngine:
    @pytest.mark.parametrize(
        "name", [pytest.param(name, marks=() if "everything" in name else pytest.mark.slow) for name in LONG]
    )
    def test_two_hundred_steps_as_close_to_float64_as_pytorch(self, engine: Engine, name: str) -> None:
        """The median of three seeds: a pre-activation within rounding of 0 may fall on the other side of ReLU."""
        runs = [long_run(name, seed) for seed in SEEDS]
        result = engine.train([runs[0][0]], [(spec, 0) for _, spec in runs], epochs=4)
        references = [stored(name, seed) for seed in SEEDS]
        for i, reference in enumerate(references):
            np.testing.assert_allclose(result.history["train_loss"][i], reference.train_loss, rtol=1e-5)
        far = [reference.distance(head.weights) for reference, head in zip(references, result.heads, strict=True)]
        assert np.median(far) <= 2 * np.median([reference.pytorch for reference in references])

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
        np.testing.assert_allclose(result.history["val_macro_f1"][0], reference.val_macro_f1, atol=0.02)
        head, best = result.heads[0], int(np.argmin(reference.val_loss))
        assert (head.status, head.best_epoch, head.epochs_run) == ("ok", best + 1, 3)
        x = task.train.x[task.train.rows]
        expected = forward(reference.of_epoch[best], spec, standardised(task, x))[0]
        np.testing.assert_allclose(head.logits(x), expected, rtol=1e-3, atol=2e-3)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_combination_in_one_bank(self, engine: Engine, kind: str) -> None:
        tasks, heads = every_combination(kind)
        result = engine.train(tasks, heads, batch_size=16, epochs=2)
        for i, reference in enumerate(combinations_reference(kind)):
            said = str(heads[i])
            np.testing.assert_allclose(result.history["train_loss"][i], reference.train_loss, rtol=1e-5, err_msg=said)
            np.testing.assert_allclose(result.history["val_loss"][i], reference.val_loss, rtol=1e-4, err_msg=said)
            assert result.heads[i].best_epoch == np.argmin(reference.val_loss) + 1, said
        for name in ("val_accuracy", "val_macro_f1"):
            expected = [getattr(reference, name) for reference in combinations_reference(kind)]
            same = np.isclose(result.history[name], expected, rtol=0, atol=1e-12, equal_nan=True)
            assert same.mean() > 0.99  # a logit within rounding of another may fall on the other side

    @pytest.mark.parametrize("hidden", [0, 40])
    @pytest.mark.parametrize("kind", KINDS)
    def test_start_from_given_weights(self, engine: Engine, kind: str, hidden: int) -> None:
        """Those of the first three outputs; the fourth begins as usual."""
        task, spec = make_task(120, 21, 4, n_val=60, kind=kind, standardize=True), HeadSpec(hidden=hidden, seed=5)
        rng = np.random.default_rng(1)
        shapes = weight_shapes(spec, 21, 4)
        weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
        task.start = WarmStart(weights, np.array([True, True, True, False]))
        result, reference = engine.train([task], [(spec, 0)], batch_size=16, epochs=2), train(task, spec, 16, 2)
        np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=1e-5)
        np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=1e-4)
        with pytest.raises(EmbedcacheError, match="a head of 8 hidden units cannot start from"):
            engine.train([task], [(replace(spec, hidden=8), 0)], epochs=1)

    @pytest.mark.parametrize("hidden", [0, 40])
    def test_start_from_the_usual_weights_changes_no_bit(self, engine: Engine, hidden: int) -> None:
        task, spec = make_task(120, 21, 3, n_val=60), HeadSpec(hidden=hidden, seed=5)
        usual = {name: array.astype(np.float32) for name, array in train(task, spec, 16, 1).initial.items()}
        given = replace(task, start=WarmStart(usual, np.ones(3, bool)))
        result = engine.train([task, given], [(spec, 0), (spec, 1)], batch_size=16, epochs=2)
        assert same_heads(result, result, [0], [1])

    @pytest.mark.parametrize("hidden", [0, 40])
    @pytest.mark.parametrize("kind", KINDS)
    def test_equal_weights_of_rows_change_no_bit(self, engine: Engine, kind: str, hidden: int) -> None:
        task, spec = make_task(120, 21, 3, n_val=60, kind=kind), HeadSpec(hidden=hidden, seed=5)
        equal = [replace(view, sample_weight=np.ones(len(view.x), np.float32)) for view in (task.train, task.val)]
        tasks = [task, replace(task, train=equal[0], val=equal[1])]
        result = engine.train(tasks, [(spec, 0), (spec, 1)], batch_size=16, epochs=2)
        if engine.engine == "torch":  # its mean is another sum
            np.testing.assert_allclose(*result.history["train_loss"], rtol=1e-6)
        else:
            assert same_heads(result, result, [0], [1])

    @pytest.mark.parametrize("hidden", [0, 32])
    @pytest.mark.parametrize("kind", ["classification", "multilabel"])
    def test_focal_without_gamma_is_the_likelihood(self, engine: Engine, kind: str, hidden: int) -> None:
        task = make_task(200, 24, 4, n_val=50, kind=kind, weighted=True)
        for smoothing in (0.0, 0.1):
            plain = HeadSpec(hidden=hidden, lr=1e-2, label_smoothing=smoothing)
            focal, gamma = replace(plain, loss="focal", focal_gamma=0.0), replace(plain, loss="focal")
            result = engine.train([task], [(plain, 0), (focal, 0), (gamma, 0)], epochs=4)
            for name in ("train_loss", "val_loss"):
                np.testing.assert_allclose(result.history[name][1], result.history[name][0], rtol=1e-4)
            assert (result.history["train_loss"][2] < result.history["train_loss"][0]).all()
            start = train(task, plain, 32, 1).initial
            assert distance(result.heads[1].weights, result.heads[0].weights, start) < 1e-3

    @pytest.mark.parametrize("kind, outputs", [("classification", 2), ("classification", 60), ("multilabel", 60)])
    def test_scores_are_scikit_learns(self, engine: Engine, kind: str, outputs: int) -> None:
        """With labels that no validation row has."""
        from sklearn.metrics import accuracy_score, f1_score

        task = make_task(300, 30, outputs, n_val=300, kind=kind)
        task.val.rows = task.val.rows[: outputs // 2 + 10]
        result = engine.train([task], [(HeadSpec(hidden=32, lr=1e-2), 0)], epochs=6)
        head = result.heads[0]
        y, said = task.val.y[task.val.rows], head.predict(task.val.x[task.val.rows])
        f1 = f1_score(y, said, average="macro", zero_division=np.nan)
        assert head.val_accuracy == pytest.approx(accuracy_score(y, said))
        assert result.history["val_macro_f1"][0, head.best_epoch - 1] == pytest.approx(f1)

    def test_no_label_anywhere_has_no_f1(self, engine: Engine) -> None:
        task = make_task(100, 10, 3, n_val=40, kind="multilabel")
        task.train.y[:] = 0
        result = engine.train([task], [(HeadSpec(hidden=16, lr=0.1), 0)], epochs=3)
        assert np.isnan(result.history["val_macro_f1"][0]).all()
        assert (result.history["val_accuracy"][0] == 1).all()

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
        """Of every kind, with and without validation."""
        tasks = [make_task(200, 33, 2), make_task(150, 20, 5, n_val=70, weighted=True, seed=1)]
        tasks += [make_task(120, 33, 3, n_val=40, kind="multilabel", weighted=True), make_task(90, 8, 7, kind=KINDS[2])]
        heads = [(HeadSpec(hidden=h, seed=s), t) for t in (3, 1, 0, 2) for h in (0, 40) for s in (0, 1)]
        result = engine.train(tasks, heads, batch_size=16, epochs=2)
        for head, losses, (spec, task) in zip(result.heads, result.history["train_loss"], heads, strict=True):
            np.testing.assert_allclose(losses, train(tasks[task], spec, 16, 2).train_loss, rtol=1e-5)
            assert (head.task, head.kind) == (task, tasks[task].kind)
            assert head.weights["b2"].shape == (tasks[task].classes,)
            assert np.isnan(head.val_loss) == (tasks[task].val is None)

    @pytest.mark.parametrize("kind", KINDS)
    def test_probes_start_at_nothing_but_the_shares(self, engine: Engine, kind: str) -> None:
        """With a rate so low that nothing is learnt, whatever the seed: it is only the order of the rows."""
        task = make_task(60, 20, 3, n_val=20, kind=kind)
        y = task.train.y[task.train.rows]
        heads = [(HeadSpec(hidden=0, lr=1e-9, seed=s), 0) for s in (0, 1)]
        if kind != "regression":
            heads.append((HeadSpec(hidden=0, lr=1e-9, class_weight="balanced"), 0))
        for head in engine.train([task], heads, epochs=1).heads:
            assert np.abs(head.weights["w2"]).max() < 1e-7
            p = np.exp(head.predict_log_proba(np.zeros((1, 20))))[0] if kind != "regression" else None
            if head.spec.class_weight:
                np.testing.assert_allclose(p, 1 / 3 if kind == "classification" else 1 / 2, rtol=1e-5)
            elif kind == "classification":
                np.testing.assert_allclose(p, np.bincount(y) / 60, rtol=1e-5)
            elif kind == "multilabel":
                np.testing.assert_allclose(p, y.mean(axis=0), rtol=1e-5)
            else:
                assert np.abs(head.weights["b2"]).max() < 1e-7

    def test_probes_learn_unequal_classes_of_few_rows(self, engine: Engine) -> None:
        """From a random start, or from zero, early stopping kept a loss above that of the shares alone."""
        task = make_task(60, 300, 3, n_val=200, noise=4.0, standardize=True)
        for view in (task.train, task.val):
            rng = np.random.default_rng(len(view.rows))
            view.y = view.y.copy()
            view.y[view.rows] = rng.choice(3, len(view.rows), p=(0.7, 0.2, 0.1)).astype(np.int32)
        y, val = (view.y[view.rows] for view in (task.train, task.val))
        shares = -np.log(np.bincount(y, minlength=3)[val] / len(y)).mean()
        heads = [(HeadSpec(hidden=0, lr=lr), 0) for lr in (1e-4, 1e-3)]
        for head in engine.train([task], heads, epochs=10).heads:
            assert head.val_loss < 1.06 * shares

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_diverging_head_is_named_and_touches_no_other(self, engine: Engine, kind: str) -> None:
        task = make_task(200, 30, 2, n_val=50, kind=kind)
        good = [(HeadSpec(hidden=40, seed=s), 0) for s in range(3)]
        bad = (HeadSpec(hidden=40, lr=1e30), 0)
        alone = engine.train([task], good, epochs=2)
        among = engine.train([task], [good[0], bad, *good[1:]], epochs=2)
        assert [head.status for head in among.heads] == ["ok", "diverged", "ok", "ok"]
        assert among.heads[1].best_epoch == 0
        assert not any(array.any() for array in among.heads[1].weights.values())
        assert among.best.status == "ok"
        assert same_heads(alone, among, [0, 1, 2], [0, 2, 3])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("n_val", [0, 50])
    def test_weights_that_overflow_are_never_returned(self, engine: Engine, n_val: int, kind: str) -> None:
        """Learning rates from stable to hopeless, also where the last step alone overflows."""
        task = make_task(64, 30, 2, n_val=n_val, kind=kind)
        heads = [(HeadSpec(hidden=40, lr=10.0**power), 0) for power in (-2, 0, 4, 12, 18, 25, 30, 35)]
        for epochs in (1, 2):
            result = engine.train([task], heads, epochs=epochs)
            for head in result.heads:
                assert all(np.isfinite(array).all() for array in head.weights.values())
                assert (head.best_epoch > 0) or head.status == "diverged"
            assert result.heads[0].status == "ok"
            assert result.heads[-1].status == "diverged"

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_learns(self, engine: Engine, kind: str) -> None:
        task = make_task(1000, 40, 3, n_val=300, noise=0.1, kind=kind)
        result = engine.train([task], [(HeadSpec(hidden=64, lr=3e-3), 0)], epochs=8)
        quality = result.history["val_r2" if kind == "regression" else "val_macro_f1"][0, -1]
        assert quality > 0.85
        assert (np.diff(result.history["train_loss"][0]) < 0).all()
