"""Rows whose label is likely wrong, by what the experts say of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedcache.audit.mixture import Mixture

CHUNK_NUMBERS = 1_000_000  # rows x classes whose probabilities are held at a time


@dataclass(frozen=True)
class Judged:
    """What is said of n rows; all arrays are [n] and parallel.

    score: 1 - the probability of the label that the row has: the higher, the likelier it is wrong. suggested: the
    likeliest class, and probability: how likely it is. experts: [experts, n], each one's probability of the row's own
    label.
    """

    rows: np.ndarray
    score: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    experts: np.ndarray

    @property
    def disagree(self) -> np.ndarray:
        """bool [n]: rows for which another label is likelier than their own."""
        return self.probability > 1 - self.score


def judge(mixture: Mixture, y: np.ndarray, rows: np.ndarray, classes: int) -> Judged:
    """Every row of ``rows`` (int64 [n]) by the mixture; y: class codes int [N].

    The score is cleanlab's self-confidence, turned round: of its rankings the one with the highest precision on real
    texts with flipped labels (benchmarks/audit.py).
    """
    own, best, likeliest = (np.empty(len(rows)) for _ in range(3))
    experts = np.empty((len(mixture.experts), len(rows)), np.float32)
    step = max(1, CHUNK_NUMBERS // classes)
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        p, said = mixture.proba(rows[chunk])
        given = np.arange(len(p)), y[rows[chunk]]
        own[chunk], best[chunk], likeliest[chunk] = p[given], p.argmax(axis=1), p.max(axis=1)
        experts[:, chunk] = said[:, given[0], given[1]]
    return Judged(rows, 1 - own, best.astype(np.int64), likeliest, experts)
