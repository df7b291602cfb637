"""What a head must beat, on the very same rows: the commonest class (or the mean), TF-IDF with a linear model, and that
model on the cached vectors.

The strength of the linear models' penalty is chosen as the heads are: on the validation rows, or over the folds, by the
metric of --choose; where all heads are weighted by class, so are they. What a baseline predicts is kept, so that a head
can be compared with it row by row.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedcache.heads.arrays import json_number
from embedcache.heads.targets import class_weights
from embedcache.heads.task import standardize_stats
from embedcache.runs.metrics import regression_scores, score_labels
from embedcache.runs.split import SEED, Split

# Bounds that keep each baseline to about a minute, even where nothing can be learnt; where one bites, its note says so.
# MIN_ROWS are taken in any case. Folds share the bounds.
MAX_ROWS = 50_000
MIN_ROWS = 2_000
MAX_CHARACTERS = 60_000_000
MAX_CHARACTERS_TIMES_CLASSES = 200_000_000
MAX_WEIGHTS = 20_000_000  # features x classes
MAX_VALUES = 40_000_000  # of the vectors
MAX_VALUES_TIMES_CLASSES = 200_000_000
# The penalties tried: C of the logistic regression, alpha of the ridge regression; the first where nothing can choose.
TFIDF = {"C": (1.0, 3.0, 10.0), "alpha": (0.3, 1.0, 3.0)}
SCALED = {"C": (0.01, 0.001, 0.1, 1.0), "alpha": (100.0, 10.0, 1000.0, 10_000.0)}  # on standardised vectors
RAW = {"C": (10.0, 1.0, 100.0, 1000.0), "alpha": (1.0, 0.1, 10.0, 100.0)}
SCORES = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("accuracy", "macro_f1"),
    "regression": ("r2", "rmse"),
}
CHUNK_ROWS = 8192
LEAST = 1e-15  # probability, where a logarithm is taken


@dataclass
class Baseline:
    """scores: JSON types. predicted: "val" and "test" -> predictions in the form of y, of the rows of ``Rows``."""

    scores: dict[str, Any]
    predicted: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """What the baselines learn from and are scored on.

    y: targets as Data has them. folds: the parts of split.train, each with its val side; none where split.val chooses.
    balanced: classes are weighted; choose: "loss", "accuracy", "macro_f1" or "r2"; standardize: the vectors.
    """

    texts: Sequence[str]
    x: np.ndarray
    y: np.ndarray
    split: Split
    kind: str = "classification"
    folds: Sequence[Split] = ()
    balanced: bool = False
    choose: str = "loss"
    standardize: bool = True

    @property
    def outputs(self) -> int:
        return self.y.shape[1] if self.y.ndim == 2 else int(self.y.max()) + 1

    @property
    def val(self) -> np.ndarray:
        """The rows that choose: with folds, of all of them, fold by fold."""
        return np.concatenate([side.val for side in self.folds]) if self.folds else self.split.val

    @property
    def option(self) -> str:
        return "alpha" if self.kind == "regression" else "C"


class Features:
    """Numbers made of rows, learnt from the training rows."""

    about: dict[str, Any]

    def fit(self, rows: np.ndarray) -> Any:
        """The training rows as a matrix. Raises ValueError where nothing is in them."""
        raise NotImplementedError

    def transform(self, rows: np.ndarray) -> Any:
        raise NotImplementedError


def run_baselines(rows: Rows) -> dict[str, Baseline]:
    """Three baselines, trained on split.train: majority, tfidf_logreg, vectors_logreg; of numbers mean and ..._ridge.

    The majority of lists holds every label that more than half of the rows have. Each has the scores val_accuracy,
    val_macro_f1, test_accuracy and test_macro_f1 (of lists: rows with every label right), for a regression val_r2,
    val_rmse and so on, None where that side is empty; with folds, val is out of fold. The last two also say how they
    were made, or in a "note" why they were not.
    """
    model = "ridge" if rows.kind == "regression" else "logreg"
    return {
        "mean" if rows.kind == "regression" else "majority": _constant(rows),
        f"tfidf_{model}": _linear(rows, TfidfFeatures, TFIDF, _training_texts),
        f"vectors_{model}": _linear(rows, VectorFeatures, SCALED if rows.standardize else RAW, _training_vectors),
    }


def predict_baselines(rows: Rows, strengths: Mapping[str, float]) -> dict[str, Baseline]:
    """The baselines of a run again, on other test rows. strengths: name -> the penalty that was chosen then.

    Trained on split.train; split.val and the folds are not looked at. Those without a strength are left out.
    """
    model = "ridge" if rows.kind == "regression" else "logreg"
    makers: dict[str, tuple[Any, Any]] = {
        f"tfidf_{model}": (TfidfFeatures, _training_texts),
        f"vectors_{model}": (VectorFeatures, _training_vectors),
    }
    found = {"mean" if rows.kind == "regression" else "majority": _constant(rows)}
    for name, (features, sample) in makers.items():
        if name in strengths:
            found[name] = _linear(rows, features, {rows.option: (strengths[name],)}, sample)
    return found


def _constant(rows: Rows) -> Baseline:
    def always(train: np.ndarray) -> Any:
        y = rows.y[train]
        if y.ndim == 1:
            return np.bincount(y).argmax()
        mean = y.mean(axis=0, dtype=np.float64)
        return mean if rows.kind == "regression" else mean > 0.5

    def repeated(train: np.ndarray, n: int) -> np.ndarray:
        return np.repeat(np.asarray(always(train))[None], n, axis=0)

    parts = rows.folds or [rows.split]
    predicted = {"val": np.concatenate([repeated(part.train, len(part.val)) for part in parts])}
    predicted["test"] = repeated(rows.split.train, len(rows.split.test))
    return _scored(rows, predicted)


def _linear(
    rows: Rows,
    make: Callable[[Rows], Features],
    strengths: Mapping[str, Sequence[float]],
    sample: Callable[[Rows, np.ndarray, int], np.ndarray],
) -> Baseline:
    """A linear model on features, at the penalty that does best on the validation rows or over the folds."""
    start = time.perf_counter()
    tried, train = strengths[rows.option], rows.split.train
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
        return Baseline({**_scored(rows, {}).scores, "note": f"no baseline: {why}"})
    found = _scored(rows, {"val": _decided(rows.kind, val[best]), "test": _decided(rows.kind, test)})
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


def _worth(rows: Rows, outputs: np.ndarray) -> float:
    """How well outputs do on the validation rows, by the metric that chooses: more is better."""
    y, choose = rows.y[rows.val], rows.choose
    if rows.kind == "regression":
        return -float(((outputs - y) ** 2).mean())
    if choose in ("accuracy", "macro_f1"):
        return score_labels(_decided(rows.kind, outputs), y)[choose == "macro_f1"]
    names = [str(c) for c in range(rows.outputs)]
    weight = class_weights("balanced", rows.y[rows.split.train], names, rows.kind) if rows.balanced else None
    weight = np.ones(rows.outputs) if weight is None else weight
    if rows.kind == "multilabel":
        p = np.clip(outputs, LEAST, 1 - LEAST)
        return float((weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean())
    loss = np.log(np.maximum(outputs[np.arange(len(y)), y], LEAST))
    return float((weight[y] * loss).sum() / max(weight[y].sum(), LEAST))


def _fit(matrix: Any, rows: Rows, train: np.ndarray, strength: float) -> Callable[[Any], np.ndarray]:
    """A trained model: features -> float64 [n, outputs], probabilities or values. Raises ValueError for one class."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from threadpoolctl import threadpool_limits

    y, weight = rows.y[train], "balanced" if rows.balanced else None

    def fit(target: np.ndarray) -> Any:
        return LogisticRegression(C=strength, max_iter=1000, tol=1e-3, class_weight=weight).fit(matrix, target)

    # One BLAS thread: where cores are shared, BLAS threads that wait by spinning cost 30-fold.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # not converged
        if rows.kind == "regression":
            ridge = Ridge(strength).fit(matrix, y)
            return lambda some: np.asarray(ridge.predict(some), np.float64).reshape(-1, y.shape[1])
        if len(np.unique(y, axis=0)) < 2:
            raise ValueError("the rows to train on are all of one label")
        if rows.kind == "classification":
            model = fit(y)
            return lambda some: _spread(model.predict_proba(some), model.classes_, rows.outputs)
        models = [fit(column) if 0 < column.sum() < len(column) else float(column[0]) for column in y.T]

    def each(some: Any) -> np.ndarray:
        columns = [m if isinstance(m, float) else m.predict_proba(some)[:, 1] for m in models]
        return np.stack([np.broadcast_to(column, some.shape[0]) for column in columns], axis=1)

    return each


def _spread(proba: np.ndarray, classes: np.ndarray, outputs: int) -> np.ndarray:
    """Of the classes that were learnt, for all classes."""
    every = np.zeros((len(proba), outputs))
    every[:, classes] = proba
    return every


def _decided(kind: str, outputs: np.ndarray) -> np.ndarray:
    """Predictions in the form of y."""
    if kind == "regression":
        return outputs
    return outputs > 0.5 if kind == "multilabel" else outputs.argmax(axis=1)


class TfidfFeatures(Features):
    """Words and word pairs (characters, where words are not set apart)."""

    def __init__(self, rows: Rows) -> None:
        self.texts, self.outputs = rows.texts, rows.outputs
        self.about = {}

    def fit(self, rows: np.ndarray) -> Any:
        documents = [self.texts[i] for i in rows]
        few, most = 2 if len(rows) >= 1000 else 1, MAX_WEIGHTS // self.outputs
        self._vectorizer = make_vectorizer(documents, min_df=few, max_features=most)
        try:
            matrix = self._vectorizer.fit_transform(documents)
        except ValueError:  # an empty vocabulary
            raise ValueError("the texts hold no words") from None
        self.about = {"analyzer": self._vectorizer.analyzer, "features": matrix.shape[1]}
        return matrix

    def transform(self, rows: np.ndarray) -> Any:
        return self._vectorizer.transform([self.texts[i] for i in rows])


class VectorFeatures(Features):
    """The cached vectors, standardised where the heads' are."""

    def __init__(self, rows: Rows) -> None:
        self.x, self.standardize = rows.x, rows.standardize
        self.about = {"features": rows.x.shape[1]}

    def fit(self, rows: np.ndarray) -> Any:
        if self.standardize:
            self._mean, self._inv_std = standardize_stats(self.x, rows)
        return self.transform(rows)

    def transform(self, rows: np.ndarray) -> Any:
        x = np.asarray(self.x[rows], np.float32)
        return (x - self._mean) * self._inv_std if self.standardize else x


def make_vectorizer(texts: Sequence[str], alone: bool = False, **settings: Any) -> Any:
    """A TfidfVectorizer for such texts: words and word pairs, or runs of up to 3 characters; ``alone``: no pairs.

    settings: of TfidfVectorizer, such as min_df, max_features and dtype.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    analyzer = choose_analyzer(texts)
    longest = 1 if alone else 2 if analyzer == "word" else 3
    return TfidfVectorizer(analyzer=analyzer, ngram_range=(1, longest), sublinear_tf=True, **settings)


def choose_analyzer(texts: Sequence[str]) -> str:
    """TfidfVectorizer's analyzer: "word" where spaces set words apart, else "char" (Japanese, Chinese, Thai; emoji)."""
    import re

    sample = " ".join(texts[:1000])
    words = sample.split()
    short = bool(words) and sum(map(len, words)) / len(words) <= 12  # English has 5 characters, Finnish 8
    return "word" if short and re.search(r"\w\w", sample) else "char"


def _training_texts(rows: Rows, train: np.ndarray, parts: int) -> np.ndarray:
    """The training rows, as many as the bounds, divided by parts, allow: then a random sample."""
    left = min(MAX_CHARACTERS, MAX_CHARACTERS_TIMES_CLASSES // rows.outputs) // parts
    order = np.random.default_rng(SEED).permutation(train)[: max(MAX_ROWS // parts, MIN_ROWS)]
    for n, i in enumerate(order.tolist()):
        left -= len(rows.texts[i])
        if left < 0 and n >= MIN_ROWS:
            return order[:n]
    return order


def _training_vectors(rows: Rows, train: np.ndarray, parts: int) -> np.ndarray:
    """As _training_texts, of vectors."""
    width = rows.x.shape[1]
    most = min(MAX_ROWS, MAX_VALUES // width, MAX_VALUES_TIMES_CLASSES // (width * rows.outputs)) // parts
    return np.random.default_rng(SEED).permutation(train)[: max(most, MIN_ROWS)]


def _scored(rows: Rows, predicted: dict[str, np.ndarray]) -> Baseline:
    names = SCORES[rows.kind]
    scores: dict[str, Any] = {f"{side}_{name}": None for side in ("val", "test") for name in names}
    predicted = {side: some for side, some in predicted.items() if len(some)}
    for side, some in predicted.items():
        y = rows.y[rows.val if side == "val" else rows.split.test]
        if rows.kind == "regression":
            found = regression_scores(y, some)
            scores |= {f"{side}_{name}": json_number(found[name]) for name in names}
        else:
            scores[f"{side}_accuracy"], scores[f"{side}_macro_f1"] = score_labels(some, y)
    return Baseline(scores, predicted)
