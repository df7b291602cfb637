"""Scores against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.heads.metrics import accuracy_interval, score


def test_scores_of_three_rows() -> None:
    proba = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]], np.float32)
    scores = score(np.log(proba), np.array([0, 1, 2]))
    assert scores.loss == pytest.approx(-np.log([0.5, 0.8, 0.2]).mean(), rel=1e-6)
    assert scores.accuracy == pytest.approx(2 / 3)
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert set(scores.to_dict()) == {"loss", "accuracy", "macro_f1"}


def test_a_very_unlikely_class_keeps_its_loss() -> None:
    assert score(np.array([[0.0, -500.0]]), np.array([1])).loss == 500


def test_wilson_interval() -> None:
    low, high = accuracy_interval(0.9, 100)  # the textbook's example
    assert (low, high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))
    low, high = accuracy_interval(1.0, 5)
    assert high == pytest.approx(1) and 0.5 < low < 0.6
