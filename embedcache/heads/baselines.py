"""What a head must beat: the commonest class, and TF-IDF with logistic regression on the very same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.heads.metrics import score_labels
from embedcache.heads.split import SEED, Split

# Bounds that keep the second baseline to about a minute, even where nothing can be learnt; where one bites, its note
# says so. MIN_ROWS are taken in any case.
MAX_ROWS = 50_000
MIN_ROWS = 2_000
MAX_CHARACTERS = 60_000_000
MAX_CHARACTERS_TIMES_CLASSES = 200_000_000
MAX_WEIGHTS = 20_000_000  # features x classes
STRENGTHS = (1.0, 3.0, 10.0)  # of the logistic regression (its C); the validation rows choose, as they do for heads


def run_baselines(texts: Sequence[str], y: np.ndarray, split: Split) -> dict[str, dict[str, Any]]:
    """Both baselines, trained on split.train: {"majority": {...}, "tfidf_logreg": {...}}.

    texts: the text of each row; y: class codes int [N]. Each holds val_accuracy, val_macro_f1, test_accuracy and
    test_macro_f1 (None where that side is empty); tfidf_logreg also how it was made, or a "note" why there is none.
    """
    commonest = int(np.bincount(y[split.train]).argmax())
    always = {side: np.full(len(rows), commonest) for side, rows in _sides(split).items()}
    return {"majority": _scores(always, y, split), "tfidf_logreg": tfidf_logreg(texts, y, split)}


def tfidf_logreg(texts: Sequence[str], y: np.ndarray, split: Split) -> dict[str, Any]:
    """TF-IDF of words and word pairs (of characters, where words are not set apart) + logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    start = time.perf_counter()
    classes = int(y[split.train].max()) + 1
    rows, documents = _training_texts(texts, split.train, classes)
    if len(np.unique(y[rows])) < 2:
        return {**_scores({}, y, split), "note": "no baseline: the sampled rows hold one class only"}
    analyzer = choose_analyzer(documents)
    vectorizer = TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=(1, 2) if analyzer == "word" else (1, 3),
        sublinear_tf=True,
        min_df=2 if len(rows) >= 1000 else 1,
        max_features=MAX_WEIGHTS // classes,
    )
    try:
        features = vectorizer.fit_transform(documents)
    except ValueError:  # an empty vocabulary
        return {**_scores({}, y, split), "note": "no baseline: the texts hold no words"}
    sides = {name: vectorizer.transform([texts[i] for i in some]) for name, some in _sides(split).items()}
    tries = [_logistic(features, y[rows], c, sides) for c in (STRENGTHS if len(split.val) else STRENGTHS[:1])]
    results = [_scores(predicted, y, split) for predicted in tries]
    best = max(range(len(results)), key=lambda i: results[i]["val_accuracy"] or 0)
    made = {
        "analyzer": analyzer,
        "C": STRENGTHS[best],
        "features": features.shape[1],
        "train_rows": len(rows),
        "seconds": time.perf_counter() - start,
    }
    if len(rows) < len(split.train):
        made["note"] = f"trained on a random {len(rows):,} of the {len(split.train):,} training rows, to bound its time"
    return {**results[best], **made}


def _logistic(features: Any, y: np.ndarray, c: float, sides: dict[str, Any]) -> dict[str, np.ndarray]:
    """Predicted class codes of each side."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = LogisticRegression(C=c, max_iter=1000)
    # One BLAS thread: the work is sparse, and where cores are shared BLAS threads that wait by spinning cost 30-fold.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, y)
    return {name: model.predict(some) for name, some in sides.items()}


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


def _scores(predicted: dict[str, np.ndarray], y: np.ndarray, split: Split) -> dict[str, Any]:
    scores: dict[str, Any] = dict.fromkeys(("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1"))
    for side, rows in _sides(split).items():
        if side in predicted:
            scores[f"{side}_accuracy"], scores[f"{side}_macro_f1"] = score_labels(predicted[side], y[rows])
    return scores
