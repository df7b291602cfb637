"""Rows whose label is likely wrong, by what the experts say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedcache.audit.count import FIT_NUMBERS, FIT_ROWS, ErrorCount, count_errors
from embedcache.audit.judge import Mixture

CHUNK_NUMBERS = 1_000_000  # rows x classes whose probabilities are held at a time


@dataclass(frozen=True)
class JudgedLabels:
    """The judgement of n rows; all arrays are [n] and parallel.

    score: 1 - the probability of the label that the row has: the higher, the likelier it is wrong. suggested: the
    likeliest class other than that, and probability: how likely it is. experts: [experts, n], each one's probability
    of the row's own label. wrong: how likely the label is a wrong one, see count.NoiseLayer. count: of all rows.
    """

    rows: np.ndarray
    score: np.ndarray
    suggested: np.ndarray
    probability: np.ndarray
    experts: np.ndarray
    wrong: np.ndarray
    count: ErrorCount

    @property
    def disagree(self) -> np.ndarray:
        """bool [n]: rows for which another label is likelier than their own."""
        return self.probability > 1 - self.score

    @property
    def order(self) -> np.ndarray:
        """int64 [n]: from the worst."""
        return np.argsort(-self.score, kind="stable")


def judge(mixture: Mixture, y: np.ndarray, rows: np.ndarray, classes: Sequence[str]) -> JudgedLabels:
    """Every row of ``rows`` (int64 [n]) by the mixture; y: numbers of the classes, int [N].

    The score is cleanlab's self-confidence, turned round: of its rankings the one with the highest precision on real
    texts with flipped labels (benchmarks/audit/precision.py).
    """
    own, best, likeliest, wrong = (np.empty(len(rows)) for _ in range(4))
    experts = np.empty((len(mixture.experts), len(rows)), np.float32)
    size = min(len(rows), max(FIT_ROWS, FIT_NUMBERS // len(classes)))
    sample = np.sort(np.random.default_rng(0).permutation(rows)[:size])
    counts = np.bincount(y[rows], minlength=len(classes))
    count, layer = count_errors(mixture.said(sample), y[sample], list(classes), counts)
    step = max(1, CHUNK_NUMBERS // len(classes))
    for start in range(0, len(rows), step):
        chunk = slice(start, start + step)
        p, said = mixture.proba(rows[chunk])
        given = np.arange(len(p)), y[rows[chunk]]
        own[chunk], wrong[chunk] = p[given], layer.wrong(said, y[rows[chunk]])
        experts[:, chunk] = np.exp(said[:, given[0], given[1]])
        p[given] = -1
        best[chunk], likeliest[chunk] = p.argmax(axis=1), p.max(axis=1)
    judged = JudgedLabels(rows, 1 - own, best.astype(np.int64), likeliest, experts, wrong, count)
    found, read = wrong[judged.order], count.interval[1]
    expected = float(found[: count.estimate].sum()), float(found[:read].sum())
    return replace(judged, count=replace(count, read=read, expected_first=expected[0], expected=expected[1]))
