"""Files that embedcache 0.1 wrote (make_old_files.py) open as before: caches, indexes, maps and runs of every kind."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.index import SearchIndex
from embedcache.prediction.classifier import Classifier
from embedcache.report.card import make_card
from embedcache.runs.folder import FILES, LATER, load_heads, load_run
from embedcache.runs.tables import read_history, read_leaderboard
from embedcache.serve.projection import default_map_path, load_map
from tests.conftest import document, fails

PACKED = Path(__file__).parent / "data" / "files-0.1.tar.gz"
KINDS = ("classification", "multilabel", "regression", "columns", "folds")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    with tarfile.open(PACKED) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_they_are_small() -> None:
    assert PACKED.stat().st_size < 200_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_says_what_it_said(old: Path, kind: str) -> None:
    """Labels are the same; numbers as far as another processor's arithmetic lets them be."""
    expected = json.loads((old / "expected.json").read_text("utf-8"))[kind]
    found = Classifier.load(old / "runs" / kind, "cpu", model=old / "encoder").predict(
        [one["text"] for one in expected]
    )
    for one, wanted in zip(found, expected, strict=True):
        said = one.to_dict()
        assert said.get("columns", {}).keys() == wanted.get("columns", {}).keys()
        for a, b in zip(
            [said, *said.get("columns", {}).values()], [wanted, *wanted.get("columns", {}).values()], strict=True
        ):
            assert a["label"] == (pytest.approx(b["label"], rel=1e-3) if kind == "regression" else b["label"])
            assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_of_a_run_is_read_to_the_bit(old: Path, kind: str) -> None:
    from safetensors.numpy import load_file

    run = load_run(old / "runs" / kind)
    for one in run.columns.values():
        stored, heads = load_file(one.path / "heads.safetensors"), load_heads(one.path)
        assert list(heads) == list(one.info["heads"])
        for name, head in heads.items():
            for weight, array in head.weights.items():
                assert array.tobytes() == stored[f"{name}/{weight}"].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_that_counted_from_0_count_from_1(old: Path, tmp_path: Path, kind: str) -> None:
    """In run.json, in every head, in both tables and on the page; the files stay as they are."""
    run = load_run(old / "runs" / kind)
    for one in run.columns.values():
        before = json.loads((one.path / "run.json").read_text("utf-8"))
        assert before["format_version"] == 1
        assert one.info["best"]["best_epoch"] == one.best.best_epoch == before["best"]["best_epoch"] + 1
        wanted = {name: head["best_epoch"] + 1 for name, head in before["heads"].items()}
        assert {name: head["best_epoch"] for name, head in one.info["heads"].items()} == wanted
        assert {name: head.best_epoch for name, head in load_heads(one.path).items()} == wanted
        for head in load_heads(one.path).values():
            assert head.val_loss == head.history["val_loss"][head.best_epoch - 1]
        for row in read_leaderboard(one):
            folds = [epoch for name, epoch in wanted.items() if name.split("/fold-")[0] == row["name"]]
            assert row["best_epoch"] == np.mean(folds)
        assert {row["epoch"] for row in read_history(one)} == {1, 2}
        assert f"those of epoch {one.best.best_epoch}." in make_card(one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_reported_exported_and_trained_again(old: Path, tmp_path: Path, kind: str) -> None:
    run = old / "runs" / kind
    told = document("report", run, "-o", tmp_path / "report.html", "--cache", old / "cache.h5")
    assert told["heads"] and told["texts"] == "all there"
    for column, one in load_run(run).columns.items():
        assert told["columns"][column]["best"] == one.info["best"]
    assert (told["audit"] is not None) == (kind == "classification")


def test_a_run_is_exported(old: Path, tmp_path: Path) -> None:
    model = document(
        "export", old / "runs" / "folds", "--to", "torch", "-o", tmp_path / "model", "--model", old / "encoder"
    )
    assert model["checked"]["max_difference"] < 1e-4


def test_a_cache_an_index_and_a_map_open(old: Path) -> None:
    assert verify(old / "cache.h5").ok
    with open_cache(old / "cache.h5") as cache:
        assert cache.rows == 60 and cache.poolings == ["cls", "mean"] and cache.label_names
        assert cache.encoder["identity"]["max_length"] == 32
        x = cache.embeddings("mean").astype(np.float32)
        points = load_map(default_map_path(cache.path), cache)
        assert points is not None and points.shape == (60, 2)
        exact = (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (x[7] / np.linalg.norm(x[7]))
        for kind in ("exact", "hnsw"):
            index = SearchIndex.load(old / f"{kind}.index")
            assert index.about.digest and index.about.kind == kind and index.rows == 60
        found = document("search", cache.path, "--row", 7, "-k", 5, "--index", old / "exact.index")
        order = [row for row in np.argsort(-exact, kind="stable") if row != 7][:5]
        assert [one["score"] for one in found["results"]] == pytest.approx(exact[order], abs=1e-5)


def test_an_old_run_is_replaced_and_resumed(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old / "runs" / "columns", tmp_path / "run"))
    (run / "mine.txt").write_text("stays")
    document(
        "train-head", old / "cache.h5", "-o", run, "--label", "label", "--epochs", "2", "--hidden", "0", "--resume"
    )
    assert {*FILES, "mine.txt"} <= {one.name for one in run.iterdir()} and not (run / "topics").exists()


def test_an_old_run_without_its_later_files_opens(old: Path, tmp_path: Path) -> None:
    """The first runs had neither curves nor evaluations."""
    run = Path(shutil.copytree(old / "runs" / "regression", tmp_path / "run"))
    info = json.loads((run / "run.json").read_text("utf-8"))
    for name in LATER:
        (run / name).unlink(missing_ok=True)
        info["files"].pop(name, None)
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    assert load_run(run).info["label"] == "stars"


def test_what_is_changed_in_them_is_seen(old: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(old / "runs" / "folds", tmp_path / "run"))
    board = run / "leaderboard.csv"
    board.write_bytes(board.read_bytes().replace(b"head-000", b"head-001"))
    assert "leaderboard.csv is damaged: its checksum" in fails("report", run, "-o", tmp_path / "report.html")
    info = json.loads((run / "run.json").read_text("utf-8"))
    info["files"]["leaderboard.csv"] = hashlib.sha256(board.read_bytes()).hexdigest()
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    assert "run.json has no head 'head-001'" in fails("report", run, "-o", tmp_path / "report.html")
