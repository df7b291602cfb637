"""Texts that are like no others."""

from __future__ import annotations

import numpy as np

from embedcache.audit.neighbours import Nearest

FENCE = 1.5  # interquartile ranges above the third quartile: Tukey's fence


def outlier_scores(nearest: Nearest) -> np.ndarray:
    """float32 [N]: the mean cosine distance (0 to 2) to the k nearest texts; NaN for a row without neighbours.

    As Sun et al., "Out-of-Distribution Detection with Deep Nearest Neighbors" (2022), with the mean in place of the
    k-th distance (Kuan & Mueller, "Back to the Basics", 2022).
    """
    there = nearest.rows >= 0
    total = np.where(there, 1 - nearest.scores, 0).sum(axis=1, dtype=np.float64)
    count = there.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


def far_out(scores: np.ndarray) -> float:
    """The score above which a row is called an outlier."""
    known = scores[~np.isnan(scores)]
    if not len(known):
        return np.inf
    low, high = np.quantile(known, [0.25, 0.75])
    return float(high + FENCE * (high - low))
