"""Probabilities that are right for every class on the mean: one temperature, and a bias for each class.

Alexandari, Kundaje and Shrikumar, "Maximum likelihood with bias-corrected calibration is hard-to-beat at label shift
adaptation" (2020). A temperature alone leaves classes that a head gives too much or too little, and whoever estimates
shares from them finds a shift where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SHARPEST = 20.0  # sharpness is sought from 1/20 to 20
RIDGE = 1e-6  # of the squared biases, of which only differences count


@dataclass(frozen=True)
class BiasCorrected:
    """softmax(sharpness * outputs + biases). sharpness: one over the temperature; biases: float64 [C]."""

    sharpness: float
    biases: np.ndarray

    @classmethod
    def fit(cls, y: np.ndarray, outputs: np.ndarray) -> BiasCorrected:
        """Of the lowest negative log-likelihood, which is convex in both.

        At its least the mean probability of each class is its share among the rows.

        Args:
            y: int [n], class codes, none without a row.
            outputs: float64 [n, C], logits of heads that did not learn from the rows.
        """
        from scipy.optimize import minimize

        def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
            one = cls(values[0], values[1:])
            p = one.probabilities(outputs)
            likelihood = np.log(np.maximum(p[np.arange(len(y)), y], 1e-300)).mean()
            slope = one._slopes(y, outputs).mean(axis=0)
            slope[1:] += RIDGE * one.biases
            return float(RIDGE / 2 * (one.biases**2).sum() - likelihood), slope

        start = np.concatenate([[1.0], np.zeros(outputs.shape[1])])
        bounds = [(1 / SHARPEST, SHARPEST)] + [(None, None)] * outputs.shape[1]
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12}
        )
        return cls(float(found.x[0]), found.x[1:])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """float64 [n, C] of outputs [n, C]."""
        from scipy.special import softmax

        return np.asarray(softmax(self.sharpness * outputs + self.biases, axis=1))

    def refits(self, y: np.ndarray, outputs: np.ndarray, weights: np.ndarray) -> list[BiasCorrected]:
        """What ``fit`` finds where rows count as ``weights`` [k, n] say, by one step of Newton's method.

        Args:
            y: the rows of ``fit``.
            outputs: theirs.
            weights: each row of it sums up to 1.
        """
        slopes = self._slopes(y, outputs)
        steps = np.linalg.solve(self._curvature(outputs), slopes.T @ weights.T).T
        moved = np.concatenate([[self.sharpness], self.biases]) - steps
        return [BiasCorrected(float(np.clip(one[0], 1 / SHARPEST, SHARPEST)), one[1:]) for one in moved]

    def _slopes(self, y: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """[n, 1 + C]: of each row's loss, by sharpness and biases."""
        d = self.probabilities(outputs)
        d[np.arange(len(y)), y] -= 1
        return np.concatenate([np.einsum("nc,nc->n", d, outputs)[:, None], d], axis=1)

    def _curvature(self, outputs: np.ndarray) -> np.ndarray:
        """[1 + C, 1 + C]: of the mean loss, which does not depend on y."""
        p, n = self.probabilities(outputs), len(outputs)
        around = outputs - np.einsum("nc,nc->n", p, outputs)[:, None]
        found = np.empty((1 + p.shape[1],) * 2)
        found[0, 0] = np.einsum("nc,nc->", p, around**2) / n + RIDGE
        found[0, 1:] = found[1:, 0] = np.einsum("nc,nc->c", p, around) / n
        found[1:, 1:] = np.diag(p.mean(axis=0) + RIDGE) - p.T @ p / n
        return found
