"""Classification: one class a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.heads.kinds.kind import LEAST, Kind, filled_weight


class Classification(Kind):
    """One class a row. y: int32 [n], classes from 0, -1 for none; the outputs are logits of a softmax."""

    name, code = "classification", 0
    output, outputs = "class", "classes"
    fewest = 2
    dtype = np.int32
    exclusive = True
    unfit = "class {y}, outside 0..{last}"
    activation, problem_type = "softmax", "single_label_classification"
    purpose = "choose one of {n:,} classes for a text"
    example = """probabilities = logits.softmax(dim=1)
for text, row in zip(texts, probabilities):
    print(about["classes"][int(row.argmax())], float(row.max()), text)"""
    exported = "logits [batch, labels]; their softmax are the probabilities"
    exported_row = 'about["labels"][int(row.argmax())]'

    def shape(self, outputs: int) -> tuple[int, ...]:
        return ()

    def wrong(self, y: np.ndarray, outputs: int) -> np.ndarray:
        return (y < 0) | (y >= outputs)

    def labelled(self, y: np.ndarray) -> np.ndarray:
        return np.asarray(y >= 0)

    def decide(self, outputs: np.ndarray) -> np.ndarray:
        return np.asarray(outputs.argmax(axis=1))

    def decide_by_probability(self, p: np.ndarray, cuts: np.ndarray | None = None) -> np.ndarray:
        return self.decide(p) if cuts is None else np.asarray(p[:, 1] >= cuts[1]).astype(np.int64)

    def confidence(self, p: np.ndarray, decided: np.ndarray) -> np.ndarray:
        return np.asarray(p[np.arange(len(p)), decided], np.float64)

    def log_likelihood(
        self, y: np.ndarray, p: np.ndarray, weight: np.ndarray, sample: np.ndarray | None = None
    ) -> float:
        loss = np.log(np.maximum(p[np.arange(len(y)), y], LEAST))
        counts = weight[y] if sample is None else weight[y] * sample
        return float((counts * loss).sum() / max(counts.sum(), LEAST))

    def named(self, outputs: np.ndarray, classes: Sequence[Any] | None) -> Any:
        best = self.decide(outputs)
        return best if classes is None else np.asarray(classes)[best]

    def log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        for start in range(0, len(outputs), 4096):  # the double sums of so many rows at a time
            part = outputs[start : start + 4096]
            part -= part.max(axis=1, keepdims=True)
            part -= np.log(np.exp(part, dtype=np.float64).sum(axis=1, keepdims=True))
        return outputs

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def balanced_weight(self, y: np.ndarray, outputs: int) -> np.ndarray:
        """n / (C * count), as scikit-learn. A class without rows counts as with one."""
        counts = np.bincount(y, minlength=outputs)
        return (counts.sum() / (outputs * np.maximum(counts, 1))).astype(np.float32)

    def start_bias(
        self, y: np.ndarray, weight: np.ndarray | None, outputs: int, sample: np.ndarray | None = None
    ) -> np.ndarray:
        """The logarithm of each class's share of the weight. A class without rows counts as half a row."""
        known = (y >= 0) & (y < outputs)  # of others the library says where they are
        counts = np.bincount(y[known], None if sample is None else sample[known], minlength=outputs)
        rows = filled_weight(weight, outputs) * np.maximum(counts, 0.5)
        return np.log(rows / rows.sum()).astype(np.float32)
