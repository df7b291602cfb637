"""Rows for the audit: clusters of vectors and of words."""

from __future__ import annotations

import numpy as np

WORDS = {"good": "superb moving warm funny wise", "bad": "dull lifeless thin boring loud", "odd": "weird eerie mad"}
SHARED = "film plot actor scene score story ending sound camera cast".split()


def make_rows(n: int, classes: int = 2, seed: int = 0) -> tuple[list[str], np.ndarray, list[str]]:
    """n different texts, float32 [n, 16] vectors and labels: classes that overlap a little."""
    rng = np.random.default_rng(seed)
    names = list(WORDS)[:classes]
    codes = rng.integers(0, classes, n)
    x = rng.standard_normal((classes, 16))[codes] + 0.6 * rng.standard_normal((n, 16))
    texts = [
        " ".join([str(rng.choice(WORDS[names[code]].split())), *map(str, rng.choice(SHARED, 6)), str(i)])
        for i, code in enumerate(codes)
    ]
    return texts, x.astype(np.float32), [names[code] for code in codes]


def flip(labels: list[str], share: float = 0.05, seed: int = 1) -> tuple[list[str], np.ndarray]:
    """The labels with a share of them exchanged for another, and which: bool [n]."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    flipped = np.zeros(len(labels), bool)
    flipped[rng.choice(len(labels), round(share * len(labels)), replace=False)] = True
    others = [[name for name in names if name != label] for label in labels]
    new = [str(rng.choice(others[i])) if flipped[i] else label for i, label in enumerate(labels)]
    return new, flipped
