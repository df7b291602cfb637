"""The public train_heads, what goes into it and what comes out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_torch
from embedcache.heads.arrays import finite
from embedcache.heads.spec import HeadSpec, head_grid
from embedcache.heads.train import TrainedHead, View, class_weights, standardize_stats, train_bank, train_heads
from tests.heads.engines import make_task

RNG = np.random.default_rng(0)
X = RNG.standard_normal((300, 20)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
SMALL = HeadSpec(hidden=16, lr=1e-2)


def quick(x=X, y=Y, grid=SMALL, **options):
    return train_heads(x, y, grid, **{"epochs": 2, "device": "cpu", **options})


def test_result() -> None:
    grid = head_grid(hidden=[0, 16], seed=range(2))
    result = quick(grid=grid, epochs=3, validation=(X[:50], Y[:50]))
    assert [head.spec for head in result.heads] == grid
    assert set(result.history) == {"train_loss", "val_loss", "val_accuracy", "val_macro_f1", "val_r2"}
    assert all(values.shape == (4, 3) for values in result.history.values())
    assert np.isnan(result.history["val_r2"]).all()  # of a regression only
    assert result.best.val_loss == min(head.val_loss for head in result.heads)
    assert result.seconds > 0
    assert not result.cancelled
    head = result.heads[3]
    assert {name: array.shape for name, array in head.weights.items()} == {
        "w1": (16, 20),
        "b1": (16,),
        "w2": (2, 16),
        "b2": (2,),
    }
    assert all(array.dtype == np.float32 for array in head.weights.values())
    assert set(result.heads[0].weights) == {"w2", "b2"}


def test_labels_of_any_kind() -> None:
    words = np.where(Y, "good", "bad")
    expected = quick().heads[0].weights["w1"]
    numbers = (Y.astype(bool), Y + 5, torch.tensor(Y), Y.astype(np.uint8), Y.astype(object), Y.tolist())
    for y in (words, words.tolist(), words.astype(object), *numbers):
        head = quick(y=y, epochs=12).heads[0]
        labels = y.numpy() if isinstance(y, torch.Tensor) else np.asarray(y)
        assert head.classes == np.unique(labels).tolist()
        assert head.predict(X).dtype.kind in "Ubi"
        assert (head.predict(X) == labels).mean() > 0.9
        assert (quick(y=y).heads[0].weights["w1"] == expected).all()


def test_numbers_of_numpy() -> None:
    result = quick(epochs=np.int64(3), batch_size=np.int32(16), early_stop=np.uint8(0), threads=np.int64(1))
    assert (result.heads[0].weights["w1"] == quick(epochs=3, batch_size=16).heads[0].weights["w1"]).all()


def test_matrices_of_any_kind() -> None:
    expected = quick().heads[0].weights["w1"]
    for x in (X.astype(np.float64), X.tolist(), torch.tensor(X), torch.tensor(X, requires_grad=True), X.astype(">f4")):
        assert (quick(x).heads[0].weights["w1"] == expected).all()
    half = quick(X.astype(np.float16)).heads[0].weights["w1"]
    assert (quick(X.astype(np.float16).astype(np.float32)).heads[0].weights["w1"] == half).all()
    assert (quick(torch.tensor(X).half()).heads[0].weights["w1"] == half).all()
    quick(torch.tensor(X).bfloat16())
    quick((X * 10).astype(np.int32))


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_standardisation_is_folded_in(engine: str) -> None:
    x = X * RNG.uniform(1, 100, 20).astype(np.float32) + 50
    x[:, 3] = 7  # constant
    for hidden in (0, 16):
        head = quick(
            x, grid=HeadSpec(hidden=hidden, lr=1e-2), standardize=True, engine=engine, epochs=10, threads=1
        ).heads[0]
        assert (head.predict(x) == Y).mean() > 0.9
        mean, inv_std = standardize_stats(x, np.arange(len(x)))
        same = quick(
            (x - mean) * inv_std, grid=HeadSpec(hidden=hidden, lr=1e-2), engine=engine, epochs=10, threads=1
        ).heads[0]
        inside = same.predict_log_proba((x - mean) * inv_std)
        np.testing.assert_allclose(head.predict_log_proba(x), inside, atol=2e-3)


def test_standardize_stats() -> None:
    x = (RNG.standard_normal((20_000, 5)) * [1, 10, 0.1, 0, 1] + [0, 1000, 0, 3, -5]).astype(np.float32)
    rows = RNG.permutation(20_000)[:15_000]
    mean, inv_std = standardize_stats(x, rows)
    used = x[rows].astype(np.float64)
    np.testing.assert_allclose(mean, used.mean(axis=0), atol=1e-6, rtol=1e-6)
    spread = [0, 1, 2, 4]
    np.testing.assert_allclose(inv_std[spread], 1 / used.std(axis=0)[spread], rtol=1e-6)
    assert inv_std[3] == 1


def test_a_dead_unit_is_not_blown_up() -> None:
    """As a MiniLM has it: two subnormal float16 values. What rounds otherwise must not change the outputs."""
    x = np.random.default_rng(0).standard_normal((400, 8)).astype(np.float16)
    x[:, 2] = np.where(np.arange(400) % 97 == 0, -6e-8, -1.2e-7)
    y = (x[:, 0] > 0).astype(np.int64)
    assert standardize_stats(x, np.arange(400))[1][2] == 1
    head = train_heads(x, y, HeadSpec(hidden=8, lr=1e-2), standardize=True, epochs=3).heads[0]
    before = head.logits(x)
    x[:, 2] = 1e-7
    np.testing.assert_allclose(head.logits(x), before, atol=1e-5)


def test_class_weights() -> None:
    codes = np.array([0, 0, 0, 1], np.int32)
    np.testing.assert_allclose(class_weights("balanced", codes, ["a", "b"]), [4 / 6, 2])
    np.testing.assert_allclose(class_weights({"b": 3.0}, codes, ["a", "b"]), [1, 3])
    assert class_weights("none", codes, ["a", "b"]) is None
    y = np.where(RNG.random(300) < 0.1, "rare", "often")  # nothing to learn: the loss alone decides
    plain, balanced = quick(y=y, epochs=5), quick(y=y, epochs=5, class_weight="balanced")
    counts = [(result.heads[0].predict(X) == "rare").sum() for result in (plain, balanced)]
    assert counts[1] > counts[0]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"x": X[:0], "y": Y[:0]}, "no rows"),
        ({"x": X[0]}, "matrix"),
        ({"x": None}, "matrix"),
        ({"x": [[1.0, 2.0]] * 299 + [[3.0]]}, "not of one length"),
        ({"x": X[:, :0]}, "matrix"),
        ({"x": np.full((300, 2), "a")}, "numbers"),
        ({"y": Y[:-1]}, "300 rows, but y has shape"),
        ({"y": Y * 0}, r"one class only \(0\)"),
        ({"y": Y * 0.5}, "integers or strings"),
        ({"y": [None] + ["a"] * 299}, "without missing"),
        ({"y": [float("nan"), "b"] + ["a"] * 298}, "without missing"),
        ({"y": [1, "b"] + ["a"] * 298}, "all integers or all strings"),
        ({"grid": []}, "no heads"),
        ({"batch_size": 0}, "batch_size must be between 1 and"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"early_stop": -1}, "early_stop"),
        ({"threads": -1}, "threads"),
        ({"engine": "jax"}, "engine must be"),
        ({"device": "tpu"}, "unknown device 'tpu': use auto, cpu, cuda or cuda:N"),
        ({"device": 0}, "unknown device 0"),
        ({"compute": "tf32"}, "float32 or bfloat16"),
        ({"compute": "int8"}, "compute must be"),
        ({"class_weight": "heavy"}, "class_weight"),
        ({"class_weight": [1, 2, 3]}, "3 weights for 2 classes"),
        ({"class_weight": [1, 0]}, "above 0"),
        ({"class_weight": {"x": 1}}, "not a class"),
        ({"validation": X}, "must be a pair"),
        ({"validation": (X[:, :5], Y)}, "5 columns"),
        ({"validation": (X, Y + 7)}, "not a class of y"),
        ({"validation": (X, Y.astype(str))}, "another type"),
        ({"validation": (X, Y[:5])}, "y has shape"),
        ({"validation": (X[:0], Y[:0])}, "validation X has no rows"),
        ({"validation": (X * np.float32(np.nan), Y)}, "validation.*NaN"),
        ({"early_stop": 2}, "needs validation"),
    ],
)
def test_bad_input(change: dict, words: str) -> None:
    with pytest.raises(EmbedcacheError, match=words) as error:
        quick(**change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_by_row(dtype: type, bad: float) -> None:
    x = np.zeros((9000, 3), dtype)
    x[8500, 1] = bad
    y = np.arange(9000) % 2
    for standardize in (False, True):
        with pytest.raises(EmbedcacheError, match="first in row 8500"):
            quick(x, y, standardize=standardize)
    with pytest.raises(EmbedcacheError, match="first in row 8500"):
        quick(np.zeros((10, 3), dtype), y[:10], validation=(x, y))
    task = make_task(20, 3, 2)
    task.train = View(x, y.astype(np.int32), np.arange(100))  # the bad row is not used
    train_bank([task], [(SMALL, 0)], epochs=1, device="cpu")
    assert finite(np.array([[65504.0]], np.float16))


def test_bank_errors() -> None:
    task = make_task(20, 3, 2)
    with pytest.raises(EmbedcacheError, match="task 1, but there are 1"):
        train_bank([task], [(SMALL, 1)])
    task.train.rows = np.array([0, 23])
    with pytest.raises(EmbedcacheError, match=r"outside 0\.\.22"):
        train_bank([task], [(SMALL, 0)])
    task = make_task(20, 3, 2)
    task.train.y[task.train.rows[4]] = -1
    with pytest.raises(EmbedcacheError, match=f"row {task.train.rows[4]} of the train data has class -1"):
        train_bank([task], [(SMALL, 0)])
    task.mean = np.zeros(3, np.float32)
    task.train.y[task.train.rows[4]] = 0
    with pytest.raises(EmbedcacheError, match="both mean and inv_std"):
        train_bank([task], [(SMALL, 0)])


@pytest.mark.parametrize("hidden", [0, 16])
def test_a_head_goes_to_torch_and_to_disk(hidden: int, tmp_path) -> None:
    y = np.where(Y, "良い", "bad")
    head = quick(y=y, grid=HeadSpec(hidden=hidden), validation=(X, y)).heads[0]
    expected = head.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(expected).sum(axis=1), 1, rtol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(head.to_torch()(torch.tensor(X)).numpy(), expected, atol=1e-5)
    head.save(tmp_path / "head.safetensors")
    loaded = TrainedHead.load(tmp_path / "head.safetensors")
    assert (loaded.predict_log_proba(X) == expected).all()
    assert loaded.metadata() == head.metadata()
    assert loaded.predict(X[:3]).tolist() == head.predict(X[:3]).tolist()


def test_damaged_files_are_said_so(tmp_path) -> None:
    with pytest.raises(EmbedcacheError, match="no such file"):
        TrainedHead.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(EmbedcacheError, match="not a saved head"):
        TrainedHead.load(tmp_path / "text")
    from safetensors.numpy import save_file

    save_file({"w2": np.zeros((2, 2), np.float32)}, tmp_path / "other")
    with pytest.raises(EmbedcacheError, match="not a saved head"):
        TrainedHead.load(tmp_path / "other")


def test_prediction_checks_its_input() -> None:
    head = quick().heads[0]
    assert head.predict_log_proba(X[:0]).shape == (0, 2)
    with pytest.raises(EmbedcacheError, match="reads \\[rows, 20\\]"):
        head.predict(X[:, :5])


def test_ctrl_c_in_the_torch_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_torch, "TELL_SECONDS", 0)

    def interrupt(done: int, total: int, rows: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    result = quick(grid=head_grid(hidden=8, seed=range(4)), engine="torch", progress=interrupt)
    assert [head.status for head in result.heads] == ["ok", "ok", "cancelled", "cancelled"]


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_only_what_weights_of_rows_are_to_each_other_counts(kind: str) -> None:
    task = make_task(80, 12, 3, n_val=40, kind=kind)
    x, y, xv, yv = (part[view.rows] for view in (task.train, task.val) for part in (view.x, view.y))
    weight, val_weight = np.random.default_rng(0).choice([0.0, 1.0, 4.0], (2, 80))
    options = {"task": kind, "epochs": 3, "device": "cpu", "standardize": True}
    one = train_heads(x, y, SMALL, validation=(xv, yv, val_weight[:40]), sample_weight=weight, **options)
    other = train_heads(x, y, SMALL, validation=(xv, yv, 8 * val_weight[:40]), sample_weight=2 * weight, **options)
    assert all((one.heads[0].weights[name] == array).all() for name, array in other.heads[0].weights.items())
    plain = train_heads(x, y, SMALL, validation=(xv, yv), **options)
    constant = train_heads(x, y, SMALL, validation=(xv, yv), sample_weight=np.full(80, 0.3), **options)
    assert all((plain.heads[0].weights[name] == array).all() for name, array in constant.heads[0].weights.items())
    assert plain.heads[0].val_loss != one.heads[0].val_loss


def test_the_validation_loss_is_the_weighed_mean_of_scikit_learn() -> None:
    from scipy.special import softmax
    from sklearn.metrics import log_loss, r2_score

    task = make_task(80, 12, 3, n_val=40)
    x, y, xv, yv = (part[view.rows] for view in (task.train, task.val) for part in (view.x, view.y))
    weight = np.random.default_rng(0).choice([0.0, 1.0, 4.0], 40)
    balanced = {"class_weight": [2.0, 0.5, 1.0], "epochs": 1, "device": "cpu"}
    head = train_heads(x, y, SMALL, validation=(xv, yv, weight), **balanced).heads[0]
    of_class = np.array(balanced["class_weight"])[yv]
    p = softmax(head.logits(xv, np.float64), axis=1)
    expected = log_loss(yv, p, sample_weight=weight * of_class, labels=[0, 1, 2])
    assert head.val_loss == pytest.approx(expected, rel=1e-5)

    numbers = (x[:, 0] + 3, xv[:, 0] + 3)
    bank = train_heads(x, numbers[0], SMALL, validation=(xv, numbers[1], weight), task="regression", epochs=1)
    expected = r2_score(numbers[1], bank.heads[0].predict(xv), sample_weight=weight)
    assert bank.history["val_r2"][0, 0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (np.ones(3), "80 rows, but the sample weights have shape"),
        (-np.ones(80), "row 0 of the training data has the weight -1"),
        (np.zeros(80), "all 80 training rows have a weight of 0"),
        (["a"] * 80, "must be numbers"),
    ],
)
def test_weights_of_rows_that_cannot_be(weight: object, said: str) -> None:
    with pytest.raises(EmbedcacheError, match=said):
        train_heads(np.ones((80, 2), np.float32), np.arange(80) % 2, SMALL, sample_weight=weight)
