"""What a head must beat: the commonest class, and TF-IDF with logistic regression on the very same rows."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedcache.heads.metrics import score_labels
from embedcache.heads.split import SEED, Split

# Bounds that keep the second baseline to a minute or so; where one bites, the result says so.
MAX_ROWS = 50_000
MAX_CHARACTERS = 30_000_000
MAX_WEIGHTS = 20_000_000  # features x classes
MAX_ROWS_TIMES_CLASSES = 5_000_000

Predict = Callable[[np.ndarray], np.ndarray]  # row numbers -> class codes


def run_baselines(texts: Sequence[str], y: np.ndarray, split: Split) -> dict[str, dict[str, Any]]:
    """Both baselines, trained on split.train: {"majority": {...}, "tfidf_logreg": {...}}.

    texts: the text of each row; y: class codes int [N]. Each holds val_accuracy, val_macro_f1, test_accuracy and
    test_macro_f1 (None where that side is empty); tfidf_logreg also how it was made, or a "note" why there is none.
    """
    commonest = int(np.bincount(y[split.train]).argmax())
    majority = _scores(lambda rows: np.full(len(rows), commonest), y, split)
    return {"majority": majority, "tfidf_logreg": tfidf_logreg(texts, y, split)}


def tfidf_logreg(texts: Sequence[str], y: np.ndarray, split: Split) -> dict[str, Any]:
    """TF-IDF of words and word pairs (of characters, where words are not set apart) + logistic regression."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    start = time.perf_counter()
    classes = int(y[split.train].max()) + 1
    rows, documents = _training_texts(texts, split.train, classes)
    nothing = dict.fromkeys(("val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1"))
    if len(np.unique(y[rows])) < 2:
        return {**nothing, "note": "no baseline: the sampled rows hold one class only"}
    analyzer = choose_analyzer(documents)
    vectorizer = TfidfVectorizer(
        analyzer=analyzer,
        ngram_range=(1, 2) if analyzer == "word" else (1, 3),
        sublinear_tf=True,
        min_df=2 if len(rows) >= 1000 else 1,
        max_features=MAX_WEIGHTS // classes,
    )
    model = LogisticRegression(max_iter=1000)
    try:
        features = vectorizer.fit_transform(documents)
    except ValueError:  # an empty vocabulary
        return {**nothing, "note": "no baseline: the texts hold no words"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, y[rows])
    scores = _scores(lambda some: model.predict(vectorizer.transform([texts[i] for i in some])), y, split)
    made = {
        "analyzer": analyzer,
        "features": features.shape[1],
        "train_rows": len(rows),
        "seconds": time.perf_counter() - start,
    }
    if len(rows) < len(split.train):
        made["note"] = f"trained on a random {len(rows):,} of the {len(split.train):,} training rows, to bound its time"
    return {**scores, **made}


def choose_analyzer(texts: Sequence[str]) -> str:
    """TfidfVectorizer's analyzer: "word" where spaces set words apart, else "char" (Japanese, Chinese, Thai; emoji)."""
    import re

    sample = " ".join(texts[:1000])
    words = sample.split()
    short = bool(words) and sum(map(len, words)) / len(words) <= 12  # English has 5 characters, Finnish 8
    return "word" if short and re.search(r"\w\w", sample) else "char"


def _training_texts(texts: Sequence[str], train: np.ndarray, classes: int) -> tuple[np.ndarray, list[str]]:
    """The training rows, as many as the bounds allow (then a random sample), and their texts."""
    most = min(MAX_ROWS, max(5000, MAX_ROWS_TIMES_CLASSES // classes))
    order = np.random.default_rng(SEED).permutation(train) if len(train) > most else train
    documents: list[str] = []
    characters = 0
    for i in order[:most]:
        characters += len(texts[i])
        if documents and characters > MAX_CHARACTERS:
            break
        documents.append(texts[i])
    return order[: len(documents)], documents


def _scores(predict: Predict, y: np.ndarray, split: Split) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for side, rows in (("val", split.val), ("test", split.test)):
        accuracy, macro_f1 = score_labels(predict(rows), y[rows]) if len(rows) else (None, None)
        scores |= {f"{side}_accuracy": accuracy, f"{side}_macro_f1": macro_f1}
    return scores
