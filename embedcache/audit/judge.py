"""One opinion of three: the experts' log-probabilities, weighed by maximum likelihood.

A logarithmic opinion pool (Genest & Zidek, "Combining Probability Distributions", 1986): the log-probability of a class
is the weighted sum of the experts', normalized. The weights are those under which the labels as given are likeliest; no
more than one number an expert is fitted, and one for the classes' shares, which every expert has counted once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedcache.audit.experts import Expert

FIT_ROWS = 50_000
FIT_NUMBERS = 20_000_000  # rows x classes
FLOOR = -30.0  # of a log-probability: what an expert excludes, the others may still say


class Mixture:
    """The fitted pool. ``weights``: expert's name -> weight, 0 or more."""

    def __init__(self, experts: Sequence[Expert], y: np.ndarray, rows: np.ndarray, classes: int, seed: int = 0) -> None:
        """y: int [N], class codes. rows: those that are judged, of which a random sample fits the weights."""
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        self.experts = list(experts)
        counts = np.bincount(y[rows], minlength=classes)
        self._prior = np.log(np.maximum(counts, 0.5) / counts.sum())
        size = min(len(rows), FIT_ROWS, max(1000, FIT_NUMBERS // classes))
        sample = np.sort(np.random.default_rng(seed).permutation(rows)[:size])
        parts, given = self._parts(sample), y[sample]

        def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
            z = np.tensordot(w, parts, 1)
            z -= z.max(axis=1, keepdims=True)
            p = np.exp(z)
            p /= p.sum(axis=1, keepdims=True)
            picked = p[np.arange(size), given]
            slope = np.einsum("enc,nc->e", parts, p) - parts[:, np.arange(size), given].sum(axis=1)
            return -float(np.log(np.maximum(picked, 1e-300)).mean()), slope / size

        start = np.full(len(parts), 1 / len(self.experts))
        start[-1] = 0.0
        bounds = [(0.0, None)] * len(self.experts) + [(None, None)]
        with threadpool_limits(1):  # as in count.py
            self._weights = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x

    @property
    def weights(self) -> dict[str, float]:
        return {expert.name: float(w) for expert, w in zip(self.experts, self._weights, strict=False)}

    def proba(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64 [n, C] of the pool, and the log-probabilities [experts, n, C] of each expert."""
        parts = self._parts(rows)
        z = np.tensordot(self._weights, parts, 1)
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        return p / p.sum(axis=1, keepdims=True), parts[:-1]

    def said(self, rows: np.ndarray) -> np.ndarray:
        """float64 [experts, n, C]: the experts' log-probabilities."""
        return self._parts(rows)[:-1]

    def _parts(self, rows: np.ndarray) -> np.ndarray:
        """float64 [experts + 1, n, C]: the experts' log-probabilities, and the classes'."""
        said = [np.maximum(expert.log_proba(rows), FLOOR).astype(np.float64) for expert in self.experts]
        return np.stack([*said, np.broadcast_to(self._prior, said[0].shape)])
