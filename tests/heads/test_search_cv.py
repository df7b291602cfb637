"""FusedHeadSearchCV against GridSearchCV: the same scores, from one bank."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold, ShuffleSplit, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedcache.errors import EmbedcacheError
from embedcache.heads import sklearn as heads_sklearn
from embedcache.heads.search_cv import FusedHeadSearchCV
from embedcache.heads.sklearn import FusedHeadClassifier, FusedHeadRegressor

CLASSIFIER = FusedHeadClassifier(hidden=16, random_state=0, epochs=4)
REGRESSOR = FusedHeadRegressor(hidden=16, random_state=0, epochs=4)


@parametrize_with_checks(
    [
        FusedHeadSearchCV(FusedHeadClassifier(hidden=16, random_state=0), {"lr": [1e-3, 1e-2]}),
        FusedHeadSearchCV(FusedHeadRegressor(hidden=16, random_state=0), {"lr": [1e-3, 1e-2]}),
    ]
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def data(n: int = 150) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 8))
    values = X @ rng.normal(size=8)
    return X, np.where(values + rng.normal(size=n) > 0, "yes", "no"), values


@pytest.mark.parametrize(
    ("estimator", "grid", "options"),
    [
        (CLASSIFIER, {"lr": [1e-4, 1e-2], "hidden": [0, 16], "random_state": [0, 1]}, {"cv": 3}),
        (CLASSIFIER, [{"batch_size": [16, 64]}, {"epochs": [2], "class_weight": ["balanced", {"no": 3}]}], {}),
        (CLASSIFIER, {"early_stopping": [True, False], "standardize": [True, False]}, {"cv": KFold(3)}),
        (CLASSIFIER, {"hidden": [0, 16], "dropout": [0.0, 0.3, 0.5]}, {"cv": 3}),
        (CLASSIFIER, {"dropout": [0.0, 0.5]}, {"scoring": "neg_log_loss", "cv": 3, "return_train_score": True}),
        (
            CLASSIFIER,
            {"schedule": ["constant", "cosine"]},
            {"cv": ShuffleSplit(4, random_state=0), "scoring": "roc_auc"},
        ),
        (
            CLASSIFIER,
            {"lr": [1e-3, 1e-2]},
            {"cv": [(list(range(100)), list(range(100, 150))), (np.arange(150) > 60, [1, 2])]},
        ),
        (REGRESSOR, {"lr": [1e-3, 1e-2], "early_stopping": [True, False]}, {"cv": 3}),
    ],
)
def test_scores_are_grid_searchs_to_the_bit(estimator: Any, grid: Any, options: Any) -> None:
    X, labels, values = data()
    y = labels if estimator is CLASSIFIER else values
    ours = FusedHeadSearchCV(estimator, grid, **options).fit(X, y)
    theirs = GridSearchCV(estimator, grid, **options).fit(X, y)
    assert ours.cv_results_.keys() == theirs.cv_results_.keys()
    assert ours.cv_results_["params"] == theirs.cv_results_["params"]
    for name in ours.cv_results_:
        if name.endswith("score"):
            np.testing.assert_array_equal(ours.cv_results_[name], theirs.cv_results_[name])
    assert ours.best_params_ == theirs.best_params_ and ours.best_score_ == theirs.best_score_
    assert ours.n_splits_ == theirs.n_splits_ and (ours.cv_results_["mean_fit_time"] > 0).all()
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
    assert ours.score(X, y) == theirs.score(X, y)


def test_groups_and_column_names_arrive() -> None:
    X, y, _ = data()
    frame, groups = pd.DataFrame(X, columns=list("abcdefgh")), np.arange(len(X)) // 10
    grid = {"lr": [1e-3, 1e-2]}
    ours = FusedHeadSearchCV(CLASSIFIER, grid, cv=GroupKFold(3)).fit(frame, y, groups=groups)
    theirs = GridSearchCV(CLASSIFIER, grid, cv=GroupKFold(3)).fit(frame, y, groups=groups)
    np.testing.assert_array_equal(ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"])
    assert list(ours.feature_names_in_) == list("abcdefgh")


def test_one_bank_trains_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    banks = []
    real = heads_sklearn.train_bank

    def spy(tasks: Any, heads: Any, **options: Any) -> Any:
        banks.append((len(tasks), len(heads)))
        return real(tasks, heads, **options)

    monkeypatch.setattr(heads_sklearn, "train_bank", spy)
    X, y, _ = data()
    grid = {"lr": [1e-4, 1e-3, 1e-2], "hidden": [0, 8]}
    FusedHeadSearchCV(CLASSIFIER, grid, cv=5, refit=False).fit(X, y)
    assert banks == [(5, 30)]  # a task for each fold
    banks.clear()
    FusedHeadSearchCV(CLASSIFIER, {**grid, "batch_size": [16, 32]}, cv=5).fit(X, y)
    assert banks == [(5, 30), (5, 30), (1, 1)]  # the last is the refit


def test_a_candidate_that_explodes_spoils_no_other() -> None:
    X, y, _ = data()
    search = FusedHeadSearchCV(CLASSIFIER, {"lr": [1e-2, 1e30]}, cv=3)
    with pytest.warns(FitFailedWarning), pytest.warns(UserWarning, match="non-finite"):
        search.fit(X, y)
    assert search.best_params_ == {"lr": 1e-2} and np.isnan(search.cv_results_["mean_test_score"][1])


def test_in_a_cross_validation_and_without_refit() -> None:
    X, y, _ = data()
    assert cross_val_score(FusedHeadSearchCV(CLASSIFIER, {"lr": [1e-6, 1e-2]}, cv=3), X, y, cv=3).mean() > 0.6
    search = FusedHeadSearchCV(CLASSIFIER, {"lr": [1e-6, 1e-2]}, cv=3, refit=False).fit(X, y)
    assert search.best_params_ == {"lr": 1e-2} and not hasattr(search, "best_estimator_")


def test_other_estimators_are_refused() -> None:
    X, y, _ = data()
    with pytest.raises(EmbedcacheError, match="not LogisticRegression"):
        FusedHeadSearchCV(LogisticRegression(), {"C": [1.0]}).fit(X, y)
