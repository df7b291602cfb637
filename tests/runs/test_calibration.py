"""Calibration against values worked out by hand, scikit-learn and PyTorch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from embedcache.runs.calibration import (
    calibration_error,
    fit_temperature,
    measure_calibration,
    negative_log_likelihood,
    probabilities,
    reliability,
)


def logits_of(n: int, classes: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(y, logits): y is drawn from the softmax of logits / sharpness, so the true temperature is the sharpness."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    proba = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    y = (rng.random((n, 1)) > proba.cumsum(1)).sum(1).clip(0, classes - 1)
    return y, (logits * sharpness).astype(np.float32)


def labels_of(n: int, labels: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(n, labels)) * 2
    y = (rng.random((n, labels)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return y, (logits * sharpness).astype(np.float32)


def test_calibration_error_by_hand() -> None:
    confidence = np.array([0.55, 0.58, 0.9, 0.92, 0.95])
    right = np.array([True, False, True, True, False])
    bins = reliability(confidence, right, bins=5)  # (0.4, 0.6] and (0.8, 1]
    assert [(one.rows, one.low, one.high) for one in bins] == [
        (2, pytest.approx(0.4), pytest.approx(0.6)),
        (3, pytest.approx(0.8), pytest.approx(1)),
    ]
    assert (bins[0].confidence, bins[0].accuracy) == (pytest.approx(0.565), 0.5)
    assert (bins[1].confidence, bins[1].accuracy) == (pytest.approx(2.77 / 3), pytest.approx(2 / 3))
    assert calibration_error(bins) == pytest.approx((2 * 0.065 + 3 * (2.77 / 3 - 2 / 3)) / 5)
    adaptive = reliability(confidence, right, bins=2, adaptive=True)
    assert [(one.rows, one.low, one.high) for one in adaptive] == [(3, 0.55, 0.9), (2, 0.92, 0.95)]
    by_hand = 3 * abs(2.03 / 3 - 2 / 3) + 2 * abs(1.87 / 2 - 0.5)
    assert calibration_error(adaptive) == pytest.approx(by_hand / 5)


def test_a_confidence_on_an_edge_is_in_the_lower_bin() -> None:
    (one,) = reliability(np.array([0.5]), np.array([True]), bins=2)
    assert (one.low, one.high) == (0, 0.5)
    (one,) = reliability(np.array([0.0]), np.array([False]), bins=2)
    assert (one.low, one.high) == (0, 0.5)


def test_bins_are_scikit_learns() -> None:
    y, logits = logits_of(3000, 4, 1.5)
    proba = probabilities(logits, "classification")
    confidence, right = proba.max(1), logits.argmax(1) == y
    bins = reliability(confidence, right)
    accuracy, mean = calibration_curve(right, confidence, n_bins=15)
    np.testing.assert_allclose([one.accuracy for one in bins], accuracy, rtol=1e-12)
    np.testing.assert_allclose([one.confidence for one in bins], mean, rtol=1e-6)


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_loss_and_brier_are_scikit_learns(classes: int, temperature: float) -> None:
    y, logits = logits_of(500, classes, 2.0)
    proba = probabilities(logits, "classification", temperature).astype(np.float64)
    proba /= proba.sum(1, keepdims=True)
    found = measure_calibration(y, logits, "classification", temperature)
    assert found.loss == pytest.approx(log_loss(y, proba), rel=1e-5)
    target = np.eye(classes)[y]
    half = 2 if classes == 2 else 1
    assert found.brier == pytest.approx(((proba - target) ** 2).sum(1).mean() / half, rel=1e-5)
    if classes == 2:
        assert found.brier == pytest.approx(brier_score_loss(y, proba[:, 1]), rel=1e-5)
    assert sum(one.rows for one in found.bins) == 500
    assert "bins" not in found.to_dict(bins=False) and len(found.to_dict()["bins"]) == len(found.bins)


def test_labels_are_decisions_of_their_own() -> None:
    y, logits = labels_of(400, 3, 2.0)
    found = measure_calibration(y, logits, "multilabel", 1.3)
    scaled = torch.from_numpy(logits / 1.3)
    loss = torch.nn.BCEWithLogitsLoss()(scaled, torch.from_numpy(y)).item()
    assert found.loss == pytest.approx(loss, rel=1e-6)
    proba = scaled.sigmoid().numpy().astype(np.float64).ravel()
    assert found.brier == pytest.approx(brier_score_loss(y.ravel(), proba), rel=1e-6)
    assert sum(one.rows for one in found.bins) == 1200
    guess = proba > 0.5
    bins = reliability(np.where(guess, proba, 1 - proba), guess == y.ravel().astype(bool))
    assert found.ece == pytest.approx(calibration_error(bins), abs=1e-6)


@pytest.mark.parametrize("sharpness", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_the_temperature_is_found(kind: str, sharpness: float) -> None:
    y, logits = logits_of(20000, 6, sharpness) if kind == "classification" else labels_of(8000, 4, sharpness)
    temperature = fit_temperature(y, logits, kind)
    assert temperature == pytest.approx(sharpness, rel=0.05)  # what made the data
    best = negative_log_likelihood(y, logits, kind, temperature)
    for other in (0.97, 0.999, 1.001, 1.03):
        assert negative_log_likelihood(y, logits, kind, temperature * other) >= best - 1e-7
    before, after = (measure_calibration(y, logits, kind, t) for t in (1.0, temperature))
    assert after.ece < 0.015 and after.loss <= before.loss + 1e-7
    if sharpness != 1:
        assert after.ece < before.ece / 3


def test_log_probabilities_do_as_well_as_logits() -> None:
    y, logits = logits_of(1000, 3, 2.0)
    log_proba = torch.from_numpy(logits).log_softmax(1).numpy()
    assert fit_temperature(y, log_proba, "classification") == pytest.approx(
        fit_temperature(y, logits, "classification"), rel=1e-4
    )
    assert measure_calibration(y, log_proba, "classification").ece == pytest.approx(
        measure_calibration(y, logits, "classification").ece, abs=1e-6
    )


def test_rows_that_tell_of_no_temperature() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 0.5]], np.float32)
    assert fit_temperature(np.array([0, 1, 0]), logits, "classification") is None  # all right: the colder the better
    assert fit_temperature(np.array([1, 0, 1]), logits, "classification") is None  # all wrong: the hotter the better
    assert fit_temperature(np.array([0, 1, 0]), np.zeros((3, 2), np.float32), "classification") is None
    assert fit_temperature(np.array([[1.0], [0.0]]), np.array([[1.0], [-1.0]], np.float32), "multilabel") is None


def test_huge_logits_stay_finite() -> None:
    logits = np.array([[5e4, 0.0], [0.0, 5e4], [5e4, 0.0]], np.float32)
    found = measure_calibration(np.array([0, 1, 1]), logits, "classification")
    assert found.loss == pytest.approx(5e4 / 3) and found.brier == pytest.approx(1 / 3)
    found = measure_calibration(np.array([[1.0, 0.0]]), np.array([[5e4, 5e4]], np.float32), "multilabel")
    assert found.loss == pytest.approx(2.5e4) and found.ece == pytest.approx(0.5)
