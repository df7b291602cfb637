"""Search as it is defined: every cosine, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np


def cosines(Q: np.ndarray, X: np.ndarray) -> np.ndarray:
    Q, X = Q.astype(np.float64), X.astype(np.float64)
    scale = np.linalg.norm(Q, axis=1)[:, None] * np.linalg.norm(X, axis=1)
    return np.divide(Q @ X.T, scale, out=np.zeros_like(scale), where=scale > 0)


def assert_exact(found: Any, expected: np.ndarray) -> None:
    """Scores are the k best of ``expected`` [q, N]; each row has the score that is given (ties may swap)."""
    k = found.rows.shape[1]
    best = -np.sort(-expected, axis=1)[:, :k]
    np.testing.assert_allclose(found.scores, best, atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(expected, found.rows, axis=1), found.scores, atol=2e-6)
    assert all(len(set(rows)) == k for rows in found.rows.tolist())
