"""What a head must beat, on the very same rows: the commonest class (or the mean), TF-IDF with a linear model, and that
model on the cached vectors.

The strength of the linear models' penalty is chosen as the heads are: on the validation rows, or over the folds, by the
metric of --choose; where all heads are weighted by class, or rows by --weight, so are they. What a
baseline predicts is kept, so that a head can be compared with it row by row.
"""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import LABELS, NUMBERS, kind_of
from embedcache.heads.targets import class_weights
from embedcache.runs.baseline_features import (
    BaselineRows,
    Features,
    TfidfFeatures,
    VectorFeatures,
    training_texts,
    training_vectors,
)
from embedcache.runs.scores import headlines, measure_all

# The penalties tried: C of the logistic regression, alpha of the ridge regression; the first where nothing can choose.
TFIDF = {"C": (1.0, 3.0, 10.0), "alpha": (0.3, 1.0, 3.0)}
SCALED = {"C": (0.01, 0.001, 0.1, 1.0), "alpha": (100.0, 10.0, 1000.0, 10_000.0)}  # on standardized vectors
RAW = {"C": (10.0, 1.0, 100.0, 1000.0), "alpha": (1.0, 0.1, 10.0, 100.0)}
CHUNK_ROWS = 8192


@dataclass
class Fitted:
    """What a baseline found.

    Attributes:
        scores: JSON types.
        predicted: "val" and "test" -> predictions in the form of y, of the rows of ``BaselineRows``.
    """

    scores: dict[str, Any]
    predicted: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline(ABC):
    """One baseline.

    Attributes:
        name: in run.json.
        title: in a table; ``long``: in a sentence for those who meet it for the first time.
        kinds: the kinds of task that have it.
        called: what notes call it; ``instead``: what may help a head that it beats, "" for the encoder's poolings.
        reads: "texts" or "vectors" where it learns from these, "" where it learns nothing.
    """

    name: str
    title: str
    long: str
    kinds: tuple[str, ...]
    called: str = ""
    instead: str = ""
    reads: str = ""

    @abstractmethod
    def fit(self, rows: BaselineRows, strength: float | None = None) -> Fitted:
        """Learn from split.train and predict. strength: the penalty that was chosen before; None: one is chosen."""

    def option(self, kind: str) -> str | None:
        """What its penalty is called among its scores; None where it has none."""
        return None


@dataclass(frozen=True)
class Constant(Baseline):
    """The same answer for every row, whatever its text: the commonest class, or the mean."""

    def fit(self, rows: BaselineRows, strength: float | None = None) -> Fitted:
        """The majority of lists holds every label that more than half of the rows have."""

        def always(train: np.ndarray) -> Any:
            y = rows.y[train]
            if y.ndim == 1:
                return np.bincount(y).argmax()
            mean = y.mean(axis=0, dtype=np.float64)
            return mean > 0.5 if kind_of(rows.kind).has_classes else mean

        def repeated(train: np.ndarray, n: int) -> np.ndarray:
            return np.repeat(np.asarray(always(train))[None], n, axis=0)

        parts = rows.folds or [rows.split]
        predicted = {"val": np.concatenate([repeated(part.train, len(part.val)) for part in parts])}
        predicted["test"] = repeated(rows.split.train, len(rows.split.test))
        return _scored(rows, predicted)


@dataclass(frozen=True)
class Linear(Baseline):
    """A linear model on features, at the penalty that does best on the validation rows or over the folds.

    Attributes:
        features: made of rows.
        strengths: option -> the penalties that are tried, of rows; the first where nothing can choose.
        sample: (rows, training rows, parts) to the training rows that its bounds allow.
    """

    features: Callable[[BaselineRows], Features] = field(kw_only=True)
    strengths: Callable[[BaselineRows], Mapping[str, Sequence[float]]] = field(kw_only=True)
    sample: Callable[[BaselineRows, np.ndarray, int], np.ndarray] = field(kw_only=True)

    def option(self, kind: str) -> str | None:
        return "C" if kind_of(kind).has_classes else "alpha"

    def fit(self, rows: BaselineRows, strength: float | None = None) -> Fitted:
        tried = self.strengths(rows)[rows.option] if strength is None else (strength,)
        return _linear(rows, self.features, tried, self.sample)


def run_baselines(rows: BaselineRows) -> dict[str, Fitted]:
    """Those of BASELINES for the kind of task, trained on split.train.

    Each has the scores val_accuracy, val_macro_f1, test_accuracy and test_macro_f1 (of lists: rows with every label
    right), for a regression val_r2, val_rmse and so on, None where that side is empty; with folds, val is out of fold.
    Those that learn also say how they were made, or in a "note" why they were not.
    """
    return {one.name: one.fit(rows) for one in baselines_for(rows.kind)}


def predict_baselines(rows: BaselineRows, strengths: Mapping[str, float]) -> dict[str, Fitted]:
    """The baselines of a run again, on other test rows. strengths: name -> the penalty that was chosen then.

    Trained on split.train; split.val and the folds are not looked at. Those whose penalty is missing are left out.
    """
    return {
        one.name: one.fit(rows, strengths.get(one.name))
        for one in baselines_for(rows.kind)
        if one.name in strengths or one.option(rows.kind) is None
    }


def baselines_for(kind: str) -> list[Baseline]:
    """The baselines of a kind of task, in the order in which they are shown."""
    return [one for one in BASELINES.values() if kind in one.kinds]


def _linear(
    rows: BaselineRows,
    make: Callable[[BaselineRows], Features],
    tried: Sequence[float],
    sample: Callable[[BaselineRows, np.ndarray, int], np.ndarray],
) -> Fitted:
    start, train = time.perf_counter(), rows.split.train
    parts = rows.folds or [rows.split]
    if not len(rows.val):
        tried = tried[:1]
    outputs = []
    try:
        for part in parts:
            some = sample(rows, part.train, len(parts))
            features = make(rows)
            matrix = features.fit(some)
            models = [_fit(matrix, rows, some, strength) for strength in tried]
            outputs.append(_outputs(models, features, part.val, rows.outputs))
        val = np.concatenate(outputs, axis=1)
        best = max(range(len(tried)), key=lambda i: _worth(rows, val[i])) if len(rows.val) else 0
        if rows.folds:
            some = sample(rows, train, 1)
            features = make(rows)
            models[best] = _fit(features.fit(some), rows, some, tried[best])
        (test,) = _outputs([models[best]], features, rows.split.test, rows.outputs)
    except ValueError as error:
        why = str(error).split("\n")[0]
        return Fitted({**_scored(rows, {}).scores, "note": f"no baseline: {why}"})
    decide = kind_of(rows.kind).decide_by_probability
    found = _scored(rows, {"val": decide(val[best]), "test": decide(test)})
    found.scores |= {rows.option: tried[best], **features.about, "train_rows": len(some)}
    found.scores["seconds"] = time.perf_counter() - start
    if len(some) < len(train):
        found.scores["note"] = (
            f"trained on a random {len(some):,} of the {len(train):,} training rows, to bound its time"
        )
    return found


def _outputs(models: Sequence[Callable[..., Any]], features: Features, rows: np.ndarray, outputs: int) -> np.ndarray:
    """float64 [models, n, outputs], some rows at a time."""
    found = np.empty((len(models), len(rows), outputs))
    for start in range(0, len(rows), CHUNK_ROWS):
        some = features.transform(rows[start : start + CHUNK_ROWS])
        for output, model in zip(found, models, strict=True):
            output[start : start + CHUNK_ROWS] = model(some)
    return found


def _worth(rows: BaselineRows, outputs: np.ndarray) -> float:
    """How well outputs do on the validation rows, by the metric that chooses: more is better."""
    y, choose, kind = rows.y[rows.val], rows.choose, kind_of(rows.kind)
    if kind.has_classes and choose != "loss":
        return measure_all(rows.kind, y, kind.decide_by_probability(outputs))[choose]
    weight = None
    if kind.has_classes and rows.balanced:
        names = [str(c) for c in range(rows.outputs)]
        weight = class_weights("balanced", rows.y[rows.split.train], names, rows.kind)
    ones = np.ones(rows.outputs)
    return kind.log_likelihood(y, outputs, ones if weight is None else weight, rows.weight_of(rows.val))


def _fit(matrix: Any, rows: BaselineRows, train: np.ndarray, strength: float) -> Callable[[Any], np.ndarray]:
    """A trained model: features -> float64 [n, outputs], probabilities or values. Raises ValueError for one class."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits

    kind, y, weight = kind_of(rows.kind), rows.y[train], "balanced" if rows.balanced else None

    sample = rows.weight_of(train)

    def fit(target: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=1000, tol=1e-3, class_weight=weight).fit(matrix, target, sample)

    # One BLAS thread: where cores are shared, BLAS threads that wait by spinning cost 30-fold.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # not converged
        if not kind.has_classes:
            ridge = Ridge(strength).fit(matrix, y, sample)
            return lambda some: np.asarray(ridge.predict(some), np.float64).reshape(-1, y.shape[1])
        if len(np.unique(y, axis=0)) < 2:
            raise ValueError("the rows to train on are all of one label")
        if kind.exclusive:
            model = fit(y)
            return lambda some: _spread(model.predict_proba(some), model.classes_, rows.outputs)
        models = [fit(column) if 0 < column.sum() < len(column) else float(column[0]) for column in y.T]

    def each(some: Any) -> np.ndarray:
        columns = [m if isinstance(m, float) else m.predict_proba(some)[:, 1] for m in models]
        return np.stack([np.broadcast_to(column, some.shape[0]) for column in columns], axis=1)

    return each


def _spread(proba: np.ndarray, classes: np.ndarray, outputs: int) -> np.ndarray:
    """Probabilities of the classes that were learned, spread over all classes."""
    every = np.zeros((len(proba), outputs))
    every[:, classes] = proba
    return every


def _scored(rows: BaselineRows, predicted: dict[str, np.ndarray]) -> Fitted:
    names = headlines(rows.kind)
    scores: dict[str, Any] = {f"{side}_{name}": None for side in ("val", "test") for name in names}
    predicted = {side: some for side, some in predicted.items() if len(some)}
    for side, some in predicted.items():
        found = measure_all(rows.kind, rows.y[rows.val if side == "val" else rows.split.test], some)
        scores |= {f"{side}_{name}": json_number(found[name]) for name in names}
    return Fitted(scores, predicted)


TEXTS: Any = {
    "called": "TF-IDF baseline",
    "reads": "texts",
    "features": TfidfFeatures,
    "strengths": lambda rows: TFIDF,
    "sample": training_texts,
}
VECTORS: Any = {
    "called": "baseline on the vectors",
    "reads": "vectors",
    "instead": "other rates (--lr) or more --epochs",
    "features": VectorFeatures,
    "strengths": lambda rows: SCALED if rows.standardize else RAW,
    "sample": training_vectors,
}
BASELINES: dict[str, Baseline] = {
    one.name: one
    for one in (
        Constant("majority", "majority class", "majority class", LABELS),
        Constant("mean", "mean", "mean of the training values", NUMBERS),
        Linear("tfidf_logreg", "TF-IDF + logreg", "TF-IDF + logistic regression", LABELS, **TEXTS),
        Linear("tfidf_ridge", "TF-IDF + ridge", "TF-IDF + ridge regression", NUMBERS, **TEXTS),
        Linear("vectors_logreg", "vectors + logreg", "logistic regression on the same vectors", LABELS, **VECTORS),
        Linear("vectors_ridge", "vectors + ridge", "ridge regression on the same vectors", NUMBERS, **VECTORS),
    )
}
