"""Scores of predicted class probabilities, and how sure a test score is."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Scores:
    """Of some rows. loss: mean negative log-likelihood in nats; accuracy and macro_f1 from 0 to 1."""

    loss: float
    accuracy: float
    macro_f1: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def score(log_proba: np.ndarray, y: np.ndarray) -> Scores:
    """Scores of log-probabilities [n, C] against class codes int [n], n > 0."""
    loss = -log_proba[np.arange(len(y)), y].mean(dtype=np.float64)
    return Scores(float(loss), *score_labels(log_proba.argmax(1), y))


def score_labels(predicted: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1 of predicted class codes [n] against y [n].

    Macro F1 is the mean over the classes that occur in either, as in scikit-learn.
    """
    from sklearn.metrics import accuracy_score, f1_score

    return float(accuracy_score(y, predicted)), float(f1_score(y, predicted, average="macro", zero_division=0))


def accuracy_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of an accuracy that was measured on n > 0 rows."""
    from scipy.stats import binomtest

    interval = binomtest(round(accuracy * n), n).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)
