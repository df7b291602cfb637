"""Mistakes, pairs and thresholds, against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from embedcache.runs.mistakes import (
    MISTAKES,
    PAIRS,
    Judged,
    best_threshold,
    describe_targets,
    find_mistakes,
    find_thresholds,
    value_pairs,
)

RNG = np.random.default_rng(0)


def hashes(n: int, same: tuple[int, ...] = ()) -> np.ndarray:
    """Different for every row, but for those that are ``same``."""
    made = RNG.integers(0, 256, (n, 16)).astype(np.uint8)
    made[list(same)] = 7
    return made


def test_the_surest_wrong_rows_come_first_and_each_text_once() -> None:
    y = np.array([0, 1, 0, 1, 0], np.int32)
    outputs = np.log(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.95, 0.05], [0.3, 0.7]], np.float32))
    judged = Judged(np.array([10, 11, 12, 13, 14]), y, outputs)
    found = find_mistakes(judged, ["no", "yes"], "classification", hashes(20, same=(12, 14)))
    assert [(one["row"], one["label"], one["predicted"]) for one in found] == [
        (13, "yes", "no"), (12, "no", "yes"), (11, "yes", "no")
    ]  # fmt: skip
    assert [one["probability"] for one in found] == pytest.approx([0.95, 0.8, 0.6])
    assert found[0]["label_probability"] == pytest.approx(0.05) and len(found[0]["hash"]) == 32


def test_no_more_than_are_wanted_and_none_where_all_is_right() -> None:
    y = np.zeros(500, np.int32)
    wrong = Judged(np.arange(500), y, np.stack([-RNG.random(500), np.ones(500)], axis=1).astype(np.float32))
    assert len(find_mistakes(wrong, ["a", "b"], "classification", hashes(500))) == MISTAKES
    right = Judged(np.arange(500), y + 1, wrong.outputs)
    assert find_mistakes(right, ["a", "b"], "classification", hashes(500)) == []


def test_of_several_labels_the_most_wrong_one() -> None:
    y = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    outputs = np.array([[-3.0, 0.5], [-1.0, 1.0], [1.0, -0.1]], np.float32)
    found = find_mistakes(Judged(np.arange(3), y, outputs), ["a", "b"], "multilabel", hashes(3))
    assert [(one["row"], one["label"], one["predicted"], one["about"]) for one in found] == [
        (0, ["a"], ["b"], "a"), (2, ["a", "b"], ["a"], "b")
    ]  # fmt: skip
    assert found[0]["probability"] == pytest.approx(1 / (1 + np.exp(3)))


def test_the_largest_errors_of_a_regression() -> None:
    y, predicted = np.array([[1.0], [2.0], [3.0]], np.float32), np.array([[1.0], [5.0], [1.0]], np.float32)
    judged = Judged(np.array([5, 6, 7]), y, predicted)
    found = find_mistakes(judged, ["score"], "regression", hashes(8))
    assert [(one["row"], one["label"], one["predicted"]) for one in found] == [(6, 2.0, 5.0), (7, 3.0, 1.0)]
    assert value_pairs(judged) == [[1.0, 1.0], [2.0, 5.0], [3.0, 1.0]]
    many = Judged(np.arange(5000), np.arange(5000.0)[:, None], np.arange(5000.0)[:, None])
    pairs = value_pairs(many)
    assert len(pairs) == PAIRS and pairs[0] == [0, 0] and pairs[-1] == [4999, 4999]


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
    found = find_thresholds(val, test, ["a", "b", "c"])
    assert [one["label"] for one in found] == ["a", "b"]
    for c, one in enumerate(found):
        proba = 1 / (1 + np.exp(-outputs[100:, c].astype(np.float64)))
        assert one["test_f1_at_half"] == pytest.approx(f1_score(y[100:, c], proba > 0.5))
        assert one["test_f1"] == pytest.approx(f1_score(y[100:, c], proba >= one["threshold"]))
        assert one["val_f1"] >= one["val_f1_at_half"]
    assert find_thresholds(val, None, ["x"] * 101) == []


def test_what_the_rows_hold() -> None:
    assert describe_targets(np.array([0, 2, 2]), "classification") == {"rows": 3, "counts": [1, 0, 2]}
    assert describe_targets(np.array([[1.0, 0], [1, 1]]), "multilabel") == {"rows": 2, "counts": [2, 1]}
    values = describe_targets(np.array([[1.0], [2], [6]], np.float32), "regression")
    assert (values["mean"], values["median"], values["min"], values["max"]) == (3, 2, 1, 6)
    assert describe_targets(np.empty(0, np.int32), "classification") == {"rows": 0}
