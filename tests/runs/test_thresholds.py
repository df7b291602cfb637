"""Thresholds chosen on validation rows, against the best of all by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score

from embedcache.runs.mistakes import Judged
from embedcache.runs.thresholds import best_threshold, find_thresholds

RNG = np.random.default_rng(0)


def test_thresholds_are_the_best_of_all_that_could_be() -> None:
    truth, proba = RNG.random(300) < 0.3, RNG.random(300)
    proba[truth] += 0.2
    scores = [f1_score(truth, proba >= t) for t in proba]
    threshold = best_threshold(truth, proba)
    assert f1_score(truth, proba >= threshold) == pytest.approx(max(scores))
    nearest = min(abs(t - 0.5) for t, score in zip(proba, scores, strict=True) if score >= max(scores) - 1e-12)
    assert abs(threshold - 0.5) == pytest.approx(nearest)


def test_thresholds_chosen_on_validation_are_tried_on_test_rows() -> None:
    y = (RNG.random((200, 3)) < 0.3).astype(np.float32)
    y[:, 2] = 0  # a label that no row has
    outputs = (RNG.normal(size=(200, 3)) + 2 * y - 2).astype(np.float32)
    val, test = (Judged(np.arange(100), y[half], outputs[half]) for half in (slice(100), slice(100, 200)))
    found = find_thresholds({"val": val, "test": test}, ["a", "b", "c"], "multilabel", "accuracy")
    assert [one["label"] for one in found] == ["a", "b"]
    for c, one in enumerate(found):
        proba = 1 / (1 + np.exp(-outputs[100:, c].astype(np.float64)))
        assert one["test_f1_at_half"] == pytest.approx(f1_score(y[100:, c], proba > 0.5))
        assert one["test_f1"] == pytest.approx(f1_score(y[100:, c], proba >= one["threshold"]))
        assert one["val_f1"] >= one["val_f1_at_half"]
    assert find_thresholds({"val": val}, ["x"] * 101, "multilabel", "accuracy") == []


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_threshold_of_two_classes_is_the_best_of_all(metric: str) -> None:
    y = (RNG.random(400) < 0.2).astype(np.int64)  # unequal: one half is not the best place
    z = RNG.normal(size=400) + 1.5 * y - 1
    outputs = np.stack([np.zeros(400), z], axis=1).astype(np.float32)
    p = 1 / (1 + np.exp(-outputs[:, 1].astype(np.float64)))
    halves = {"val": slice(300), "test": slice(300, 400)}
    sides = {side: Judged(np.arange(400)[some], y[some], outputs[some]) for side, some in halves.items()}
    (found,) = find_thresholds(sides, ["no", "yes"], "classification", metric)
    assert found["label"] == "yes" and found["metric"] == metric
    score = {"accuracy": accuracy_score, "macro_f1": lambda a, b: f1_score(a, b, average="macro")}[metric]
    best = max(score(y[:300], p[:300] >= t) for t in [*p[:300], 0.5, 1.1])
    assert found[f"val_{metric}"] == pytest.approx(score(y[:300], p[:300] >= found["threshold"])) == pytest.approx(best)
    assert found[f"test_{metric}"] == pytest.approx(score(y[300:], p[300:] >= found["threshold"]))
    assert found[f"test_{metric}_at_half"] == pytest.approx(score(y[300:], p[300:] >= 0.5))


def test_where_there_is_no_threshold() -> None:
    judged = Judged(np.arange(3), np.arange(3), np.eye(3, dtype=np.float32))
    assert find_thresholds({"val": judged}, ["a", "b", "c"], "classification", "accuracy") == []
    assert find_thresholds({"test": judged}, ["a", "b"], "classification", "accuracy") == []
    values = Judged(np.arange(3), np.ones((3, 1), np.float32), np.ones((3, 1), np.float32))
    assert find_thresholds({"val": values}, ["price"], "regression", "r2") == []
