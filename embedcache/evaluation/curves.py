"""What another threshold would give: precision and recall of a class, and accuracy when unsure rows are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

POINTS = 101  # of a curve
MOST_CLASSES = 50  # classes or labels that have a curve of their own


def confidence_curve(right: np.ndarray, confidence: np.ndarray) -> list[dict[str, float]]:
    """Accuracy of the rows whose confidence is at least a threshold, and the share of rows that are kept.

    right: bool [n], whether the prediction is right; confidence: float [n], the probability of the prediction. Also
    known as the risk-coverage curve (El-Yaniv and Wiener, 2010).
    """
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ends = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))  # rows of one confidence stay together
    some = ends[np.unique(np.linspace(0, len(ends) - 1, min(POINTS, len(ends))).round().astype(int))]
    return [
        {
            "threshold": float(confidence[order[i]]),
            "kept": float((i + 1) / len(order)),
            "accuracy": float(accuracy[i]),
        }
        for i in some
    ]


def class_curves(truth: np.ndarray, proba: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """For each class that some but not all rows have: average precision, ROC AUC, and the curves by threshold.

    truth: bool [n, C]; proba: float [n, C]. Of two classes only the rarer one: the other is its mirror.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    support = truth.sum(axis=0)
    usable = np.flatnonzero((support > 0) & (support < len(truth)))
    if len(names) == 2 and len(usable) == 2 and (truth.sum(axis=1) == 1).all():
        usable = usable[[int(support[usable].argmin())]]
    found = []
    for c in usable[np.argsort(-support[usable], kind="stable")][:MOST_CLASSES].tolist():
        precision, recall, thresholds = precision_recall_curve(truth[:, c], proba[:, c])
        some = np.unique(np.linspace(0, len(thresholds) - 1, min(POINTS, len(thresholds))).round().astype(int))
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        found.append(
            {
                "label": names[c],
                "average_precision": float(average_precision_score(truth[:, c], proba[:, c])),
                "roc_auc": float(roc_auc_score(truth[:, c], proba[:, c])),
                "points": [
                    {
                        "threshold": float(thresholds[i]),
                        "precision": float(precision[i]),
                        "recall": float(recall[i]),
                        "f1": float(f1[i]),
                    }
                    for i in some
                ],
            }
        )
    return found
