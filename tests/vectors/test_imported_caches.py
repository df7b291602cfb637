"""A cache of imported vectors is one like any other; where texts would have to be encoded, vectors are taken."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import embedcache as ec
from embedcache.errors import EmbedcacheError
from tests.conftest import document, fails, invoke, write_csv
from tests.vectors.samples import DIM, IDS, LABELS, ROWS, TEXTS, VECTORS, WRITE, WRITE_ALONE

NO_TEXT = "were imported (e), so no text can be encoded here: give vectors of the same encoder"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """c.h5, a cache, run, of it, and v.npy, v.parquet."""
    folder = tmp_path_factory.mktemp("imported")
    write_csv(folder / "t.csv", zip(IDS, TEXTS, LABELS, strict=True), ("id", "text", "label"))
    WRITE_ALONE["x.npy"](folder / "v.npy")
    WRITE["fixed.parquet"](folder / "v.parquet")
    vectors = VECTORS + (np.array(LABELS) == "positive")[:, None] * 1.5  # so that there is something to learn
    np.save(folder / "v.npy", vectors.astype(np.float32))
    ec.import_vectors(folder / "v.npy", folder / "c.h5", table=folder / "t.csv", id="id", encoder="e")
    ec.train_run(folder / "c.h5", folder / "run", hidden=[0, 4], epochs=3, lr=1e-2)
    return folder


def test_heads_are_trained_and_described(place: Path) -> None:
    run = ec.load_run(place / "run")
    assert run.info["best"]["val_accuracy"] > 0.8
    card = (place / "run" / "README.md").read_text()
    assert "Vectors of `e`, which were imported" in card and "encode=False" in card
    assert "its vectors were imported" in (place / "run" / "report.html").read_text()


def test_the_code_of_the_card_runs(place: Path, tmp_path: Path) -> None:
    card = (place / "run" / "README.md").read_text().split("```python\n")
    np.save(tmp_path / "new.npy", VECTORS[:5])
    code = card[2].split("```")[0].replace('"new.npy"', repr(str(tmp_path / "new.npy")))
    space: dict[str, object] = {}
    exec(code.replace('"best.safetensors"', repr(str(place / "run" / "best.safetensors"))), space)
    probabilities = space["probabilities"].numpy()  # type: ignore[attr-defined]
    classifier = ec.Classifier.load(place / "run")  # no encoder is known, so none is looked for
    assert np.allclose(classifier.predict_proba(vectors=VECTORS[:5]), probabilities, atol=1e-6)
    with pytest.raises(EmbedcacheError, match=re.escape(NO_TEXT)):
        classifier.predict("a text")


def test_predict_takes_vectors(place: Path, tmp_path: Path) -> None:
    asked = document("predict", place / "run", place / "c.h5", "-o", tmp_path / "cache.parquet")
    given = document("predict", place / "run", "--input", place / "v.npy", "-o", tmp_path / "npy.parquet")
    assert given["labels"] == asked["labels"] and given["rows"] == ROWS
    frames = [pd.read_parquet(tmp_path / name) for name in ("cache.parquet", "npy.parquet")]
    assert frames[1].columns.tolist() == ["row", "predicted", "predicted_probability"]
    assert (frames[0].predicted_probability == frames[1].predicted_probability).all()
    report = ec.predict_file(place / "run", place / "v.parquet", tmp_path / "p.csv", vector="embedding")
    assert report.rows == ROWS
    assert pd.read_csv(tmp_path / "p.csv").columns.tolist() == [
        "id",
        "text",
        "label",
        "predicted",
        "predicted_probability",
    ]
    assert "row" in invoke("predict", place / "run", "--input", place / "v.npy").output  # the first rows


def test_search_takes_vectors(place: Path, tmp_path: Path) -> None:
    found = document("search", place / "c.h5", "--file", place / "v.npy", "-k", 1)["queries"]
    assert [one["results"][0]["row"] for one in found] == list(range(ROWS)) and found[7]["query"] == "row 7 of v.npy"
    WRITE["fixed.parquet"](tmp_path / "v.parquet")
    written = document(
        "search",
        place / "c.h5",
        "--file",
        tmp_path / "v.parquet",
        "--vector",
        "embedding",
        "-k",
        2,
        "-o",
        tmp_path / "s.csv",
    )
    assert written["found"] == 2 * ROWS
    by_row = document("search", place / "c.h5", "--row", 3, "-k", 2)
    assert len(by_row["results"]) == 2
    document("index", place / "c.h5", "-o", tmp_path / "i.index")
    assert document("search", place / "c.h5", "--row", 3, "-k", 2, "--index", tmp_path / "i.index") == by_row


def test_what_needs_an_encoder_says_so_in_one_line(place: Path, tmp_path: Path) -> None:
    cache, run = place / "c.h5", place / "run"
    for arguments in (
        ("search", cache, "a film"),
        ("predict", run, "a film"),
        ("predict", run, "--input", place / "t.csv"),
        ("finetune", cache, "-o", tmp_path / "f"),
        ("export", run, "--to", "torch", "-o", tmp_path / "e"),
        ("ladder", cache, "-o", tmp_path / "l", "--rungs", "tfidf,head"),
    ):
        assert NO_TEXT in fails(*arguments), arguments
    error = fails("zero-shot", cache, "--labels", "a: x; b: y", "-o", tmp_path / "z.csv")
    assert "were imported: name the model that labels it with --model" in error


def test_other_commands_read_it(place: Path, tmp_path: Path) -> None:
    assert document("info", place / "c.h5")["encoder"]["import"]["files"] == ["v.npy"]
    assert document("verify", place / "c.h5")["ok"]
    assert document("audit", place / "c.h5", "--label", "label")["rows"] == ROWS
    assert document("evaluate", place / "run", place / "c.h5", "--label", "label", "--no-baselines")["rows"] == ROWS


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (VECTORS[:, :5], f"reads vectors {DIM} wide, .*new.npy has 5"),
        (VECTORS[:0], "has no rows"),
        (np.full((2, DIM), np.nan, np.float32), r"new\.npy row 1: the vector holds NaN"),
    ],
)
def test_vectors_that_do_not_fit(vectors: np.ndarray, message: str, place: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "new.npy", vectors)
    with pytest.raises(EmbedcacheError, match=message):
        ec.predict_file(place / "run", tmp_path / "new.npy")
    assert "new.npy" in fails("search", place / "c.h5", "--file", tmp_path / "new.npy")


def test_wrong_usage(place: Path) -> None:
    assert "v.npy is a file: --input" in fails("predict", place / "run", place / "v.npy", code=2)
    assert "--vector goes with --input" in fails("predict", place / "run", "x", "--vector", "v", code=2)


def test_vectors_of_another_model_are_refused(place: Path, tmp_path: Path) -> None:
    WRITE_ALONE["response.json"](tmp_path / "r.json")
    error = fails("predict", place / "run", "--input", tmp_path / "r.json", "--vector", "embedding")
    assert "has vectors of text-embedding-3-small" in error and "of e: they cannot be compared" in error
