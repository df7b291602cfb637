"""Scores against scikit-learn, SciPy and values worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from embedcache.runs.intervals import accuracy_interval, score_interval
from embedcache.runs.metrics import evaluate, score_labels
from embedcache.runs.scores import measure_all


def outputs_of(n: int, classes: int, signal: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    y = rng.integers(0, classes, n).astype(np.int32)
    outputs = rng.normal(size=(n, classes)).astype(np.float32)
    outputs[np.arange(n), y] += signal
    return y, outputs


def test_three_rows_by_hand() -> None:
    proba = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.6, 0.2, 0.2]], np.float32)
    found = evaluate(np.array([0, 1, 2]), np.log(proba), ["a", "b", "c"])
    assert found.scores["loss"] == pytest.approx(-np.log([0.5, 0.8, 0.2]).mean(), rel=1e-6)
    assert found.scores["accuracy"] == pytest.approx(2 / 3)
    assert found.scores["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert found.confusion_matrix is not None
    assert found.confusion_matrix.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert [(one.label, one.predicted, one.rows) for one in found.confusions] == [("c", "a", 1)]
    assert found.intervals == {} and found.scaled is None


@pytest.mark.parametrize("classes", [2, 7])
def test_classes_are_scored_as_scikit_learn_does(classes: int) -> None:
    y, outputs = outputs_of(300, classes)
    names = [f"class {c}" for c in range(classes)]
    found = evaluate(y, outputs, names, temperature=1.5, interval=True)
    predicted = outputs.argmax(1)
    report = classification_report(y, predicted, target_names=names, output_dict=True, zero_division=0)
    for one in found.per_class:
        theirs = report[one.label]
        assert (one.precision, one.recall, one.f1, one.support) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    assert [one.label for one in found.per_class] == names
    assert found.scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert found.scores["accuracy"] == pytest.approx(report["accuracy"])
    np.testing.assert_array_equal(found.confusion_matrix, confusion_matrix(y, predicted))
    assert found.intervals["accuracy"] == accuracy_interval(report["accuracy"], 300)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["accuracy_interval"] == list(accuracy_interval(report["accuracy"], 300))
    low, high = document["macro_f1_interval"]
    assert low < found.scores["macro_f1"] < high and 0.05 < high - low < 0.2
    assert document["temperature"] == 1.5
    assert document["calibration_scaled"]["loss"] != document["calibration"]["loss"] == document["loss"]
    assert np.array(document["confusion_matrix"]).sum() == 300


def test_classes_without_rows_count_only_where_predicted() -> None:
    y = np.array([0, 0, 1, 1])
    outputs = np.eye(5, dtype=np.float32)[[0, 0, 1, 3]]
    found = evaluate(y, outputs, list("abcde"))  # c and e occur nowhere
    assert found.scores["macro_f1"] == pytest.approx(f1_score(y, [0, 0, 1, 3], average="macro"))
    assert found.scores["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert [one.support for one in found.per_class] == [2, 2, 0, 0, 0]
    assert score_labels(outputs.argmax(1), y) == pytest.approx((0.75, found.scores["macro_f1"]))


def test_many_classes_have_confusions_and_no_matrix() -> None:
    y, outputs = outputs_of(2000, 150, 1.0)
    y[:40], outputs[:40] = 3, -5
    outputs[:40, 9] = 5  # one pair above all
    found = evaluate(y, outputs, [str(c) for c in range(150)])
    assert found.confusion_matrix is None and found.to_dict()["confusion_matrix"] is None
    wrong = confusion_matrix(y, outputs.argmax(1)) * (1 - np.eye(150, dtype=int))
    assert len(found.confusions) == 20
    assert [one.rows for one in found.confusions] == sorted(wrong.ravel(), reverse=True)[:20]
    assert (found.confusions[0].label, found.confusions[0].predicted) == ("3", "9")


def test_a_very_unlikely_class_keeps_its_loss() -> None:
    assert evaluate(np.array([1]), np.array([[0.0, -500.0]]), ["a", "b"]).scores["loss"] == 500


def test_labels_are_scored_as_scikit_learn_does() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((200, 4)) < 0.4).astype(np.float32)
    y[:, 3] = 0
    outputs = ((2 * y - 1) + rng.normal(size=y.shape)).astype(np.float32)
    outputs[:, 3] = -1  # never there, never predicted: it doesn't count
    found = evaluate(y, outputs, list("abcd"), "multilabel", temperature=0.5, interval=True)
    truth, predicted = y[:, :3].astype(int), (outputs[:, :3] > 0).astype(int)
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert found.scores["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert found.scores["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    report = classification_report(truth, predicted, target_names=list("abc"), output_dict=True, zero_division=0)
    for one in found.per_class[:3]:
        assert one.precision == pytest.approx(report[one.label]["precision"])
        assert one.recall == pytest.approx(report[one.label]["recall"])
    assert (found.per_class[3].f1, found.per_class[3].support) == (0, 0)
    document = json.loads(json.dumps(found.to_dict(bins=False), allow_nan=False))
    assert "confusion_matrix" not in document and "bins" not in document["calibration"]


def test_no_label_anywhere() -> None:
    found = evaluate(np.zeros((3, 2), np.float32), np.full((3, 2), -1, np.float32), ["a", "b"], "multilabel")
    assert found.scores["accuracy"] == 1 and found.scores["macro_f1"] == found.scores["micro_f1"] == 0


@pytest.mark.parametrize("shape", [(150,), (150, 2)])
def test_regression(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(3, 2, shape)
    predicted = (y + rng.normal(0, 1, shape)).astype(np.float32)
    found = evaluate(y, predicted, [], "regression", interval=True)
    columns = [(a, b) for a, b in zip(np.atleast_2d(y.T), np.atleast_2d(predicted.T), strict=True)]
    assert found.scores == pytest.approx(
        {
            "r2": r2_score(y, predicted),
            "rmse": root_mean_squared_error(y, predicted),
            "mae": mean_absolute_error(y, predicted),
            "spearman": np.mean([spearmanr(a, b)[0] for a, b in columns]),
        }
    )
    low, high = found.intervals["r2"] or (1, 0)
    assert low < found.scores["r2"] < high and 0.03 < high - low < 0.2
    assert found.intervals["r2"] == score_interval("r2", y, predicted)  # the same at every call
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["r2_interval"] == [low, high] and "calibration" not in document


@pytest.mark.filterwarnings("error")
def test_regression_without_sense() -> None:
    constant = measure_all("regression", np.ones(20), np.arange(20.0))
    assert np.isnan(constant["spearman"]) and score_interval("r2", np.ones(20), np.arange(20.0)) is None
    assert np.isnan(measure_all("regression", np.ones(1), np.ones(1))["r2"])
    assert score_interval("r2", np.arange(5.0), np.ones(5)) is None
    assert evaluate(np.ones(20), np.arange(20.0), [], "regression").to_dict()["spearman"] is None


def test_wilson_interval() -> None:
    low, high = accuracy_interval(0.9, 100)  # the textbook's example
    assert (low, high) == (pytest.approx(0.8256, abs=1e-4), pytest.approx(0.9448, abs=1e-4))
    low, high = accuracy_interval(1.0, 5)
    assert high == pytest.approx(1) and 0.5 < low < 0.6
