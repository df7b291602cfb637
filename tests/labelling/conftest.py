"""Texts with labels in a cache, and what people say of them."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from embedcache.labelling import LabelEntry
from tests.conftest import make_cache

TEXTS = ["good one", "bad one", "so so", "good one", "never seen", ""]  # row 3 is row 0 again
LABELS = ["fresh", "rotten", "rotten", "fresh", None, "fresh"]
TOPICS = [["plot"], ["plot", "sound"], [], ["plot"], None, ["sound"]]
STARS = ["3", "1.5", "2", "3", "", "4"]


def hash_of(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def said(text: str, after, who: str = "ada", column: str = "label", **more) -> LabelEntry:
    return LabelEntry(row_hash=hash_of(text), column=column, after=after, who=who, **more)


@pytest.fixture
def small_cache(tmp_path: Path) -> Path:
    """Six rows: label, topics (lists), stars (a kept column of numbers), n (the id)."""
    vectors = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    labels = {"label": LABELS, "topics": TOPICS}
    columns = {"stars": STARS, "n": [f"r{i}" for i in range(6)]}
    return make_cache(tmp_path / "small.h5", TEXTS, vectors, labels, columns=columns, id="n")
