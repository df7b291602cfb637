"""What y may be in train_heads: labels, several labels a row, numbers; and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, r2_score

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec
from embedcache.heads.targets import class_weights
from embedcache.heads.train import TrainedHead, train_bank, train_heads
from tests.heads.engines import make_task

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 12)).astype(np.float32)
THERE = X[:, :3] > 0.3
LISTS = [[name for name, is_ in zip("abc", row, strict=True) if is_] for row in THERE]
NUMBER = X[:, 0] - 2 * X[:, 1]
SMALL = HeadSpec(hidden=16, lr=1e-2)


def quick(y, grid=SMALL, x=X, **options):
    return train_heads(x, y, grid, **{"epochs": 2, "device": "cpu", "threads": 1, **options})


def long(y, **options):
    return quick(y, epochs=20, **options).heads[0]


class TestMultilabel:
    def test_lists_of_labels(self) -> None:
        """Of words, numbers, in any order and container; a row may have none."""
        assert any(not labels for labels in LISTS)
        expected = long(LISTS)
        assert (expected.kind, expected.classes) == ("multilabel", ["a", "b", "c"])
        assert np.mean([said == labels for said, labels in zip(expected.predict(X), LISTS, strict=True)]) > 0.8
        for y in (
            [set(labels) for labels in LISTS],
            tuple(tuple(labels[::-1]) for labels in LISTS),
            [np.array(labels) for labels in LISTS],
            np.fromiter(LISTS, object, len(LISTS)),
            [labels * 2 for labels in LISTS],
        ):
            assert (long(y).weights["w1"] == expected.weights["w1"]).all()
        numbers = long([["abc".index(name) + 7 for name in labels] for labels in LISTS])
        assert numbers.classes == [7, 8, 9]
        assert (numbers.weights["w1"] == expected.weights["w1"]).all()

    def test_matrix_of_0_and_1(self) -> None:
        expected = long(LISTS).weights["w1"]
        as_torch = torch.tensor(THERE)
        for y in (THERE, THERE.astype(int), THERE.astype(np.float64), THERE.tolist(), as_torch, as_torch.float()):
            head = long(y)
            assert (head.weights["w1"] == expected).all()
            assert head.classes is None
            assert (head.predict(X) == THERE).mean() > 0.9
        column = quick(THERE[:, :1], task="multilabel").heads[0]
        assert column.predict(X).shape == (300, 1)

    def test_probabilities_of_each_label_by_itself(self) -> None:
        head = long(LISTS, validation=(X, LISTS))
        log_proba, logits = head.predict_log_proba(X), head.logits(X)
        np.testing.assert_allclose(log_proba, torch.nn.functional.logsigmoid(torch.tensor(logits)), atol=1e-6)
        np.testing.assert_allclose(head.predict_proba(X), np.exp(log_proba))
        said = np.array([[name in labels for name in "abc"] for labels in head.predict(X)])
        assert (said == (head.predict_proba(X) > 0.5)).all()
        assert head.val_accuracy == pytest.approx((said == THERE).all(axis=1).mean())
        f1 = head.history["val_macro_f1"][head.best_epoch - 1]
        assert f1 == pytest.approx(f1_score(THERE, said, average="macro"))
        extreme = replace(head, weights={**head.weights, "b2": np.array([-1e4, 0, 1e4], np.float32)})
        assert np.isfinite(extreme.predict_log_proba(X)).all()

    def test_validation_in_the_same_codes(self) -> None:
        result = quick(LISTS, validation=(X, [["c"]] * 300))
        assert result.history["val_loss"][0] == pytest.approx(
            quick(LISTS, validation=(X, np.tile([0, 0, 1], (300, 1)))).history["val_loss"][0]
        )

    def test_class_weights_are_pos_weights(self) -> None:
        y = np.stack([RNG.random(300) < 0.1, RNG.random(300) < 0.5], axis=1)  # nothing to learn
        plain, balanced = (long(y, class_weight=weight) for weight in (None, "balanced"))
        counts = [head.predict(X)[:, 0].sum() for head in (plain, balanced)]
        assert counts[1] > counts[0]
        weight = class_weights("balanced", y.astype(np.float32), [0, 1], "multilabel")
        np.testing.assert_allclose(weight, (1 - y.mean(axis=0)) / y.mean(axis=0), rtol=1e-6)
        weight = class_weights({"b": 4.0}, y.astype(np.float32), ["a", "b"], "multilabel")
        assert weight is not None and weight.tolist() == [1, 4]


class TestRegression:
    def test_predictions_have_ys_own_units(self) -> None:
        plain, scaled = long(NUMBER, task="regression"), long(NUMBER * 1000 - 50, task="regression")
        assert r2_score(NUMBER, plain.predict(X)) > 0.95
        np.testing.assert_allclose(scaled.predict(X), plain.predict(X) * 1000 - 50, rtol=1e-3, atol=0.5)
        assert plain.predict(X).dtype == np.float32

    @pytest.mark.parametrize("standardize", [False, True])
    def test_losses_are_of_ys_spread(self, standardize: bool) -> None:
        """1 is what the mean alone reaches; r2 beside it."""
        train, val = slice(0, 200), slice(200, 300)
        y = NUMBER * 1000 - 50
        head = quick(
            y[train],
            x=X[train] * 3 + 1,
            validation=(X[val] * 3 + 1, y[val]),
            task="regression",
            standardize=standardize,
        ).heads[0]
        said, best = head.predict(X[val] * 3 + 1), head.best_epoch - 1
        assert head.val_loss == pytest.approx(np.mean((said - y[val]) ** 2) / y[train].var(), rel=1e-4)
        assert head.history["val_r2"][best] == pytest.approx(r2_score(y[val], said), rel=1e-4)
        assert np.isnan(head.val_accuracy)
        assert np.isnan(head.history["val_macro_f1"]).all()

    def test_several_values_and_any_container(self) -> None:
        two = np.stack([NUMBER, X[:, 2] * 50 + 1000], axis=1)
        head = long(two, task="regression", validation=(X, two))
        assert head.predict(X).shape == (300, 2)
        assert r2_score(two, head.predict(X)) > 0.9
        assert head.history["val_r2"][head.best_epoch - 1] == pytest.approx(r2_score(two, head.predict(X)), rel=1e-3)
        expected = long(NUMBER, task="regression").weights["w2"]
        for y in (NUMBER.tolist(), torch.tensor(NUMBER), NUMBER[:, None], NUMBER.astype(object)):
            assert (long(y, task="regression").weights["w2"] == expected).all()
        quick(np.arange(300), task="regression")

    def test_no_probabilities(self) -> None:
        head = quick(NUMBER, task="regression").heads[0]
        for method in (head.predict_log_proba, head.predict_proba):
            with pytest.raises(EmbedcacheError, match="no probabilities"):
                method(X)

    def test_a_diverged_head_stays_zeros(self) -> None:
        """And is not given the mean of y."""
        result = quick(NUMBER + 5, [SMALL, replace(SMALL, lr=1e30)], task="regression")
        assert [head.status for head in result.heads] == ["ok", "diverged"]
        assert not any(array.any() for array in result.heads[1].weights.values())
        assert result.best is result.heads[0]


def test_numbers_are_classes_unless_a_regression_is_asked_for() -> None:
    y = (NUMBER > 0).astype(int)
    assert quick(y).heads[0].kind == "classification"
    assert quick(y, task="classification").heads[0].predict_log_proba(X).shape == (300, 2)
    assert quick(y, task="regression").heads[0].logits(X).shape == (300, 1)


@pytest.mark.parametrize("kind, y", [("multilabel", LISTS), ("multilabel", THERE), ("regression", NUMBER)])
@pytest.mark.parametrize("hidden", [0, 16])
def test_a_head_goes_to_torch_and_to_disk(hidden: int, kind: str, y, tmp_path) -> None:
    head = quick(y, replace(SMALL, hidden=hidden), task=kind, validation=(X, y), standardize=True).heads[0]
    expected = head.logits(X) if kind == "regression" else head.predict_log_proba(X)
    with torch.no_grad():
        np.testing.assert_allclose(head.to_torch()(torch.tensor(X)).numpy(), expected, atol=1e-5)
    head.save(tmp_path / "head.safetensors")
    loaded = TrainedHead.load(tmp_path / "head.safetensors")
    assert (loaded.logits(X) == head.logits(X)).all()
    assert loaded.metadata() == head.metadata()
    assert str(loaded.predict(X[:9])) == str(head.predict(X[:9]))  # arrays and lists alike


def at_row_7(y: np.ndarray, value: float) -> np.ndarray:
    y = y.astype(float)
    y[7] = value
    return y


@pytest.mark.parametrize(
    "y, options, words",
    [
        (THERE, {"task": "ranking"}, "task must be auto, classification, multilabel or regression, not 'ranking'"),
        (THERE, {"task": None}, "task must be auto"),
        (THERE, {"task": "classification"}, r"y has shape \[300, 3\]"),
        (LISTS, {"task": "classification"}, "integers or strings"),
        (NUMBER, {}, "integers or strings, not float32"),
        (THERE[:-1], {}, r"300 rows, but y has shape \[299, 3\]"),
        (LISTS[:-1], {}, "300 rows, but y has 299"),
        ([], {"task": "multilabel"}, "300 rows, but y has 0"),
        ([], {}, r"300 rows, but y has shape \[0\]"),
        ([[]] * 300, {}, "no row of y has a label"),
        ([None, *LISTS[1:]], {"task": "multilabel"}, "row 0 .* is None, not a list of labels"),
        ([*LISTS[:7], ["a", None], *LISTS[8:]], {}, "without missing values"),
        ([*LISTS[:7], ["a", 1], *LISTS[8:]], {}, "all integers or all strings"),
        (["ab"] * 300, {"task": "multilabel"}, "row 0 .* is 'ab', not a list of labels"),
        (at_row_7(THERE, 2), {"task": "multilabel"}, "row 7 .* something else than 0 and 1"),
        (at_row_7(THERE, -1), {"task": "multilabel"}, "row 7 .* something else than 0 and 1"),
        (at_row_7(THERE, np.nan), {"task": "multilabel"}, "row 7 .* something else than 0 and 1"),
        (at_row_7(NUMBER, np.nan), {"task": "regression"}, "row 7 of the training y is NaN"),
        (at_row_7(NUMBER, -np.inf), {"task": "regression"}, "row 7 of the training y is NaN, infinite"),
        (at_row_7(NUMBER, 1e37), {"task": "regression"}, "row 7 of the training y is NaN, infinite or beyond 1e"),
        ([None, *NUMBER[1:]], {"task": "regression"}, "row 0 of the training y is NaN"),
        (NUMBER * 0, {"task": "regression"}, "one value only"),
        (np.stack([NUMBER, NUMBER * 0], 1), {"task": "regression"}, "column 1 of y holds one value only"),
        (["a"] * 300, {"task": "regression"}, "y must hold numbers"),
        (NUMBER[:5], {"task": "regression"}, r"300 rows, but y has shape \[5\]"),
        (NUMBER.reshape(300, 1, 1), {"task": "regression"}, r"y has shape \[300, 1, 1\]"),
        (NUMBER, {"task": "regression", "class_weight": "balanced"}, "regression has no classes"),
        (NUMBER, {"task": "regression", "class_weight": [2]}, "regression has no classes"),
        (NUMBER, {"task": "regression", "grid": replace(SMALL, label_smoothing=0.1)}, "regression has no classes"),
        (NUMBER, {"task": "regression", "grid": replace(SMALL, loss="focal")}, "no classes: leave out loss"),
        (NUMBER, {"task": "regression", "grid": replace(SMALL, class_weight=(1,))}, "regression has no classes"),
        (LISTS, {"class_weight": {"z": 2.0}}, "class_weight names 'z'"),
        (LISTS, {"class_weight": [1, 2]}, "2 weights for 3 classes"),
        (LISTS, {"grid": replace(SMALL, class_weight=(1, 2))}, "class_weight must be 3"),
        (
            LISTS,
            {"validation": (X, [["z"], *LISTS[1:]])},
            "row 0 of the validation y holds 'z', which is not a label of y",
        ),
        (LISTS, {"validation": (X, ["a"] * 300)}, "row 0 of the validation y is 'a'"),
        (LISTS, {"validation": (X, THERE[:, :2])}, "validation y has 2 labels, but y has 3"),
        (THERE, {"validation": (X, THERE[:9])}, "validation X has 300 rows"),
        (NUMBER, {"task": "regression", "validation": (X, X[:, :2])}, "validation y has 2 columns, but y has 1"),
        (NUMBER, {"task": "regression", "validation": (X, at_row_7(NUMBER, np.nan))}, "row 7 of the validation y"),
    ],
)
def test_bad_input(y, options: dict, words: str) -> None:
    with pytest.raises(EmbedcacheError, match=words) as error:
        quick(y, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "kind, bad, words",
    [
        ("classification", 7, "class 7, outside 0..1"),
        ("multilabel", 0.5, "a label that is neither 0 nor 1"),
        ("multilabel", np.nan, "a label that is neither 0 nor 1"),
        ("regression", np.inf, "a target that is NaN or infinite"),
    ],
)
def test_a_bank_names_the_row(kind: str, bad: float, words: str) -> None:
    task = make_task(20, 3, 2, n_val=9, kind=kind)
    row = task.val.rows[4]
    task.val.y[row] = bad
    with pytest.raises(EmbedcacheError, match=f"row {row} of the validation data has {words}"):
        train_bank([task], [(SMALL, 0)])
    task.val.rows = np.delete(task.val.rows, 4)  # a row that is not used may hold anything
    train_bank([task], [(SMALL, 0)], epochs=1, device="cpu")


def test_a_bank_checks_kind_and_shape() -> None:
    task = make_task(20, 3, 2, kind="multilabel")
    with pytest.raises(EmbedcacheError, match="2 columns, not shape"):
        train_bank([replace(task, train=replace(task.train, y=task.train.y[:, :1]))], [(SMALL, 0)])
    with pytest.raises(EmbedcacheError, match="one class a row"):
        train_bank([replace(task, kind="classification")], [(SMALL, 0)])
    with pytest.raises(EmbedcacheError, match="a task must be"):
        train_bank([replace(task, kind="ranking")], [(SMALL, 0)])
    with pytest.raises(EmbedcacheError, match="every class weight must be above 0"):
        train_bank([replace(task, class_weight=np.array([1, 0]))], [(SMALL, 0)])
