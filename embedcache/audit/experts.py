"""Three opinions of every row's label, none of which has seen that label: heads, neighbours and words.

Each is out of fold: a row's own label, its copies' and its group's play no part in the opinion of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from embedcache.audit.neighbours import Nearest
from embedcache.cache.strings import Strings
from embedcache.common.progress import Progress
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task
from embedcache.heads.train import train_bank
from embedcache.runs.baseline_features import make_vectorizer
from embedcache.runs.data import Data, make_task
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import Split

SMOOTHING = 0.3  # of naive Bayes: measured by benchmarks/audit/precision.py on other flips than those that it reports
MAX_CHARACTERS = 200_000_000  # of all texts, in bytes: above that word pairs are left out, to bound the memory
MAX_WORDS = 500_000  # features
MAX_WEIGHTS = 10_000_000  # features x classes


class Expert(Protocol):
    """``name``, and what it says: log-probabilities float32 [n, C] of rows [n]."""

    name: str

    def log_proba(self, rows: np.ndarray) -> np.ndarray: ...


class Heads:
    """The default recipe's head, trained once for every fold and seed in one bank; the mean of the log-probabilities.

    sides: seed -> the folds; every judged row is on the val side of one fold of each seed.
    """

    name = "heads"

    def __init__(
        self,
        data: Data,
        sides: Mapping[int, Sequence[Split]],
        progress: Progress | None = None,
        **engine: Any,
    ) -> None:
        recipe = make_recipe("default", seed=list(sides))
        tasks: list[Task] = []
        heads: list[tuple[HeadSpec, int]] = []
        for spec in recipe.specs():
            for side in sides[spec.seed]:
                heads.append((spec, len(tasks)))
                tasks.append(replace(make_task(data, side, recipe.standardize, "none"), val=None))
        bank = train_bank(tasks, heads, batch_size=recipe.batch_size, epochs=recipe.epochs, progress=progress, **engine)
        if bank.cancelled:
            raise KeyboardInterrupt
        self.x, self.seconds, self.engine = data.x, bank.seconds, bank.engine
        ends = iter(bank.heads)
        self._heads: list[list[TrainedHead]] = [[next(ends) for _ in folds] for folds in sides.values()]
        self._fold = [fold_of(folds, len(data.x)) for folds in sides.values()]

    def log_proba(self, rows: np.ndarray) -> np.ndarray:
        total: Any = 0
        for heads, fold in zip(self._heads, self._fold, strict=True):
            out = np.empty((len(rows), len(heads[0].weights["b2"])), np.float32)
            for k, head in enumerate(heads):
                mine = fold[rows] == k
                out[mine] = head.predict_log_proba(self.x[rows[mine]])
            total = total + out
        return np.asarray(total / len(self._heads))


class NeighbourVotes:
    """The share of each class among the k nearest rows of other texts and groups, smoothed by the classes' shares.

    unit: int [N], equal for rows of one text or group.
    """

    name = "neighbours"

    def __init__(self, nearest: Nearest, y: np.ndarray, classes: int, unit: np.ndarray) -> None:
        self._rows, self._y, self._unit = nearest.rows, y, unit
        counts = np.bincount(y[y >= 0], minlength=classes)
        self._prior = counts / counts.sum()

    def votes(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, C]: how many of the neighbours have each class."""
        found = self._rows[rows]
        labels = np.where(found >= 0, self._y[found], -1)
        labels[self._unit[found] == self._unit[rows][:, None]] = -1
        counts = np.zeros((len(rows), len(self._prior)), np.float32)
        of, k = np.nonzero(labels >= 0)
        np.add.at(counts, (of, labels[of, k]), 1)
        return counts

    def log_proba(self, rows: np.ndarray) -> np.ndarray:
        counts = self.votes(rows) + len(self._prior) * self._prior + 1e-9
        return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)


class Words:
    """Naive Bayes of the texts' TF-IDF (words and word pairs; characters where words are not set apart).

    It knows what the vectors have lost of the wording. In the variant for classes of unlike sizes (Rennie et al.,
    "Tackling the Poor Assumptions of Naive Bayes Text Classifiers", 2003).
    """

    name = "words"

    @staticmethod
    def bytes_needed(texts: Strings, classes: int, folds: int) -> float:
        """About so many at once, measured on reviews: 12 for a byte of text; a weight of each class, word and fold."""
        words = min(MAX_WORDS, MAX_WEIGHTS // classes, len(texts.data) / 40)
        return 12.0 * len(texts.data) + classes * words * (4 * folds + 16)

    def __init__(self, texts: Strings, y: np.ndarray, sides: Sequence[Split]) -> None:
        """Raises ValueError where the texts hold no words."""
        self._classes = int(y.max()) + 1
        self._fold = fold_of(sides, len(y))
        vectorizer = make_vectorizer(
            texts[:1000],
            alone=len(texts.data) > MAX_CHARACTERS,
            min_df=2,
            max_features=min(MAX_WORDS, MAX_WEIGHTS // self._classes),
            dtype=np.float32,
        )
        self._features = vectorizer.fit_transform(texts)
        self._models = [self._fit(y, side.train) for side in sides]

    def _fit(self, y: np.ndarray, rows: np.ndarray) -> Any:
        from sklearn.naive_bayes import ComplementNB

        model = ComplementNB(alpha=SMOOTHING).fit(self._features[rows], y[rows])
        model.feature_log_prob_ = model.feature_log_prob_.astype(np.float32)  # all that a prediction needs
        del model.feature_count_
        return model

    def log_proba(self, rows: np.ndarray) -> np.ndarray:
        out = np.full((len(rows), self._classes), -np.inf, np.float32)
        for k, model in enumerate(self._models):
            mine = np.flatnonzero(self._fold[rows] == k)
            if len(mine):
                out[np.ix_(mine, model.classes_)] = model.predict_log_proba(self._features[rows[mine]])
        return out


def fold_of(sides: Sequence[Split], n: int) -> np.ndarray:
    """int64 [n]: the fold on whose val side each row is, -1 where on none."""
    fold = np.full(n, -1, np.int64)
    for k, side in enumerate(sides):
        fold[side.val] = k
    return fold
