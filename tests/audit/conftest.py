"""A cache with some labels exchanged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.audit.rows import flip, make_rows
from tests.conftest import make_cache


@pytest.fixture
def noisy(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """400 rows with 5% of the labels flipped, and which: bool [400]. Kept: part (train, test), film."""
    texts, x, labels = make_rows(400)
    wrong, flipped = flip(labels)
    columns = {
        "part": ["test" if i % 4 == 0 else "train" for i in range(400)],
        "film": [f"film {i // 8}" for i in range(400)],
    }
    return make_cache(tmp_path / "noisy.h5", texts, x, {"label": wrong}, columns=columns), flipped
