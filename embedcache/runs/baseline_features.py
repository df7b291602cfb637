"""What baselines learn from: rows, and numbers made of their texts or vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import standardize_stats
from embedcache.runs.split import SEED, Split

# Bounds that keep each baseline to about a minute, even where nothing can be learned; a note reports one that bites.
# MIN_ROWS are taken in any case. Folds share the bounds.
MAX_ROWS = 50_000
MIN_ROWS = 2_000
MAX_CHARACTERS = 60_000_000
MAX_CHARACTERS_TIMES_CLASSES = 200_000_000
MAX_WEIGHTS = 20_000_000  # features x classes
MAX_VALUES = 40_000_000  # of the vectors
MAX_VALUES_TIMES_CLASSES = 200_000_000


@dataclass(frozen=True)
class BaselineRows:
    """What the baselines learn from and are scored on.

    y: targets as Data has them. folds: the parts of split.train, each with its val side; none where split.val chooses.
    balanced: classes are weighted; choose: "loss", "accuracy", "macro_f1" or "r2"; standardize: the vectors; weight:
    float64 [N] of the rows, or None.
    """

    texts: Sequence[str]
    x: Matrix
    y: np.ndarray
    split: Split
    kind: str = "classification"
    folds: Sequence[Split] = ()
    balanced: bool = False
    choose: str = "loss"
    standardize: bool = True
    weight: np.ndarray | None = None

    def weight_of(self, rows: np.ndarray) -> np.ndarray | None:
        """float64 [n], with a mean of 1; None where all rows count the same."""
        return None if self.weight is None else self.weight[rows] / self.weight[rows].mean()

    @property
    def outputs(self) -> int:
        return self.y.shape[1] if self.y.ndim == 2 else int(self.y.max()) + 1

    @property
    def val(self) -> np.ndarray:
        """The rows that choose: with folds, of all of them, fold by fold."""
        return np.concatenate([side.val for side in self.folds]) if self.folds else self.split.val

    @property
    def option(self) -> str:
        return "C" if kind_of(self.kind).has_classes else "alpha"


class Features(ABC):
    """Numbers made of rows, learned from the training rows."""

    about: dict[str, Any]

    @abstractmethod
    def fit(self, rows: np.ndarray) -> Any:
        """The training rows as a matrix. Raises ValueError where nothing is in them."""

    @abstractmethod
    def transform(self, rows: np.ndarray) -> Any:
        """Other rows as a matrix of the same columns."""


class TfidfFeatures(Features):
    """Words and word pairs (characters, where words are not set apart)."""

    def __init__(self, rows: BaselineRows) -> None:
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
    """The cached vectors, standardized where the heads' are."""

    def __init__(self, rows: BaselineRows) -> None:
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


def training_texts(rows: BaselineRows, train: np.ndarray, parts: int) -> np.ndarray:
    """The training rows, as many as the bounds, divided by parts, allow: then a random sample."""
    left = min(MAX_CHARACTERS, MAX_CHARACTERS_TIMES_CLASSES // rows.outputs) // parts
    order = np.random.default_rng(SEED).permutation(train)[: max(MAX_ROWS // parts, MIN_ROWS)]
    for n, i in enumerate(order.tolist()):
        left -= len(rows.texts[i])
        if left < 0 and n >= MIN_ROWS:
            return order[:n]
    return order


def training_vectors(rows: BaselineRows, train: np.ndarray, parts: int) -> np.ndarray:
    """As training_texts, of vectors."""
    width = rows.x.shape[1]
    most = min(MAX_ROWS, MAX_VALUES // width, MAX_VALUES_TIMES_CLASSES // (width * rows.outputs)) // parts
    return np.random.default_rng(SEED).permutation(train)[: max(most, MIN_ROWS)]
