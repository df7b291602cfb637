"""Runs of every kind, made by train-head, and one cache whose names and texts are hostile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import document, make_cache
from tests.runs.caches import make_labelled_cache

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><b>\"'&",
    "\u202eright to left\u202c עברית",
    "{{ 7 * 7 }}{% raw %}",
    "$x^2$ `code` | pipe",
    "very " * 60 + "long",
    "bell\x07\nline",
]
SWEEPS: dict[str, list[str]] = {
    "plain": ["--lr", "1e-3,1e-2", "--hidden", "0,16", "--seed", "0,1"],
    "multilabel": ["--label", "tags", "--lr", "1e-2", "--hidden", "16"],
    "regression": ["--label", "score", "--task", "regression", "--lr", "1e-2,1e-3", "--hidden", "16"],
    "columns": ["--label", "label,tone", "--lr", "1e-2", "--hidden", "16"],
    "folds": ["--folds", "3", "--lr", "1e-2", "--hidden", "16"],
    "noise": ["--label", "stars", "--lr", "1e-2", "--hidden", "0"],
    "single": ["--test", "0"],
    "blind": ["--test", "0", "--val", "0"],
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name of a sweep -> its run, trained when it is first asked for."""
    folder = tmp_path_factory.mktemp("report")
    cache = make_labelled_cache(folder / "cache.h5")
    made: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = folder / name
            document("train-head", cache, "-o", made[name], "--epochs", "4", *SWEEPS[name])
        return made[name]

    return run


def make_hostile_cache(path: Path, classes: int = len(HOSTILE), n: int = 400) -> Path:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    x = rng.normal(size=(classes, 16))[y] * 0.7 + rng.normal(size=(n, 16))
    names = [*HOSTILE, *(f"class {i}" for i in range(len(HOSTILE), classes))]
    texts = [
        f"{names[c]} <img src=x onerror=alert({i})> http://example.com/{i} " + "w " * (i % 7) for i, c in enumerate(y)
    ]
    columns = {"id": [f"<i>{i}" for i in range(n)]}
    return make_cache(path, texts, x.astype(np.float16), {"<b>label": [names[c] for c in y]}, columns=columns, id="id")


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    make_hostile_cache(folder / "<cache>.h5")
    document(
        "train-head", folder / "<cache>.h5", "-o", folder / "<run>", "--epochs", "3", "--hidden", "0", "--lr", "1e-2"
    )
    return folder / "<run>"
