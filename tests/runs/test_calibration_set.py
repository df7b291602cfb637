"""What a run keeps to measure its predictions by: distances by hand, what is written is read, damage is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.runs.calibration_set import (
    FILE,
    NEIGHBOURS,
    SAMPLE,
    Familiar,
    make_calibration_set,
    read_calibration_set,
)
from embedcache.runs.folder import load_run, read_file
from embedcache.runs.job import train_head
from embedcache.runs.mistakes import Judged
from embedcache.runs.split import Split
from tests.conftest import make_cache

RNG = np.random.default_rng(0)


def distances(vectors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In float64, by all cosines."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (vectors.astype(float), others.astype(float)))
    return 1 - np.sort(a @ b.T, axis=1)[:, -min(NEIGHBOURS, len(b))]


@pytest.mark.parametrize("rows", [1, 3, 5, 300])
def test_the_distance_is_that_to_the_fifth_nearest(rows: int) -> None:
    known, asked = RNG.normal(size=(rows, 8)), RNG.normal(size=(40, 8)) * 100
    np.testing.assert_allclose(Familiar.of(known).distances(asked), distances(asked, known), atol=2e-3)  # float16
    assert Familiar.of(known).distances(np.zeros((2, 8))).tolist() == [1, 1]


def test_a_row_of_a_fold_is_measured_by_the_other_folds() -> None:
    x = RNG.normal(size=(60, 6)).astype(np.float32)
    rows = np.arange(60)
    sides = [Split(rows[rows % 3 != i], rows[rows % 3 == i], rows[:0]) for i in range(3)]
    judged = Judged(rows, rows % 2, RNG.normal(size=(60, 2)).astype(np.float32))
    found = make_calibration_set(judged, x, rows, sides, None)
    for side in sides:
        np.testing.assert_allclose(found.distances[side.val], distances(x[side.val], x[side.train]), atol=2e-3)
    many = RNG.normal(size=(SAMPLE + 500, 6)).astype(np.float32)
    few = make_calibration_set(Judged(rows, rows % 2, judged.outputs), many, np.arange(len(many)), sides, None)
    assert few.familiar is not None and few.familiar.directions.shape == (SAMPLE, 6)


def test_a_run_keeps_it_and_damage_is_one_line(tmp_path: Path) -> None:
    n, y = 200, np.arange(200) % 2
    x = (RNG.normal(size=(n, 8)) + y[:, None]).astype(np.float32)
    cache = make_cache(
        tmp_path / "c.h5", [f"text {i}" for i in range(n)], x, {"label": ["ab"[i] for i in y]},
        columns={"film": [str(i // 4) for i in range(n)]},
    )  # fmt: skip
    train_head(cache, tmp_path / "run", group="film", val=0.3, epochs=3, device="cpu")
    run = load_run(tmp_path / "run")
    data = read_file(run, FILE)
    found = read_calibration_set(data, run.path, run.info)
    assert len(found.y) == len(found.distances) == run.info["split"]["val"] and found.groups is not None
    assert found.outputs.shape == (len(found.y), 2) and len(np.unique(found.groups)) < len(found.y)
    accuracy = (found.outputs.argmax(axis=1) == found.y).mean()
    assert accuracy == pytest.approx(run.info["best"]["val_accuracy"])
    for spoilt in (data[:100], data[:-8], b"x" + data):
        with pytest.raises(EmbedcacheError, match=f"{FILE} of the run is damaged"):
            read_calibration_set(spoilt, run.path, run.info)
    with pytest.raises(EmbedcacheError, match="damaged"):
        read_calibration_set(data, run.path, {**run.info, "dim": 9})
    with pytest.raises(EmbedcacheError, match="train it again"):
        read_calibration_set(b"", run.path, run.info)
    with pytest.raises(EmbedcacheError, match="without validation rows"):
        read_calibration_set(b"", run.path, {**run.info, "split": {"val": 0}})
    (tmp_path / "run" / FILE).write_bytes(data[:-1] + b"?")
    with pytest.raises(EmbedcacheError, match="its checksum is not the one"):
        read_file(run, FILE)
