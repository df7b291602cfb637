"""Whether probabilities can be taken at their word: calibration error, Brier score, temperature scaling.

Guo et al., "On Calibration of Modern Neural Networks" (2017). ``outputs`` are logits float [n, C]; for classification
log-probabilities will do as well. ``y``: class codes int [n] (classification) or 0/1 [n, C] (multilabel, where every
label of every row is a decision of its own).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedcache.heads.kinds import kind_of

BINS = 15
WIDEST_TEMPERATURE = 20.0  # temperatures are sought from 1/20 to 20


@dataclass(frozen=True)
class Bin:
    """Decisions of confidence in (low, high]: how many, their mean confidence, and the share that was right."""

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """loss: mean negative log-likelihood in nats; ece, ece_adaptive and the bins' values from 0 to 1.

    brier: the mean squared error of the probabilities as scikit-learn has it: summed over the classes, for two classes
    and for labels of one's own half of that, 0 to 1. bins: those of ``ece``, without empty ones.
    """

    loss: float
    ece: float
    ece_adaptive: float
    brier: float
    bins: list[Bin]

    def to_dict(self, bins: bool = True) -> dict[str, Any]:
        """JSON types."""
        document = asdict(self)
        return document if bins else {name: value for name, value in document.items() if name != "bins"}


def measure_calibration(y: np.ndarray, outputs: np.ndarray, kind: str, temperature: float = 1.0) -> Calibration:
    """The calibration of the outputs divided by a temperature; n > 0 rows."""
    proba = probabilities(outputs, kind, temperature)
    if not kind_of(kind).exclusive:
        confidence, right = np.maximum(proba, 1 - proba).ravel(), ((outputs > 0) == (y > 0)).ravel()
        brier = ((proba - y) ** 2).mean(dtype=np.float64)
    else:
        rows, guess = np.arange(len(y)), outputs.argmax(1)
        confidence, right = proba[rows, guess], guess == y
        squares = np.einsum("nc,nc->n", proba, proba, dtype=np.float64) - 2 * proba[rows, y] + 1
        brier = squares.mean() / (2 if proba.shape[1] == 2 else 1)
    bins = reliability(confidence, right)
    return Calibration(
        loss=negative_log_likelihood(y, outputs, kind, temperature),
        ece=calibration_error(bins),
        ece_adaptive=calibration_error(reliability(confidence, right, adaptive=True)),
        brier=float(brier),
        bins=bins,
    )


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = BINS, adaptive: bool = False) -> list[Bin]:
    """Decisions [n] by their confidence, 0 to 1: bins of one width, or (adaptive) of one number of decisions."""
    n = len(confidence)
    confidence = confidence.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    if adaptive:
        order = np.argsort(confidence, kind="stable")
        which = np.empty(n, np.int64)
        which[order] = np.arange(n) * bins // max(n, 1)
    else:
        which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    sums = np.bincount(which, confidence, bins), np.bincount(which, right, bins)
    found = []
    for i in np.flatnonzero(counts):
        low, high = edges[i], edges[i + 1]
        if adaptive:
            low, high = confidence[which == i].min(), confidence[which == i].max()
        means = (float(one[i] / counts[i]) for one in sums)
        found.append(Bin(float(low), float(high), int(counts[i]), *means))
    return found


def calibration_error(bins: list[Bin]) -> float:
    """Mean distance of confidence and accuracy, bins weighted by their decisions: ECE, for bins of one width."""
    rows = sum(one.rows for one in bins)
    return sum(one.rows * abs(one.accuracy - one.confidence) for one in bins) / rows


def probabilities(outputs: np.ndarray, kind: str, temperature: float = 1.0) -> np.ndarray:
    """Probabilities of the outputs divided by a temperature, in the dtype of the outputs."""
    return kind_of(kind).probabilities(outputs / outputs.dtype.type(temperature))


def negative_log_likelihood(y: np.ndarray, outputs: np.ndarray, kind: str, temperature: float = 1.0) -> float:
    """Mean over the rows (multilabel: and labels), in nats, unweighted."""
    from scipy.special import logsumexp

    scaled = outputs / outputs.dtype.type(temperature)
    if not kind_of(kind).exclusive:
        return float((np.logaddexp(0, scaled) - scaled * y).mean(dtype=np.float64))
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(y)), y]).mean(dtype=np.float64))


def fit_temperature(y: np.ndarray, outputs: np.ndarray, kind: str) -> float | None:
    """The temperature of the lowest negative log-likelihood; above 1, the head was too sure of itself.

    The loss is convex in 1 / T, so its slope there has one root. None where that lies outside 1/20 to 20: rows that are
    all right (the colder the better), or a head that knows nothing of them, tell of no temperature.
    """
    from scipy.optimize import brentq

    rows = np.arange(len(y))
    exclusive = kind_of(kind).exclusive
    if not exclusive:
        centered, reached = outputs, (outputs * y).mean(dtype=np.float64)
    else:
        centered = outputs - outputs.max(axis=1, keepdims=True)
        reached = centered[rows, y].mean(dtype=np.float64)

    def slope(log_temperature: float) -> float:
        proba = probabilities(centered, kind, np.exp(log_temperature))
        expected = np.einsum("nc,nc->", proba, centered, dtype=np.float64)
        return float(expected / (len(y) if exclusive else centered.size) - reached)

    limit = np.log(WIDEST_TEMPERATURE)
    if not slope(-limit) > 0 > slope(limit):
        return None
    return float(np.exp(brentq(slope, -limit, limit, xtol=1e-5)))
