"""vectors: what is written and imported again is the same to the bit, and trains the same heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from tests.conftest import document, fails, make_reviews, write_csv


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """c.h5 (float16) and i.h5 (int8), of one table, with an id and a kept column."""
    folder = tmp_path_factory.mktemp("write")
    rows = [(f"r{i}", f"{text} {i}", label, str(i % 7)) for i, (text, label) in enumerate(make_reviews(150))]
    write_csv(folder / "t.csv", rows, ("id", "text", "label", "n"))
    for store, name in (("float16", "c.h5"), ("int8", "i.h5")):
        options = {"id": "id", "keep": "n", "store": store, "pooling": ("cls", "mean")}
        ec.extract(folder / "t.csv", folder / name, model=tiny_bert, **options)
    return folder


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.feather", "x.jsonl", "x.npy", "x.npz", "x.safetensors"])
@pytest.mark.parametrize("store", ["float16", "int8"])
def test_the_round_trip_trains_the_same_heads(name: str, store: str, place: Path, tmp_path: Path) -> None:
    source = place / ("c.h5" if store == "float16" else "i.h5")
    report = ec.write_vectors(source, tmp_path / name, pooling="mean")
    assert (report.rows, report.dim) == (150, 32) and report.dtype == ("float16" if store == "float16" else "float32")
    table = None if report.columns else place / "t.csv"
    assert report.columns in ([], ["id", "text", "label", "n"])
    ec.import_vectors(tmp_path / name, tmp_path / "c.h5", table=table, id="id", keep="n", store=store)
    with ec.open_cache(source) as old, ec.open_cache(tmp_path / "c.h5") as new:
        assert (np.asarray(old.embeddings("mean")) == np.asarray(new.embeddings())).all()
        for part in ("text/bytes", "labels/label", "columns/n/bytes", "columns/id/bytes"):
            assert old.array(part).tobytes() == new.array(part).tobytes()
        grid = ec.head_grid(hidden=[0, 8], lr=[1e-2], seed=range(2))
        heads = [
            ec.train_heads(one.embeddings(pooling), one.labels("label").codes, grid, epochs=2).heads
            for one, pooling in ((old, "mean"), (new, "model"))
        ]
    for one, other in zip(*heads, strict=True):
        assert all((one.weights[part] == other.weights[part]).all() for part in one.weights)


def test_the_command_and_its_mistakes(place: Path, tmp_path: Path) -> None:
    found = document("vectors", place / "c.h5", "-o", tmp_path / "v.npy")
    assert found["pooling"] == "cls" and np.load(tmp_path / "v.npy").shape == (150, 32)
    assert "vectors are not written as '.xyz': name one of .npy" in fails("vectors", place / "c.h5", "-o", "v.xyz")
    assert "has no model vectors" in fails("vectors", place / "c.h5", "-o", tmp_path / "w.npy", "--pooling", "model")
    assert not (tmp_path / "w.npy").exists()
