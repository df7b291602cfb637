"""Regression: numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.heads.kinds.kind import Kind


class Regression(Kind):
    """Numbers. y: float32 [n, C], NaN for none; the outputs are the numbers."""

    name, code = "regression", 2
    output, outputs = "number", "values"
    has_classes = False
    main = "r2"
    measured = ("r2",)
    shown = ("r2",)
    unfit = "a target that is NaN or infinite"
    activation, problem_type = "none", "regression"
    purpose = "predict a number for a text"
    example = """for text, row in zip(texts, logits):
    print(float(row[0]), text)"""
    exported = "values [batch, labels]"
    exported_row = 'dict(zip(about["labels"], row.tolist()))'
    mistakes = "Largest errors"

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return np.asarray(~np.isfinite(y).all(axis=1))

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(~np.isnan(y[:, 0]))

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return outputs

    def log_likelihood(
        self, y: np.ndarray, p: np.ndarray, weight: np.ndarray, sample: np.ndarray | None = None
    ) -> float:
        return -float(np.average(((p - y) ** 2).mean(axis=1), weights=sample))

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        return outputs[:, 0] if outputs.shape[1] == 1 else outputs
