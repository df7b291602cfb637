"""Heads as scikit-learn estimators: for pipelines, cross-validation and searches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, is_regressor
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, column_or_1d

from embedcache.common.labels import Codes, Labels, unlabelled
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.sample_weights import weigh
from embedcache.heads.spec import SETTINGS, HeadSpec
from embedcache.heads.targets import Targets, class_weights
from embedcache.heads.task import Task, View, standardize_stats
from embedcache.heads.train import train_bank

__all__ = ["FusedHeadClassifier", "FusedHeadRegressor"]


def _validate(estimator: Any, *data: Any, **how: Any) -> Any:
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # scikit-learn before 1.6
        return estimator._validate_data(*data, **how)
    return validate_data(estimator, *data, **how)


class FusedHead(BaseEstimator):
    """What classifier and regressor share: reading X, making a task and a spec of the parameters, keeping the head."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Train on X [n, D] and y; returns self. Raises ValueError for data, EmbedcacheError for settings.

        ``sample_weight`` [n], 0 or more, multiplies each row's loss, that of held-out rows too; only what weights are
        to each other counts, and rows of weight 0 are left out.
        """
        X, y = self._read(X, y)
        weight = None if sample_weight is None else _read_weight(sample_weight, X)
        train_together([(self, np.arange(len(X)))], X, y, weight)
        self._check_trained()
        return self

    def _read(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """X float32 or float16, in place where it is that already, and y, both checked; the features are noted."""
        if isinstance(y, (Labels, Codes)) and unlabelled(codes := y.codes if isinstance(y, Labels) else y).any():
            raise ValueError(
                f"{np.count_nonzero(unlabelled(codes)):,} of {len(codes):,} rows have no label (-1): leave them out, "
                "known = cache.labels(COLUMN).known, and fit(X[known], y[known])"
            )
        X, y = _validate(
            self,
            X,
            y.codes if isinstance(y, Labels) else y,
            multi_output=True,
            y_numeric=is_regressor(self),
            dtype=[np.float32, np.float16],
        )
        return X, self._check_y(y.toarray() if hasattr(y, "toarray") else y)

    def _seed(self) -> int:
        """``random_state`` itself if it is a whole number, else one drawn from it."""
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _spec(self, seed: int) -> HeadSpec:
        names = set(SETTINGS) & set(self.get_params(deep=False)) - {"class_weight"}  # a task's, in scikit-learn's form
        return HeadSpec(seed=seed, **{name: getattr(self, name) for name in names})

    def _options(self) -> dict[str, Any]:
        """What train_bank is told, for all heads of a bank."""
        names = ("batch_size", "epochs", "engine", "device", "compute", "threads")
        early_stop = self.n_iter_no_change if self.early_stopping else 0
        return {**{name: getattr(self, name) for name in names}, "early_stop": early_stop}

    def _task(
        self, X: np.ndarray, y: np.ndarray, rows: np.ndarray, seed: int, weight: np.ndarray | None = None
    ) -> tuple[Task, Targets]:
        """Learning some rows of X and y; the others' values of y are not looked at."""
        targets = self._targets(y[rows])
        all_y = np.zeros((len(X), *targets.y.shape[1:]), targets.y.dtype)
        all_y[rows] = targets.y
        train, val = rows, None
        if self.early_stopping:
            train, held_out = train_test_split(
                rows,
                test_size=self.validation_fraction,
                random_state=seed % 2**32,
                stratify=targets.y if kind_of(targets.kind).exclusive else None,
            )
            val = View(X, all_y, held_out)
        task = Task(View(X, all_y, train), val, targets.outputs, kind=targets.kind)
        task.target_mean, task.target_std = targets.mean, targets.std
        task.class_weight = self._class_weight(y[rows], targets)
        task = weigh(task, weight, weight)
        if self.standardize:
            task.mean, task.inv_std = standardize_stats(X, task.train.rows)
        return task, targets

    def _task_key(self, seed: int) -> Any:
        """Estimators with equal keys learn the same task of the same rows."""
        split = (self.validation_fraction, seed) if self.early_stopping else None
        return split, bool(self.standardize), repr(getattr(self, "class_weight", None))

    def _class_weight(self, y: np.ndarray, targets: Targets) -> np.ndarray | None:
        return None

    def _keep(self, head: TrainedHead, targets: Targets, y: np.ndarray) -> None:
        head.classes = None if targets.classes is None else targets.classes.tolist()
        self.head_, self.n_iter_ = head, head.epochs_run

    def _check_trained(self) -> None:
        if not self.head_.best_epoch:
            raise EmbedcacheError(f"the loss exploded with lr={self.lr:g}: try a lower one, or standardize=True")

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = _validate(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])
        return self.head_.logits(X, np.float64 if X.dtype == np.float64 else np.float32)


class FusedHeadClassifier(ClassifierMixin, FusedHead):
    """Linear(D, hidden) - ReLU - Dropout - Linear(hidden, C), trained by AdamW in the native engine.

    ``hidden``, ``lr``, ``dropout``, ``weight_decay``, ``label_smoothing``, ``schedule``, ``warmup``, ``loss`` and
    ``focal_gamma`` are those of HeadSpec; ``batch_size``, ``epochs``, ``engine``, ``device``, ``compute`` and
    ``threads`` those of train_heads.
    ``standardize``: train on columns of mean 0 and spread 1. ``random_state``: a whole number is the head's seed.
    ``class_weight``: None, "balanced" or a dict class -> weight. With ``early_stopping`` a ``validation_fraction`` of
    the rows chooses the best epoch by its loss, and ``n_iter_no_change`` epochs without a better one end the training.
    The defaults are those of `embedcache train-head`, but for lr: 3e-4 suits a hundred rows and some thousands. X may
    be float16 or float32 (read in place) or other numbers; y holds classes, or is a 0/1 matrix [n, C] of several
    labels a row, each then learned by itself (sigmoid).

    After ``fit``: ``classes_``, ``head_`` (a TrainedHead, with history, save and to_torch), ``n_iter_`` (epochs run),
    ``n_features_in_``, ``feature_names_in_``. Raises ValueError for data and EmbedcacheError for settings.
    """

    def __init__(
        self,
        hidden: int = 512,
        *,
        lr: float = 3e-4,
        dropout: float = 0.1,
        weight_decay: float = 0.01,
        batch_size: int = 32,
        epochs: int = 15,
        random_state: Any = None,
        class_weight: Any = None,
        label_smoothing: float = 0.0,
        schedule: str = "constant",
        warmup: float = 0.0,
        loss: str = "nll",
        focal_gamma: float = 2.0,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        engine: str = "auto",
        device: str = "auto",
        compute: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.hidden = hidden
        self.lr = lr
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state
        self.class_weight = class_weight
        self.label_smoothing = label_smoothing
        self.schedule = schedule
        self.warmup = warmup
        self.loss = loss
        self.focal_gamma = focal_gamma
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.engine = engine
        self.device = device
        self.compute = compute
        self.threads = threads

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _more_tags(self) -> dict[str, bool]:  # the tags of scikit-learn before 1.6
        return {"multilabel": True}

    def _check_y(self, y: np.ndarray) -> np.ndarray:
        check_classification_targets(y)
        return y if type_of_target(y) == "multilabel-indicator" else column_or_1d(y, warn=True)

    def _targets(self, y: np.ndarray) -> Targets:
        if y.ndim == 2:
            return Targets("multilabel", y.astype(np.float32), None, y.shape[1])
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y holds one class only ({classes[0]!r}): a head needs at least two")
        return Targets("classification", codes.astype(np.int32), classes, len(classes))

    def _class_weight(self, y: np.ndarray, targets: Targets) -> np.ndarray | None:
        if self.class_weight is None:
            return None
        if targets.classes is None:
            return class_weights(self.class_weight, targets.y, range(targets.outputs), targets.kind)
        return compute_class_weight(self.class_weight, classes=targets.classes, y=y)

    def _keep(self, head: TrainedHead, targets: Targets, y: np.ndarray) -> None:
        super()._keep(head, targets, y)
        self.classes_ = np.arange(targets.outputs) if targets.classes is None else targets.classes

    @property
    def _multilabel(self) -> bool:
        return not kind_of(self.head_.kind).exclusive

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits [n, C]; of two classes the second's less the first's, [n]."""
        logits = self._logits(X)
        return logits if self._multilabel or logits.shape[1] > 2 else logits[:, 1] - logits[:, 0]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [n, C]: of classes that exclude each other, or of each label by itself."""
        logits = self._logits(X)
        return expit(logits) if self._multilabel else softmax(logits, axis=1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of predict_proba, exact where that is 0 in floating point."""
        logits = self._logits(X)
        return log_expit(logits) if self._multilabel else log_softmax(logits, axis=1)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each row, or a 0/1 matrix [n, C] of labels with probabilities above 1/2."""
        logits = self._logits(X)
        return (logits > 0).astype(int) if self._multilabel else self.classes_[logits.argmax(axis=1)]


class FusedHeadRegressor(RegressorMixin, FusedHead):
    """Linear(D, hidden) - ReLU - Dropout - Linear(hidden, T) with mean squared error; see FusedHeadClassifier.

    y holds numbers [n], or [n, T] for several a row; it is learned at mean 0 and spread 1, and predicted in its own
    units.
    """

    def __init__(
        self,
        hidden: int = 512,
        *,
        lr: float = 3e-4,
        dropout: float = 0.1,
        weight_decay: float = 0.01,
        batch_size: int = 32,
        epochs: int = 15,
        random_state: Any = None,
        schedule: str = "constant",
        warmup: float = 0.0,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        engine: str = "auto",
        device: str = "auto",
        compute: str = "auto",
        threads: int | None = None,
    ) -> None:
        self.hidden = hidden
        self.lr = lr
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state
        self.schedule = schedule
        self.warmup = warmup
        self.standardize = standardize
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.engine = engine
        self.device = device
        self.compute = compute
        self.threads = threads

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _more_tags(self) -> dict[str, bool]:  # the tags of scikit-learn before 1.6
        return {"multioutput": True}

    def _check_y(self, y: np.ndarray) -> np.ndarray:
        return y

    def _targets(self, y: np.ndarray) -> Targets:
        values = y.reshape(len(y), -1).astype(np.float64)
        mean, std = values.mean(axis=0), values.std(axis=0)
        std[std == 0] = 1.0  # a constant is learned as its mean
        scaled = ((values - mean) / std).astype(np.float32)
        return Targets("regression", scaled, None, values.shape[1], mean, std)

    def _keep(self, head: TrainedHead, targets: Targets, y: np.ndarray) -> None:
        super()._keep(head, targets, y)
        self._flat = y.ndim == 1

    def predict(self, X: Any) -> np.ndarray:
        """The values [n], or [n, T] if y had two dimensions."""
        values = self._logits(X)
        return values[:, 0] if self._flat else values


def _read_weight(sample_weight: Any, X: np.ndarray) -> np.ndarray:
    """float64 [n]. Raises ValueError, as scikit-learn's estimators do."""
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
    if (weight < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`")
    if not weight.any():
        raise ValueError("sample_weight is 0 for all rows: give some of them a weight above 0")
    return weight


def train_together(
    jobs: Sequence[tuple[Any, np.ndarray]], X: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None
) -> None:
    """Train estimators, each on its rows of X and y, as heads of one bank; one for each set of options of a bank.

    Estimators that are the same head, such as linear probes that differ in dropout alone, share it.
    """
    banks: dict[str, tuple[dict[str, Any], dict[Any, Any], list[Any]]] = {}
    for estimator, rows in jobs:
        options, seed = estimator._options(), estimator._seed()
        _, tasks, heads = banks.setdefault(repr(options), (options, {}, []))
        key = id(rows), estimator._task_key(seed)
        if key not in tasks:
            tasks[key] = (len(tasks), *estimator._task(X, y, rows, seed, weight))
        heads.append((estimator, estimator._spec(seed), tasks[key]))
    for options, tasks, heads in banks.values():
        specs = list(dict.fromkeys((spec, number) for _, spec, (number, _, _) in heads))
        result = train_bank([task for _, task, _ in tasks.values()], specs, **options)
        if result.cancelled:
            raise KeyboardInterrupt
        trained = dict(zip(specs, result.heads, strict=True))
        for estimator, spec, (number, _, targets) in heads:
            estimator._keep(trained[spec, number], targets, y)
