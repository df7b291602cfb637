"""predictions.parquet: a line a row, what other tools read there, and the sides that are read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs import predictions
from embedcache.runs.data import load_data
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import train_head
from embedcache.runs.predictions import StoredPredictions, read_sides
from embedcache.runs.sides import load_sides
from tests.runs.caches import N, make_labelled_cache

SETTINGS: dict[str, Any] = {"hidden": [0, 4], "lr": 1e-2, "epochs": 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("predictions") / "cache.h5")


def read(run: str | Path) -> Any:
    return pq.read_table(Path(run) / "predictions.parquet")


def test_classes(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tone", **SETTINGS)
    table, run = read(report.run), load_run(report.run)
    assert table.column_names == [
        "row", "text_hash", "side", "fold", "label", "predicted", "probability", "p:high", "p:low", "p:mid"
    ]  # fmt: skip
    lines = table.to_pylist()
    assert [line["row"] for line in lines] == list(range(N))
    with open_cache(cache) as opened:
        x, hashes, (codes, names) = np.array(opened.embeddings()), opened.hashes, opened.labels("tone")
        assert [line["text_hash"] for line in lines] == [key.tobytes().hex() for key in hashes]
    assert [line["label"] for line in lines] == [None if code < 0 else names[code] for code in codes]
    for side in ("train", "val", "test"):
        assert sum(line["side"] == side for line in lines) == report.split[side]
    assert all((line["side"] == "") == (line["label"] is None) for line in lines)
    assert all((line["predicted"] is None) == (line["side"] in ("train", "")) for line in lines)
    assert all(line["fold"] is None for line in lines)
    proba = np.exp(run.best.predict_log_proba(x))
    for line in lines:
        if line["predicted"] is not None:
            mine = [line[f"p:{name}"] for name in run.classes]
            assert mine == pytest.approx(proba[line["row"]], abs=1e-5)
            assert line["probability"] == max(mine) and run.classes[int(np.argmax(mine))] == line["predicted"]
    for side in ("val", "test"):
        right = [line["label"] == line["predicted"] for line in lines if line["side"] == side]
        assert np.mean(right) == pytest.approx(report.best[f"{side}_accuracy"])


def test_out_of_fold_predictions_are_of_the_head_that_did_not_see_the_row(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tone", folds=3, **SETTINGS)
    lines, heads = read(report.run).to_pylist(), load_heads(report.run)
    with open_cache(cache) as opened:
        x = np.array(opened.embeddings())
    train = [line for line in lines if line["side"] == "train"]
    assert {line["fold"] for line in train} == {0, 1, 2} and len(train) == report.split["train"]
    assert all(line["fold"] is None for line in lines if line["side"] != "train")
    for fold in range(3):
        rows = [line["row"] for line in train if line["fold"] == fold]
        expected = heads[f"{report.best['name']}/fold-{fold}"].predict(x[rows])
        assert [lines[row]["predicted"] for row in rows] == list(expected)
    assert all(line["predicted"] is not None for line in lines if line["side"] == "test")


def test_lists_of_labels(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tags", **SETTINGS)
    lines = read(report.run).to_pylist()
    tested = [line for line in lines if line["side"] == "test"]
    assert np.mean([set(line["label"]) == set(line["predicted"]) for line in tested]) == report.best["test_accuracy"]
    for line in tested:
        assert line["predicted"] == [name for name in ("good", "high") if line[f"p:{name}"] > 0.5]
        assert line["probability"] == [line[f"p:{name}"] for name in line["predicted"]]


def test_numbers(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="score", task="regression", **SETTINGS)
    table = read(report.run)
    assert table.column_names == ["row", "text_hash", "side", "fold", "label", "predicted"]
    tested = [line for line in table.to_pylist() if line["side"] == "test"]
    error = np.array([line["label"] - line["predicted"] for line in tested])
    assert np.sqrt(np.mean(error**2)) == pytest.approx(report.best["test_rmse"], rel=1e-5)
    assert table["label"].to_pylist()[0] is None and table["side"].to_pylist()[0] == ""


def test_each_column_has_its_own(cache: Path, tmp_path: Path) -> None:
    train_head(cache, tmp_path / "run", label=["label", "tone"], **SETTINGS)
    both = [read(tmp_path / "run" / name) for name in ("label", "tone")]
    assert "p:positive" in both[0].column_names and "p:mid" in both[1].column_names
    sides = [table["side"].to_pylist() for table in both]
    assert all(a == b for a, b in zip(*sides, strict=True) if a and b), "a text has one side, whatever the column"


@pytest.mark.parametrize("classes", [2, 150])
def test_many_classes_and_odd_names(tmp_path: Path, classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, n = np.random.default_rng(0), 500
    monkeypatch.setattr(predictions, "PART_ROWS", 64)
    names = ["row", "\ud800 lone", *(f"c{i}" for i in range(classes - 2))]
    side = rng.integers(-1, 3, n).astype(np.int8)
    rows = np.flatnonzero(side > 0)
    outputs = rng.normal(size=(len(rows), classes)).astype(np.float32)
    hashes, ids = rng.integers(0, 256, (n, 16), np.uint8), [f"id {i}" for i in range(n)]
    fold = np.full(len(rows), -1)
    one = StoredPredictions(
        "classification", names, side, hashes, ids, rng.integers(0, classes, n), rows, outputs, fold
    )
    one.save(tmp_path / "predictions.parquet")
    table = read(tmp_path)
    assert table["id"].to_pylist() == ids
    proba = np.exp(outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True)))
    for i, row in enumerate(rows.tolist()):
        line = table.slice(row, 1).to_pylist()[0]
        mine = line["probabilities"] if classes > 100 else [line["p:row"], line["p:? lone"]]
        assert mine == pytest.approx(proba[i], abs=1e-6)


def test_sides_are_read_back_by_row_and_by_text(cache: Path, tmp_path: Path) -> None:
    run = load_run(train_head(cache, tmp_path / "run", group="film", **SETTINGS).run)
    stored = load_sides(run)
    assert stored is not None
    lines = read(run.path).to_pylist()
    with open_cache(cache) as opened:
        hashes, data = np.array(opened.hashes), load_data(opened, "label", None, -1, None)
    found = stored.of(hashes)
    names = {0: "train", 1: "val", 2: "test", -1: "", -2: ""}
    assert [names[int(code)] for code in found] == [line["side"] for line in lines]
    assert (found[data.y < 0] == -2).all()
    order = np.random.default_rng(0).permutation(N)
    assert np.array_equal(stored.of(hashes[order]), found[order])
    assert (stored.of(np.full((3, 16), 7, np.uint8)) == -2).all()


def test_a_damaged_file_is_said(cache: Path, tmp_path: Path) -> None:
    run = load_run(train_head(cache, tmp_path / "run", **SETTINGS).run)
    path, digest = run.path / "predictions.parquet", run.info["files"]["predictions.parquet"]
    assert len(read_sides(path, digest).side) == N
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(EmbedcacheError, match=r"predictions\.parquet is damaged .*checksum"):
        load_sides(run)
    path.unlink()
    with pytest.raises(EmbedcacheError, match=r"predictions\.parquet is damaged"):
        load_sides(run)
