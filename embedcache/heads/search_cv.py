"""A grid search that trains all its candidates on all folds together, as heads of one bank."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv

from embedcache.errors import EmbedcacheError
from embedcache.heads.sklearn import FusedHead, train_together

__all__ = ["FusedHeadSearchCV"]


class FusedHeadSearchCV(GridSearchCV):
    """GridSearchCV for FusedHeadClassifier and FusedHeadRegressor that trains every candidate on every fold together.

    Candidates that differ in the head's own settings are heads of one bank; those that differ in ``batch_size``,
    ``epochs`` or early stopping make a bank for each value. Parameters, attributes and scores are those of GridSearchCV
    with the same ``random_state``, to the bit on a CPU; a ``mean_fit_time`` is an equal share of the time of all. One
    metric; ``refit`` True or False. All the heads are held at once: candidates x folds x 4 bytes a weight.
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        refit: bool = True,
        cv: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            refit=refit,
            cv=cv,
            error_score=error_score,
            return_train_score=return_train_score,
        )

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import get_tags  # it is not there before 1.6, and neither is a call of this

        tags = super().__sklearn_tags__()
        tags.target_tags = get_tags(self.estimator).target_tags
        return tags

    def fit(self, X: Any, y: Any = None, *, groups: Any = None) -> FusedHeadSearchCV:
        """Search on X [n, D] and y; ``groups`` goes to the splitter. Raises as the estimator's own fit."""
        template = clone(self.estimator)
        if not isinstance(template, FusedHead):
            raise EmbedcacheError(f"FusedHeadSearchCV searches FusedHead estimators, not {type(template).__name__}")
        scorer = check_scoring(template, self.scoring)
        x, checked_y = template._read(X, y)
        splits = list(check_cv(self.cv, y, classifier=is_classifier(template)).split(X, y, groups))
        numbers = np.arange(len(x))
        folds = {_digest(numbers[train]): numbers[train] for train, _ in splits}
        fits = {
            (_name(settings), fold): (clone(template).set_params(**settings), rows)
            for settings in ParameterGrid(self.param_grid)
            for fold, rows in folds.items()
        }
        start = time.perf_counter()
        train_together(list(fits.values()), x, checked_y)
        share = (time.perf_counter() - start) / len(fits)
        for estimator, _ in fits.values():
            estimator.n_features_in_ = template.n_features_in_
            if hasattr(template, "feature_names_in_"):
                estimator.feature_names_in_ = template.feature_names_in_

        def score(found: _Found, rows: np.ndarray, y: Any) -> float:
            return float(scorer(found.estimator_, X.iloc[rows] if hasattr(X, "iloc") else np.asarray(X)[rows], y))

        search = GridSearchCV(
            _Found(fits),
            self.param_grid,
            scoring=score,
            refit=False,
            cv=splits,
            error_score=self.error_score,
            return_train_score=self.return_train_score,
        ).fit(numbers, y)
        search.cv_results_["mean_fit_time"][:], search.cv_results_["std_fit_time"][:] = share, 0.0
        for name in ("cv_results_", "n_splits_", "multimetric_", "best_index_", "best_params_", "best_score_"):
            setattr(self, name, getattr(search, name))
        self.scorer_ = scorer
        if self.refit:
            start = time.perf_counter()
            self.best_estimator_ = clone(template).set_params(**clone(self.best_params_, safe=False)).fit(X, y)
            self.refit_time_ = time.perf_counter() - start
            if hasattr(template, "feature_names_in_"):
                self.feature_names_in_ = template.feature_names_in_
        return self


class _Found(BaseEstimator):
    """Stands for an estimator in a search by row numbers: its fit looks up what has been trained."""

    def __init__(self, fits: dict[Any, Any]) -> None:
        self.fits = fits

    def __sklearn_clone__(self) -> _Found:
        return _Found(self.fits)  # never a copy of the heads

    def set_params(self, **settings: Any) -> _Found:
        self.settings_ = settings
        return self

    def fit(self, rows: np.ndarray, y: Any) -> _Found:
        self.estimator_, _ = self.fits[_name(self.settings_), _digest(rows)]
        self.estimator_._check_trained()
        return self


def _name(settings: dict[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _digest(rows: np.ndarray) -> bytes:
    return hashlib.blake2b(rows.tobytes(), digest_size=16).digest()
