"""The scikit-learn estimators: scikit-learn's own checks, and the same heads as train_heads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedcache.errors import EmbedcacheError
from embedcache.heads.sklearn import FusedHeadClassifier, FusedHeadRegressor
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import TrainedHead, train_heads

ESTIMATORS = [
    FusedHeadClassifier(),
    FusedHeadClassifier(hidden=0, lr=0.03),
    FusedHeadClassifier(early_stopping=True, validation_fraction=0.25, schedule="cosine", warmup=0.1),
    FusedHeadClassifier(engine="torch", threads=1),
    FusedHeadRegressor(),
    FusedHeadRegressor(hidden=0, lr=0.03),
    FusedHeadRegressor(early_stopping=True, validation_fraction=0.25),
]


# As of scikit-learn's own estimators whose steps take batches of rows in a random order, SGDClassifier and the MLPs:
# a row of weight 2 is worth two rows, and two rows are still in other batches. Weight 0 is tested to the bit below.
NOT_EQUIVALENT = {"check_sample_weight_equivalence_on_dense_data": "repeated rows fall into other batches"}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=lambda estimator: NOT_EQUIVALENT)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def classification(n: int = 240, dim: int = 12, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, dim)).astype(np.float32)
    return X, np.array(["bad", "good", "so-so", "odd"])[(X @ rng.normal(size=(dim, classes))).argmax(axis=1)]


def regression(n: int = 240, targets: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 6)).astype(np.float32)
    return X, 1000 + 50 * X @ rng.normal(size=(6, targets))


def assert_same_weights(a: TrainedHead, b: TrainedHead) -> None:
    assert a.weights.keys() == b.weights.keys()
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name])


@pytest.mark.parametrize("class_weight", [None, "balanced", {"good": 5.0, "bad": 1.0, "so-so": 0.5}])
def test_the_head_is_the_one_that_train_heads_trains(class_weight: Any) -> None:
    X, y = classification()
    settings = {"hidden": 16, "lr": 1e-3, "label_smoothing": 0.1, "schedule": "linear", "warmup": 0.2}
    settings |= {"loss": "focal", "focal_gamma": 1.5}
    ours = FusedHeadClassifier(**settings, random_state=7, class_weight=class_weight, epochs=4, batch_size=50).fit(X, y)
    theirs = train_heads(
        X, y, HeadSpec(**settings, seed=7), class_weight=class_weight, epochs=4, batch_size=50, standardize=True
    )
    assert_same_weights(ours.head_, theirs.heads[0])
    assert (ours.predict(X) == theirs.heads[0].predict(X)).all()
    assert list(ours.classes_) == theirs.heads[0].classes == ["bad", "good", "so-so"]


def test_early_stopping_chooses_by_rows_held_out() -> None:
    X, y = classification()
    settings = {"hidden": 64, "lr": 1e-2}
    ours = FusedHeadClassifier(**settings, random_state=3, early_stopping=True, n_iter_no_change=2, epochs=60).fit(X, y)
    train, val = train_test_split(np.arange(len(X)), test_size=0.1, random_state=3, stratify=y)
    theirs = train_heads(
        X[train],
        y[train],
        HeadSpec(**settings, seed=3),
        validation=(X[val], y[val]),
        early_stop=2,
        epochs=60,
        standardize=True,
    )
    assert_same_weights(ours.head_, theirs.heads[0])
    assert ours.n_iter_ == theirs.heads[0].epochs_run == ours.head_.best_epoch + 2 < 60


def test_random_state_is_scikit_learns() -> None:
    X, y = classification(60)

    def fit(random_state: Any) -> TrainedHead:
        return FusedHeadClassifier(hidden=8, epochs=1, random_state=random_state).fit(X, y).head_

    assert fit(5).spec.seed == fit(np.int64(5)).spec.seed == 5
    assert_same_weights(fit(np.random.RandomState(5)), fit(np.random.RandomState(5)))
    assert fit(None).spec.seed != fit(None).spec.seed
    shared = np.random.RandomState(0)
    assert fit(shared).spec.seed != fit(shared).spec.seed


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_x_is_read_in_place(dtype: type, tmp_path: Path) -> None:
    X, y = classification()
    np.save(tmp_path / "x.npy", X.astype(dtype))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    estimator = FusedHeadClassifier(lr=3e-3, random_state=0)
    assert np.shares_memory(estimator._read(mapped, y)[0], mapped)
    assert (estimator.fit(mapped, y).predict(mapped) == y).mean() > 0.5


def test_probabilities_agree_and_stay_finite_in_logarithms() -> None:
    X, y = classification(classes=4)
    estimator = FusedHeadClassifier(lr=1e-2, epochs=30, random_state=0).fit(X, y)
    far = X * 1000.0
    log_proba = estimator.predict_log_proba(far)
    assert (estimator.predict_proba(far) == 0).any() and np.isfinite(log_proba).all()
    np.testing.assert_allclose(estimator.predict_proba(X).sum(axis=1), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(estimator.classes_[log_proba.argmax(axis=1)], estimator.predict(far))
    assert estimator.decision_function(X).shape == (len(X), 4)
    two = estimator.fit(X, y == "good")
    np.testing.assert_allclose(1 / (1 + np.exp(-two.decision_function(X))), two.predict_proba(X)[:, 1], rtol=1e-4)
    assert two.decision_function(X).shape == (len(X),) and two.predict(X).dtype == bool


def test_several_labels_a_row() -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(400, 10)).astype(np.float32)
    Y = (X @ rng.normal(size=(10, 4)) > [0, 0.5, 1, 2]).astype(int)
    estimator = FusedHeadClassifier(lr=3e-3, epochs=30, random_state=0).fit(X, Y)
    assert list(estimator.classes_) == [0, 1, 2, 3] and (estimator.predict(X) == Y).mean() > 0.95
    np.testing.assert_array_equal(estimator.predict(X), estimator.predict_proba(X) > 0.5)
    np.testing.assert_allclose(np.log(estimator.predict_proba(X)), estimator.predict_log_proba(X), rtol=1e-3, atol=1e-6)
    heavy = clone(estimator).set_params(class_weight={3: 50.0}, epochs=2).fit(X, Y)
    light = clone(estimator).set_params(class_weight={3: 0.02}, epochs=2).fit(X, Y)
    assert heavy.predict(X)[:, 3].mean() > Y[:, 3].mean() > light.predict(X)[:, 3].mean()
    assert_same_weights(clone(estimator).fit(X, scipy.sparse.csr_matrix(Y)).head_, estimator.head_)


def test_in_pipelines_searches_and_cross_validation() -> None:
    X, y = classification()
    pipeline = make_pipeline(MinMaxScaler(), FusedHeadClassifier(lr=3e-3, random_state=0, threads=1))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.75
    grid = {"fusedheadclassifier__hidden": [0, 32], "fusedheadclassifier__lr": [1e-6, 3e-3]}
    search = GridSearchCV(pipeline, grid, cv=3, n_jobs=2).fit(X, y)
    assert search.best_params_["fusedheadclassifier__lr"] == 3e-3 and search.score(X, y) > 0.75
    again = clone(search.best_estimator_)
    assert not hasattr(again[-1], "head_") and again.get_params()["fusedheadclassifier__lr"] == 3e-3


def test_column_names_are_kept_and_checked() -> None:
    X, y = classification(dim=3)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    estimator = FusedHeadClassifier(hidden=4, random_state=0).fit(frame, pd.Series(y))
    assert list(estimator.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        estimator.predict(frame[["b", "a", "c"]])


def test_regression_in_its_own_units() -> None:
    X, Y = regression()
    estimator = FusedHeadRegressor(lr=3e-3, epochs=60, random_state=0, dropout=0.0)
    assert estimator.fit(X, Y[:, 0]).score(X, Y[:, 0]) > 0.98 and estimator.predict(X).shape == (len(X),)
    assert estimator.fit(X, Y).score(X, Y) > 0.98 and estimator.predict(X).shape == Y.shape
    theirs = train_heads(X, Y, estimator.head_.spec, task="regression", epochs=60, standardize=True).heads[0]
    assert_same_weights(estimator.head_, theirs)
    constant = FusedHeadRegressor(random_state=0, weight_decay=0.0).fit(X, np.full(len(X), 7.5))
    np.testing.assert_allclose(constant.predict(X), 7.5, atol=1.0)


@pytest.mark.parametrize(
    ("settings", "change", "error", "message"),
    [
        ({}, {"y": ["a"] * 240}, ValueError, "one class only"),
        ({}, {"X": scipy.sparse.eye(240, format="csr")}, TypeError, "[Ss]parse"),
        ({}, {"y": np.linspace(0, 1, 240)}, ValueError, "Unknown label type"),
        ({"lr": -1}, {}, EmbedcacheError, "lr must be above 0"),
        ({"lr": 1e30}, {}, EmbedcacheError, "the loss exploded with lr=1e"),
        ({"engine": "abacus"}, {}, EmbedcacheError, "engine must be"),
        ({"class_weight": {"nice": 2.0}}, {}, ValueError, "nice|not in class_weight"),
    ],
)
def test_what_cannot_be_trained(settings: Any, change: Any, error: Any, message: str) -> None:
    X, y = classification()
    data = {"X": X, "y": y, **change}
    with pytest.raises(error, match=message):
        FusedHeadClassifier(**settings, random_state=0).fit(**data)


@pytest.mark.parametrize("hidden", [0, 16])
def test_rows_of_weight_0_are_as_if_they_were_not_there(hidden: int) -> None:
    X, y = classification()
    weight = np.random.default_rng(0).choice([0.0, 3.0], len(X))
    few = FusedHeadClassifier(hidden, epochs=3, random_state=0)
    weighed = clone(few).fit(X, y, sample_weight=weight)
    assert_same_weights(weighed.head_, few.fit(X[weight > 0], y[weight > 0]).head_)


def test_a_weighed_probe_comes_to_the_weighed_logistic_regression() -> None:
    """The whole data in each step, no decay: both minimize the same convex loss."""
    X, y = classification(400, 4)
    y[::3] = np.roll(y, 1)[::3]  # noise, without which there is no minimum
    weight = np.random.default_rng(1).exponential(size=len(X)) ** 2
    probe = FusedHeadClassifier(0, lr=0.05, weight_decay=0.0, batch_size=len(X), epochs=1500, random_state=0)
    said = probe.fit(X, y, sample_weight=weight).predict_proba(X)
    expected = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(X, y, sample_weight=weight).predict_proba(X)
    unweighed = LogisticRegression(C=1e8, tol=1e-10, max_iter=5000).fit(X, y).predict_proba(X)
    assert np.abs(said - expected).max() < 1e-3 < 1e-2 < np.abs(unweighed - expected).max()


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (-1.0, "Negative values"),
        (np.nan, "NaN"),
        (0.0, "0 for all rows|non-zero"),
    ],
)
def test_weights_that_cannot_be(weight: float, said: str) -> None:
    X, y = classification()
    with pytest.raises(ValueError, match=said):
        FusedHeadClassifier(epochs=1).fit(X, y, sample_weight=np.full(len(X), weight))
