"""recall@10 of an index, measured on held-out rows of its own, and the least effort that reaches what was asked.

recall@k is the share of the true k nearest rows that are among the k found (as ann-benchmarks counts it, ties
included). What is asked counts as reached when the mean less 1.64 standard errors, the lower end of a 90% interval, is
no less: queries that were not measured then reach it, too, nineteen times in twenty.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embedcache.index.approximate import Approximate
from embedcache.index.exact import StoredRows, search_all
from embedcache.index.own_row import without_own
from embedcache.index.plan import HELD_OUT

K = 10
SURE = 1.64  # standard errors
USUAL = 8  # the factor that is tried first
TIES = 1e-6  # of a score: float32 tells no more apart
SEED = 1


@dataclass(frozen=True)
class Truth:
    """Held-out queries Q [q, D], their own rows [q], and the K-th best true score of each [q], the own row left out."""

    Q: np.ndarray
    own: np.ndarray
    worst: np.ndarray


def held_out(rows: StoredRows, first: int = 0, count: int = HELD_OUT) -> np.ndarray:
    """int64, ascending: rows from ``first`` on, chosen at random among those that have a direction."""
    random = np.random.default_rng(SEED)
    chosen = np.sort(first + random.permutation(len(rows) - first)[: 2 * count])
    usable = chosen[rows.unit(chosen).any(axis=1)]
    return np.sort(random.permutation(usable)[:count])


def truth_of(rows: StoredRows, own: np.ndarray, present: np.ndarray | None) -> Truth:
    """What exact search finds for the rows ``own``, among those ``present`` (int64; None: all)."""
    Q = rows.unit(own)
    count = len(rows) if present is None else len(present)
    scores, found = search_all(rows, Q, min(K + 1, count), present)
    _, kept = without_own(own, found, scores)
    return Truth(Q, own, kept[:, -1] if kept.shape[1] else np.full(len(Q), np.inf, np.float32))


@dataclass(frozen=True)
class Measured:
    """recall: mean over the queries; error: its standard error; seconds: that answering all of them took."""

    recall: float
    error: float
    seconds: float

    def reaches(self, asked: float) -> bool:
        return self.recall - SURE * self.error >= asked


def measure(engine: Approximate, truth: Truth, effort: int, factor: int) -> Measured:
    """Recall and time of one setting; a row counts as found when its score is no less than the K-th best."""
    start = time.perf_counter()
    _, found = engine.candidates(truth.Q, K + 1, effort, factor)
    seconds = time.perf_counter() - start
    hits = np.zeros(len(truth.Q))
    wanted = min(K, len(engine.rows) - 1)
    for i in range(0, len(truth.Q), 100):
        part = slice(i, i + 100)
        U = engine.rows.unit(np.maximum(found[part], 0).ravel()).reshape(*found[part].shape, -1)
        scores = np.einsum("qd,qkd->qk", truth.Q[part], U)
        right = (scores >= truth.worst[part, None] - TIES) & (found[part] >= 0)
        right &= found[part] != truth.own[part, None]
        hits[part] = np.minimum(right.sum(axis=1), wanted) / wanted if wanted else 1
    return Measured(float(hits.mean()), float(hits.std() / max(len(hits), 1) ** 0.5), seconds)


def tune(engine: Approximate, truth: Truth, asked: float, tick: Callable[[float], None]) -> Measured:
    """Set the effort and factor that reach ``asked`` in the least time; else the highest, which come nearest.

    Recall grows with each of the two. The least effort that reaches it is found by bisection, first for the factor
    USUAL; fewer rows re-ranked need more effort, and smaller factors are tried until that no longer pays.
    """
    factors = engine.factors
    first = next((i for i, factor in enumerate(factors) if factor >= USUAL), len(factors) - 1)
    start = max(1, engine.most_effort // 64)
    while (effort := _least_effort(engine, truth, asked, factors[first], 0, start)) is None:
        if first == len(factors) - 1:
            engine.effort, engine.factor = engine.most_effort, factors[-1]
            return measure(engine, truth, engine.effort, engine.factor)
        first, start = first + 1, engine.most_effort
    best: tuple[float, int, int, Measured] | None = None
    for done, factor in enumerate(reversed(factors[: first + 1])):
        tick(done / (first + 1))
        if done:
            more = _least_effort(engine, truth, asked, factor, effort - 1, 2 * effort, 2 * effort)
            if more is None:
                break
            effort = more
        trials = [measure(engine, truth, effort, factor) for _ in range(3)]
        seconds = sorted(trial.seconds for trial in trials)[1]
        if best is not None and seconds > best[0]:
            break
        best = seconds, effort, factor, trials[0]
    tick(1.0)
    assert best is not None
    _, engine.effort, engine.factor, measured = best
    return measured


def _least_effort(
    engine: Approximate, truth: Truth, asked: float, factor: int, low: int, high: int, most: int | None = None
) -> int | None:
    """Above ``low``: from ``high`` on by doubling, then by bisection in steps of a twelfth; None where most is less."""
    most = min(most or engine.most_effort, engine.most_effort)
    high = min(high, most)
    while not measure(engine, truth, high, factor).reaches(asked):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 12):
        middle = (low + high) // 2
        if measure(engine, truth, middle, factor).reaches(asked):
            high = middle
        else:
            low = middle
    return high
