"""Rows whose classes are known, for what chooses among them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from embedcache.active_learning.snapshot import Pool, Snapshot


@dataclass
class Blobs:
    """Vectors around one middle a class."""

    x: np.ndarray
    truth: np.ndarray
    classes: list[str]

    def pool(self, **more: np.ndarray) -> Pool:
        return Pool.of(self.x, **more)

    def snapshot(self, rows: np.ndarray, **pool: np.ndarray) -> Snapshot:
        """Only these rows have their label."""
        y = np.full(len(self.truth), -1, np.int32)
        y[rows] = self.truth[rows]
        return Snapshot(self.pool(**pool), y, self.classes)


def make_blobs(sizes: list[int], distance: float = 3.0, dim: int = 16, seed: int = 0) -> Blobs:
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(sizes)), sizes)).astype(np.int32)
    middles = rng.standard_normal((len(sizes), dim))
    middles *= distance / np.linalg.norm(middles, axis=1, keepdims=True)
    x = (middles[truth] + rng.standard_normal((len(truth), dim))).astype(np.float32)
    return Blobs(x, truth, [f"class {c}" for c in range(len(sizes))])


@pytest.fixture
def blobs() -> Blobs:
    return make_blobs([300, 300, 300])
