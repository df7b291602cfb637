"""A head that tells new rows from old ones, cross-fitted, and how well it does: its AUC, 1/2 where they are alike.

It is a classifier two-sample test (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", 2017): each fold's
rows are scored by a head that learned from the other folds, so that rows drawn from one population cannot be told
apart, however many dimensions there are. A text that occurs twice is in one fold, and counts once on each side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View, standardize_stats
from embedcache.heads.train import train_bank

FOLDS = 5
TWICE = 2  # the folds' variances: every pair of rows counts twice, once with either as the one that was learned from
FEWEST = 20  # different texts on each side
LEVEL = 0.95
SPEC = HeadSpec(hidden=0, lr=1e-3, dropout=0.0, weight_decay=0.01, seed=0)
EPOCHS = 20


@dataclass(frozen=True)
class DomainHead:
    """How well new rows are told from old ones.

    Attributes:
        auc: the probability that a new row has the higher score, over the folds. interval: its 95% interval.
        old, new: float64, the score of every row by the head that did not learn from it: how new it looks, 0 to 1.
            Rows of a text that occurs twice have NaN but for the first.
    """

    auc: float
    interval: tuple[float, float]
    old: np.ndarray
    new: np.ndarray

    @property
    def differs(self) -> bool:
        """Whether chance alone would hardly tell them apart so well."""
        return self.interval[0] > 0.5


def compare_domains(old: np.ndarray, new: np.ndarray, old_texts: np.ndarray, new_texts: np.ndarray) -> DomainHead:
    """Train and score the heads.

    Args:
        old: Vectors float [n, D].
        new: Vectors float [m, D].
        old_texts: uint8 [n, 16], hashes of the texts.
        new_texts: uint8 [m, 16].

    Raises:
        EmbedcacheError: Fewer than 20 different texts on a side.
    """
    keys = np.concatenate([old_texts, new_texts])
    text = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    firsts = [np.unique(text[: len(old)], return_index=True)[1], np.unique(text[len(old) :], return_index=True)[1]]
    rows = np.concatenate([np.sort(firsts[0]), len(old) + np.sort(firsts[1])])
    if min(map(len, firsts)) < FEWEST:
        raise EmbedcacheError(
            f"{len(firsts[0]):,} old and {len(firsts[1]):,} new texts that are different: give {FEWEST} or more of each"
        )
    x = np.concatenate([np.asarray(old, np.float32), np.asarray(new, np.float32)])[rows]
    y = (rows >= len(old)).astype(np.int32)
    scores, parts = np.full(len(x), np.nan), []
    for part, head in cross_fitted(x, y, text[rows], 2):
        logits = head.logits(x[part]).astype(np.float64)
        scores[part] = 1 / (1 + np.exp(np.clip(logits[:, 0] - logits[:, 1], -700, 700)))
        parts.append(auc_with_variance(scores[part][y[part] == 0], scores[part][y[part] == 1]))
    auc, variance = (float(sum(some)) for some in zip(*parts, strict=True))
    auc, half = auc / FOLDS, _quantile() * (TWICE * variance) ** 0.5 / FOLDS
    every = np.full(len(old) + len(new), np.nan)
    every[rows] = scores
    interval = max(0.0, auc - half), min(1.0, auc + half)
    return DomainHead(auc, interval, every[: len(old)], every[len(old) :])


def cross_fitted(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, classes: int
) -> Iterator[tuple[np.ndarray, TrainedHead]]:
    """The rows of each fold, int64 [k], and a linear head that did not learn from them.

    Args:
        x: float32 [n, D].
        y: int32 [n], from 0.
        units: int [n], equal for rows of one fold.
        classes: how many there are.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    folds = list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(x, y, units))
    tasks = []
    for rows, _ in folds:
        mean, inv_std = standardize_stats(x, rows)
        tasks.append(Task(View(x, y, rows), None, classes, mean, inv_std))
    bank = train_bank(tasks, [(SPEC, i) for i in range(len(tasks))], epochs=EPOCHS)
    for (_, rest), head in zip(folds, bank.heads, strict=True):
        yield rest, head


def auc_with_variance(old: np.ndarray, new: np.ndarray) -> tuple[float, float]:
    """(AUC, its variance) of scores of two samples, by DeLong et al. (1988): from the ranks of every score."""
    from scipy.stats import rankdata

    n, m = len(old), len(new)
    ranks = rankdata(np.concatenate([old, new]))
    below = (ranks[n:] - rankdata(new)) / n  # of each new score: the share of old ones below it
    above = 1 - (ranks[:n] - rankdata(old)) / m
    auc = float(below.mean())
    variance = (below.var(ddof=1) / m if m > 1 else 0.0) + (above.var(ddof=1) / n if n > 1 else 0.0)
    return auc, float(variance)


def _quantile() -> float:
    from scipy.stats import norm

    return float(norm.ppf((1 + LEVEL) / 2))
