"""Intervals and paired differences: against textbooks, the jackknife written out, and how often they hold."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.metrics import f1_score, r2_score

from embedcache.runs import intervals
from embedcache.runs.intervals import accuracy_interval, score_difference, score_interval
from embedcache.runs.metrics import score_labels


def labels(n: int, seed: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True classes, and what a better and a worse model say."""
    rng = np.random.default_rng(seed)
    y = rng.choice(classes, n, p=np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum())
    a, b = (np.where(rng.random(n) < share, y, rng.integers(0, classes, n)) for share in (0.7, 0.5))
    return y, a, b


def written_out(score: Any, y: np.ndarray, models: list[np.ndarray], unit: np.ndarray) -> tuple[float, float]:
    """(value, standard error) of the jackknife, one unit left out after another."""
    names = np.unique(unit)

    def value(keep: np.ndarray) -> float:
        found = [score(y[keep], model[keep]) for model in models]
        return found[0] - found[1] if len(found) == 2 else found[0]

    without = np.array([value(unit != name) for name in names])
    n = len(names)
    return value(np.ones(len(y), bool)), float(np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum()))


SCORERS = {
    "accuracy": lambda y, p: float((y == p).reshape(len(y), -1).all(axis=1).mean()),
    "macro_f1": lambda y, p: score_labels(p, y)[1],
    "r2": r2_score,
}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("kind", ["classes", "lists", "numbers"])
def test_the_jackknife_is_the_one_written_out(grouped: bool, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "DENSE", 30)  # in several parts
    rng = np.random.default_rng(1)
    unit = rng.integers(0, 12, 80) if grouped else np.arange(80)
    groups = unit * 7 + 3 if grouped else None
    if kind == "classes":
        y, a, b = labels(80, classes=4)
    elif kind == "lists":
        y = (rng.random((80, 3)) < 0.3).astype(np.float32)
        a, b = ((rng.random((80, 3)) < 0.1) ^ (y > 0), (rng.random((80, 3)) < 0.3) ^ (y > 0))
    else:
        y = rng.normal(1e5, 3, (80, 2))
        a, b = y + rng.normal(size=(80, 2)), y + rng.normal(size=(80, 2))
    for metric in ("r2",) if kind == "numbers" else ("accuracy", "macro_f1"):
        value, spread = written_out(SCORERS[metric], y, [a, b], unit)
        found = score_difference(metric, y, a, b, groups)
        assert found.difference == pytest.approx(value, abs=1e-9)
        assert found.groups == (12 if grouped else None) and found.rows == 80
        spread = spread if metric == "r2" else np.sqrt(spread**2 + 2 / 80**2)
        sizes = np.unique(unit, return_counts=True)[1]
        free = sizes.sum() ** 2 / (sizes**2).sum() - 1
        low, high = found.interval or (1, 0)
        assert (high - low) / 2 == pytest.approx(student.ppf(0.975, free) * spread, rel=1e-6)
        assert found.p == pytest.approx(2 * student.sf(abs(value) / spread, free), rel=1e-6)
        assert found.within_noise == (low <= 0 <= high) == (found.p > 0.05)
        document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert document["interval"] == [low, high] and document["within_noise"] == found.within_noise


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "r2"])
def test_several_seeds_are_scored_by_their_mean(metric: str, grouped: bool) -> None:
    y, a, b = labels(90, classes=4)
    c = np.roll(a, 1)
    if metric == "r2":
        rng = np.random.default_rng(2)
        y, a, b, c = (one + rng.normal(size=90) for one in (y, y, a, y))
    unit = np.random.default_rng(3).integers(0, 14, 90) if grouped else np.arange(90)

    def mean(y: np.ndarray, seeds: np.ndarray) -> float:
        return float(np.mean([SCORERS[metric](y, one) for one in seeds.T]))

    value, spread = written_out(mean, y, [np.stack([a, b], 1), np.stack([c, b, a], 1)], unit)
    found = score_difference(metric, y, [a, b], [c, b, a], unit if grouped else None)
    assert found.difference == pytest.approx(value, abs=1e-9) and found.p is not None
    spread = spread if metric == "r2" else np.sqrt(spread**2 + 2 / 90**2)
    sizes = np.unique(unit, return_counts=True)[1]
    free = sizes.sum() ** 2 / (sizes**2).sum() - 1
    assert found.p == pytest.approx(2 * student.sf(abs(value) / spread, free), rel=1e-6)
    low, high = score_interval(metric, y, [a, b], unit if grouped else None) or (1, 0)
    assert low < mean(y, np.stack([a, b], 1)) < high
    alone = score_interval(metric, y, a, unit if grouped else None)
    assert score_interval(metric, y, [a, a], unit if grouped else None) == pytest.approx(alone, abs=5e-3)
    assert score_interval(metric, y, [a], unit if grouped else None) == alone


def test_an_accuracy_of_rows_has_wilson_s_interval() -> None:
    y, a, _ = labels(120)
    assert score_interval("accuracy", y, a) == accuracy_interval((y == a).mean(), 120)
    each = score_interval("accuracy", y, a, np.arange(120)) or (0, 0)  # a group for each row: nearly the same
    assert each == pytest.approx(score_interval("accuracy", y, a), abs=0.002)


def test_groups_of_equal_rows_count_once() -> None:
    y, a, _ = labels(60)
    wide = score_interval("accuracy", y.repeat(10), a.repeat(10), np.arange(60).repeat(10)) or (0, 0)
    assert wide == pytest.approx(score_interval("accuracy", y, a), abs=0.005)
    narrow = score_interval("accuracy", y.repeat(10), a.repeat(10)) or (0, 0)
    assert (wide[1] - wide[0]) > 2.5 * (narrow[1] - narrow[0])


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_everything_right_or_wrong(metric: str) -> None:
    y = np.arange(40) % 2
    low, high = score_interval(metric, y, y) or (0, 0)
    assert 0.85 < low < 0.95 and high == pytest.approx(1)
    low, high = score_interval(metric, y, y, np.arange(40) // 10) or (0, 0)
    assert low < 0.6 and high == pytest.approx(1), "four groups prove less than forty rows"
    low, high = score_interval(metric, y, 1 - y) or (1, 1)
    assert low == pytest.approx(0, abs=1e-12) and 0.05 < high < 0.15


def test_what_cannot_be_known() -> None:
    y, a, b = labels(30)
    one_group = np.zeros(30, int)
    for metric in ("accuracy", "macro_f1"):
        assert score_interval(metric, y, a, one_group) is None
        alone = score_difference(metric, y, a, b, one_group)
        assert alone.interval is None and alone.p is None and alone.groups == 1 and alone.within_noise
    assert score_interval("macro_f1", y[:1], a[:1]) is None
    assert score_difference("accuracy", y, a, a).difference == 0
    low, high = score_difference("accuracy", y, a, a).interval or (1, 1)
    assert -0.12 < low < 0 < high < 0.12, "thirty rows without a difference do not prove that there is none"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score_interval("r2", np.ones(20), np.arange(20.0)) is None
        assert score_difference("r2", np.ones(20), np.arange(20.0), np.ones(20)).interval is None


def test_many_rows_and_classes_take_blocks() -> None:
    """Several labels, so many that single rows would be too much work: about the same interval from blocks."""
    rng = np.random.default_rng(0)
    y = rng.random((4000, 20)) < 0.2
    a = y ^ (rng.random((4000, 20)) < 0.1)
    exact = score_interval("macro_f1", y, a) or (0, 0)
    before, intervals.MOST_VALUES = intervals.MOST_VALUES, 1000
    try:
        blocks = score_interval("macro_f1", y, a) or (0, 0)
        assert blocks == score_interval("macro_f1", y, a)
    finally:
        intervals.MOST_VALUES = before
    assert blocks != exact and blocks == pytest.approx(exact, abs=0.15 * (exact[1] - exact[0]))


def clustered(rng: np.random.Generator, groups: int) -> tuple[np.ndarray, ...]:
    """Rows of groups in which a model is better or worse as a whole; sizes of every kind."""
    sizes = np.maximum(1, rng.lognormal(2.2, 0.9, groups).round()).astype(int)
    group = np.arange(groups).repeat(sizes)
    share = rng.beta(2.4, 0.8, groups)[group]
    y = rng.choice(3, len(group), p=[0.6, 0.3, 0.1])
    a = np.where(rng.random(len(group)) < share, y, rng.choice(3, len(group)))
    b = np.where(rng.random(len(group)) < np.clip(share - 0.1, 0, 1), y, rng.choice(3, len(group)))
    return y, a, b, group


def test_grouped_intervals_hold_the_truth_and_those_of_rows_do_not() -> None:
    """Of 200 samples of 20 groups: Wilson's interval over rows holds in some 60 of 100; these in some 95."""
    rng = np.random.default_rng(5)
    y, a, b, _ = clustered(rng, 60_000)
    truth = {m: (SCORERS[m](y, a), SCORERS[m](y, a) - SCORERS[m](y, b)) for m in ("accuracy", "macro_f1")}
    held = dict.fromkeys(("rows", "accuracy", "macro_f1", "accuracy difference", "macro_f1 difference"), 0)
    for _ in range(200):
        y, a, b, group = clustered(rng, 20)
        low, high = accuracy_interval((y == a).mean(), len(y))
        held["rows"] += low <= truth["accuracy"][0] <= high
        for metric in ("accuracy", "macro_f1"):
            low, high = score_interval(metric, y, a, group) or (1, 0)
            held[metric] += low <= truth[metric][0] <= high
            low, high = score_difference(metric, y, a, b, group).interval or (1, 0)
            held[f"{metric} difference"] += low <= truth[metric][1] <= high
    assert held.pop("rows") < 150
    assert all(180 <= count <= 199 for count in held.values()), held


def test_macro_f1_and_differences_of_rows_hold_the_truth() -> None:
    y, a, b = labels(300_000)
    truth = (f1_score(y, a, average="macro"), (y == a).mean() - (y == b).mean())
    held = np.zeros(2)
    for seed in range(200):
        y, a, b = labels(150, seed + 1)
        for i, found in enumerate((score_interval("macro_f1", y, a), score_difference("accuracy", y, a, b).interval)):
            low, high = found or (1, 0)
            held[i] += low <= truth[i] <= high
    assert np.all((held >= 182) & (held <= 199)), held


def test_a_million_rows_take_little_time() -> None:
    import time

    y, a, b = labels(1_000_000, classes=50)
    start = time.perf_counter()
    score_difference("macro_f1", y, a, b)
    score_interval("macro_f1", y, a, np.arange(1_000_000) // 9)
    assert time.perf_counter() - start < 60


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_a_difference_of_shares_is_one_at_most(metric: str) -> None:
    y = np.array([0, 1, 1, 0, 1, 1])
    interval = score_difference(metric, y, y, np.array([0, 1, 0, 1, 1, 0])).interval
    assert interval is not None and -1 <= interval[0] < interval[1] <= 1
