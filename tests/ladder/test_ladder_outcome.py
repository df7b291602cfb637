"""Where to stop, on constructed results."""

from __future__ import annotations

import pytest

from embedcache.ladder.outcome import stop_at
from embedcache.runs.intervals import Difference


def difference(value: float, half: float) -> Difference:
    return Difference("accuracy", value, (value - half, value + half), None, 100, None)


@pytest.mark.parametrize(
    ("scores", "half", "stop"),
    [
        ([0.5, 0.7, 0.8], 0.05, 2),  # each is better than the one before
        ([0.5, 0.7, 0.72], 0.05, 1),  # the last is within noise
        ([0.5, 0.70, 0.73, 0.76], 0.05, 2),  # small steps add up: the last beats the second, not the third
        ([0.5, 0.8, 0.6, 0.7], 0.05, 1),  # better than what lies between is not better
        ([0.5, 0.4, 0.3], 0.05, 0),  # nothing beats the lowest
        ([0.5], 0.05, 0),
        ([0.5, 0.9], 1.0, 0),  # too few rows to say
    ],
)
def test_where_to_stop(scores: list[float], half: float, stop: int) -> None:
    pairs = {
        (high, low): difference(scores[high] - scores[low], half) for high in range(len(scores)) for low in range(high)
    }
    assert stop_at(len(scores), pairs) == stop


def test_without_an_interval_nothing_is_better() -> None:
    assert stop_at(2, {(1, 0): Difference("accuracy", 0.4, None, None, 1, None)}) == 0
