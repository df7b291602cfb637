"""Multilabel: any number of labels a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.heads.kinds.kind import LEAST, Kind, filled_weight


class Multilabel(Kind):
    """Any labels a row. y: float32 [n, C] of 0 and 1, -1 in a row without any; the outputs are logits of sigmoids."""

    name, code = "multilabel", 1
    output, outputs = "label", "labels"
    unfit = "a label that is neither 0 nor 1"
    activation, problem_type = "sigmoid", "multi_label_classification"
    purpose = "say which of {n:,} labels belong to a text"
    example = """probabilities = logits.sigmoid()
for text, row in zip(texts, probabilities):
    print([label for label, p in zip(about["classes"], row) if p > 0.5], text)"""
    exported = (
        "logits [batch, labels]; the sigmoid of each is the probability of that label, above 1/2 where it is positive"
    )
    exported_row = '[label for label, z in zip(about["labels"], row) if z > 0]'

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return np.asarray(~((y == 0) | (y == 1)).all(axis=1))

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y[:, 0] >= 0)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs > 0)

    def decide_by_probability(self, p: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        return np.asarray(p > 0.5 if cuts is None else p >= cuts)

    def confidence(self, p: np.ndarray, decided: np.ndarray) -> np.ndarray:
        """Every label right, as if they did not depend on each other."""
        return np.asarray(np.where(decided, p, 1 - p).prod(axis=1, dtype=np.float64))

    def log_likelihood(
        self, y: np.ndarray, p: np.ndarray, weight: np.ndarray, sample: np.ndarray | None = None
    ) -> float:
        p = np.clip(p, LEAST, 1 - LEAST)
        of_rows = (weight * y * np.log(p) + (1 - y) * np.log(1 - p)).mean(axis=1)
        return float(np.average(of_rows, weights=sample))

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        there = self.decide(outputs)
        if classes is None:
            return there.astype(np.int64)
        return [[label for label, is_ in zip(classes, row, strict=True) if is_] for row in there]

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        return -np.logaddexp(0, -outputs, dtype=np.float64).astype(np.float32)

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        from scipy.special import expit  # importing it takes a fifth of a second, which a cold prediction would feel

        return np.asarray(expit(outputs))

    def balanced_weight(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """Rows without the label over rows with it, as the documentation of torch.nn.BCEWithLogitsLoss suggests.

        A label that all rows or none have counts as if one were different.
        """
        present = np.maximum(y.sum(axis=0, dtype=np.float64), 1)
        return (np.maximum(len(y) - present, 1) / present).astype(np.float32)

    def start_bias(
        self, y: np.ndarray, weight: np.ndarray | None, outputs: int, sample: np.ndarray | None = None
    ) -> np.ndarray:
        """The logit of each label's share of the weight. A label without rows counts as half a row."""
        counts = y.sum(axis=0, dtype=np.float64) if sample is None else sample.astype(np.float64) @ y
        there = np.clip(counts, 0.5, max(0.5, len(y) - 0.5))
        return np.log(filled_weight(weight, outputs) * there / np.maximum(len(y) - there, 0.5)).astype(np.float32)
