"""Caches with something to learn in them, made without any encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import make_cache, make_reviews

N, DIM = 400, 12


def labelled(n: int = N, seed: int = 0) -> tuple[list[str], np.ndarray, list[str | None]]:
    """Texts, vectors whose first column tells the label (most of the time), labels."""
    reviews = make_reviews(n)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, DIM))
    x[:, 0] += [2 if label == "positive" else -2 for _, label in reviews]
    x = x * rng.uniform(0.1, 10, DIM) + rng.normal(size=DIM)  # columns of every scale
    return [text for text, _ in reviews], x.astype(np.float16), [label for _, label in reviews]


def make_labelled_cache(path: Path) -> Path:
    """N rows with poolings cls and mean, and columns to learn and to stumble over.

    label: of two classes, 7 rows without. stars: five classes that nothing tells. tone: three classes that the second
    column of x tells, every tenth row without. tags: lists of "good" (the first column tells) and "high" (the second);
    score: a number that both tell, one row without. same: one class. id: as many as rows.
    """
    texts, x, labels = labelled()
    labels[:7] = [None] * 7
    tones = np.digitize(x[:, 1], np.quantile(x[:, 1].astype(np.float32), [1 / 3, 2 / 3]))
    good, high = (x[:, i].astype(np.float64) - x[:, i].mean(dtype=np.float64) for i in range(2))
    scores = 50 + 5 * good / good.std() + 3 * high / high.std()
    columns: dict[str, list[Any]] = {
        "label": labels,
        "stars": [str(i % 5) for i in range(N)],
        "tone": [None if i % 10 == 3 else "low mid high".split()[tone] for i, tone in enumerate(tones)],
        "tags": [[tag for tag, value in (("good", good[i]), ("high", high[i])) if value > 0] for i in range(N)],
        "score": [None, *(f"{score:.2f}" for score in scores[1:])],
        "same": ["x"] * N,
        "id": [str(i) for i in range(N)],
    }
    films = [f"film {i // 8}" for i in range(N)]
    return make_cache(path, texts, {"cls": x, "mean": -x}, columns, columns={"film": films})
