"""Mistakes, pairs and thresholds, against the same by hand."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.runs.mistakes import (
    MISTAKES,
    PAIRS,
    Judged,
    describe_targets,
    find_mistakes,
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


def test_what_the_rows_hold() -> None:
    assert describe_targets(np.array([0, 2, 2]), "classification") == {"rows": 3, "counts": [1, 0, 2]}
    assert describe_targets(np.array([[1.0, 0], [1, 1]]), "multilabel") == {"rows": 2, "counts": [2, 1]}
    values = describe_targets(np.array([[1.0], [2], [6]], np.float32), "regression")
    assert (values["mean"], values["median"], values["min"], values["max"]) == (3, 2, 1, 6)
    assert describe_targets(np.empty(0, np.int32), "classification") == {"rows": 0}
