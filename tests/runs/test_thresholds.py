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


def judged_labels(y: np.ndarray, outputs: np.ndarray) -> dict[str, Judged]:
    half = len(y) // 2
    sides = {"val": slice(half), "test": slice(half, 2 * half)}
    return {side: Judged(np.arange(half), y[some], outputs[some]) for side, some in sides.items()}


def test_thresholds_chosen_on_validation_are_tried_on_test_rows() -> None:
    y = (RNG.random((200, 3)) < 0.3).astype(np.float32)
    y[:, 2] = 0  # a label that no row has
    outputs = (RNG.normal(size=(200, 3)) + 2 * y - 2).astype(np.float32)
    sides = judged_labels(y, outputs)
    found = find_thresholds(sides, ["a", "b", "c"], "multilabel", "accuracy")
    assert [(one["label"], one["shared"]) for one in found] == [("a", False), ("b", False), ("c", True)]
    assert [one["rows"] for one in found] == y[:100].sum(axis=0).tolist()
    for c, one in enumerate(found[:2]):
        proba = 1 / (1 + np.exp(-outputs[100:, c].astype(np.float64)))
        assert one["test_f1_at_half"] == pytest.approx(f1_score(y[100:, c], proba > 0.5))
        assert one["test_f1"] == pytest.approx(f1_score(y[100:, c], proba >= one["threshold"]))
        assert one["val_f1"] >= one["val_f1_at_half"]
    assert found[2]["val_f1"] is None and found[2]["test_f1_at_half"] is None
    assert find_thresholds({"val": sides["val"]}, ["x"] * 1001, "multilabel", "accuracy") == []


def test_labels_of_few_rows_share_a_threshold() -> None:
    """A threshold of their own would be a matter of chance: here that of one row, whose probability is low."""
    rng = np.random.default_rng(3)
    y = (rng.random((600, 41)) < np.r_[0.3, np.full(40, 0.01)]).astype(np.float32)
    outputs = (2 * rng.normal(size=y.shape) + 4 * y - 4).astype(np.float32)
    sides = judged_labels(y, outputs)
    found = find_thresholds(sides, [f"{i}" for i in range(41)], "multilabel", "accuracy")
    (shared,) = {one["threshold"] for one in found if one["shared"]}
    assert not found[0]["shared"] and sum(one["shared"] for one in found) == 40
    p = {side: 1 / (1 + np.exp(-one.outputs[:, 1:].astype(np.float64))) for side, one in sides.items()}
    assert shared == best_threshold(sides["val"].y[:, 1:].ravel() > 0, p["val"].ravel())
    own = [
        best_threshold(truth > 0, proba) if truth.any() else 0.5
        for truth, proba in zip(sides["val"].y[:, 1:].T, p["val"].T, strict=True)
    ]

    def micro(cuts: float | list[float]) -> float:
        return float(f1_score(sides["test"].y[:, 1:], p["test"] >= cuts, average="micro"))

    assert micro(shared) > 1.1 * micro(own) and micro(shared) >= micro(0.5)


def test_where_all_labels_have_few_rows_the_threshold_stays() -> None:
    y = np.zeros((20, 2), np.float32)
    y[0, 0] = 1
    found = find_thresholds(judged_labels(y, y - 3), ["a", "b"], "multilabel", "accuracy")
    assert [one["threshold"] for one in found] == [0.5, 0.5]


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
