"""What a head must beat: the commonest class (or the mean), and TF-IDF with a linear model on the very same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.heads.metrics import number, regression_scores, score_labels
from embedcache.heads.split import SEED, Split

# Bounds that keep the second baseline to about a minute, even where nothing can be learnt; where one bites, its note
# says so. MIN_ROWS are taken in any case.
MAX_ROWS = 50_000
MIN_ROWS = 2_000
MAX_CHARACTERS = 60_000_000
MAX_CHARACTERS_TIMES_CLASSES = 200_000_000
MAX_WEIGHTS = 20_000_000  # features x classes
# Of the logistic regression (its C) and of the ridge regression (its alpha); the validation rows choose, as for heads.
STRENGTHS = {"tfidf_logreg": (1.0, 3.0, 10.0), "tfidf_ridge": (0.3, 1.0, 3.0)}
SCORES = {
    "classification": ("accuracy", "macro_f1"),
    "multilabel": ("accuracy", "macro_f1"),
    "regression": ("r2", "rmse"),
}


def run_baselines(
    texts: Sequence[str], y: np.ndarray, split: Split, kind: str = "classification"
) -> dict[str, dict[str, Any]]:
    """Two baselines, trained on split.train: majority and tfidf_logreg, for a regression mean and tfidf_ridge.

    texts: the text of each row; y: targets as ``Data`` has them. The majority of lists holds every label that more than
    half of the rows have. Each has the scores val_accuracy, val_macro_f1, test_accuracy and test_macro_f1 (of lists:
    rows with every label right), for a regression val_r2, val_rmse and so on, None where that side is empty; the second
    one also how it was made, or a "note" why there is none.
    """
    train = y[split.train]
    if kind == "regression":
        name, always = "mean", train.mean(axis=0, dtype=np.float64)
    elif kind == "multilabel":
        name, always = "majority", train.mean(axis=0, dtype=np.float64) > 0.5
    else:
        name, always = "majority", np.bincount(train).argmax()
    constant = {side: np.repeat(always[None], len(rows), axis=0) for side, rows in _sides(split).items()}
    second = "tfidf_ridge" if kind == "regression" else "tfidf_logreg"
    return {name: _scores(constant, y, split, kind), second: tfidf_linear(texts, y, split, kind)}


def tfidf_linear(texts: Sequence[str], y: np.ndarray, split: Split, kind: str = "classification") -> dict[str, Any]:
    """TF-IDF of words and word pairs (of characters, where words are not set apart) + logistic or ridge regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    start = time.perf_counter()
    outputs = y.shape[1] if y.ndim == 2 else int(y[split.train].max()) + 1
    rows, documents = _training_texts(texts, split.train, outputs)
    if len(np.unique(y[rows], axis=0)) < 2:
        return {**_scores({}, y, split, kind), "note": "no baseline: the sampled rows are all of one label"}
    analyzer = choose_analyzer(documents)
    vectorizer = TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=(1, 2) if analyzer == "word" else (1, 3),
        sublinear_tf=True,
        min_df=2 if len(rows) >= 1000 else 1,
        max_features=MAX_WEIGHTS // outputs,
    )
    try:
        features = vectorizer.fit_transform(documents)
    except ValueError:  # an empty vocabulary
        return {**_scores({}, y, split, kind), "note": "no baseline: the texts hold no words"}
    sides = {name: vectorizer.transform([texts[i] for i in some]) for name, some in _sides(split).items()}
    option, strengths = (
        ("alpha", STRENGTHS["tfidf_ridge"]) if kind == "regression" else ("C", STRENGTHS["tfidf_logreg"])
    )
    tries = [_fit(features, y[rows], kind, c, sides) for c in (strengths if len(split.val) else strengths[:1])]
    results = [_scores(predicted, y, split, kind) for predicted in tries]
    chosen_by = f"val_{SCORES[kind][0]}"
    best = max(range(len(results)), key=lambda i: -np.inf if results[i][chosen_by] is None else results[i][chosen_by])
    made = {
        "analyzer": analyzer,
        option: strengths[best],
        "features": features.shape[1],
        "train_rows": len(rows),
        "seconds": time.perf_counter() - start,
    }
    if len(rows) < len(split.train):
        made["note"] = f"trained on a random {len(rows):,} of the {len(split.train):,} training rows, to bound its time"
    return {**results[best], **made}


def _fit(features: Any, y: np.ndarray, kind: str, strength: float, sides: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the model predicts for each side, in the form of y."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier
    from threadpoolctl import threadpool_limits

    logistic = LogisticRegression(C=strength, max_iter=1000)
    models = {"classification": logistic, "multilabel": OneVsRestClassifier(logistic), "regression": Ridge(strength)}
    # One BLAS thread: the work is sparse, and where cores are shared BLAS threads that wait by spinning cost 30-fold.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # not converged; a label that no row has, or all
        models[kind].fit(features, y)
        return {name: models[kind].predict(some).reshape(-1, *y.shape[1:]) for name, some in sides.items()}


def choose_analyzer(texts: Sequence[str]) -> str:
    """TfidfVectorizer's analyzer: "word" where spaces set words apart, else "char" (Japanese, Chinese, Thai; emoji)."""
    import re

    sample = " ".join(texts[:1000])
    words = sample.split()
    short = bool(words) and sum(map(len, words)) / len(words) <= 12  # English has 5 characters, Finnish 8
    return "word" if short and re.search(r"\w\w", sample) else "char"


def _training_texts(texts: Sequence[str], train: np.ndarray, classes: int) -> tuple[np.ndarray, list[str]]:
    """The training rows, as many as the bounds allow (then a random sample), and their texts."""
    left = min(MAX_CHARACTERS, MAX_CHARACTERS_TIMES_CLASSES // classes)
    order = np.random.default_rng(SEED).permutation(train)
    documents: list[str] = []
    for i in order[:MAX_ROWS]:
        left -= len(texts[i])
        if left < 0 and len(documents) >= MIN_ROWS:
            break
        documents.append(texts[i])
    return order[: len(documents)], documents


def _sides(split: Split) -> dict[str, np.ndarray]:
    """The sides that are scored: name -> rows; those without rows are left out."""
    return {name: rows for name, rows in (("val", split.val), ("test", split.test)) if len(rows)}


def _scores(predicted: dict[str, np.ndarray], y: np.ndarray, split: Split, kind: str) -> dict[str, Any]:
    scores: dict[str, Any] = {f"{side}_{name}": None for side in ("val", "test") for name in SCORES[kind]}
    for side, rows in _sides(split).items():
        if side not in predicted:
            continue
        if kind == "regression":
            found = regression_scores(y[rows], predicted[side])
            scores |= {f"{side}_{name}": number(found[name]) for name in SCORES[kind]}
        else:
            scores[f"{side}_accuracy"], scores[f"{side}_macro_f1"] = score_labels(predicted[side], y[rows])
    return scores
