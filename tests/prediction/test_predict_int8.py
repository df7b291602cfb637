"""A run on an int8 cache: texts are rounded as the cache's rows are, so both get the same answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.serve.projection import make_map, project
from tests.conftest import document, invoke, make_reviews, write_csv


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """t.csv, c.h5 in int8, half.h5 in float16 and a run of the first."""
    folder = tmp_path_factory.mktemp("int8-run")
    write_csv(folder / "t.csv", make_reviews(160))
    for store, name in (("int8", "c.h5"), ("float16", "half.h5")):
        document("extract", folder / "t.csv", "-o", folder / name, "--model", tiny_bert, "--store", store)
    document("train-head", folder / "c.h5", "-o", folder / "run", "--lr", "1e-2", "--hidden", "0,8", "--epochs", 4)
    return folder


def test_texts_and_rows_get_the_same_answers(place: Path) -> None:
    classifier = ec.Classifier.load(place / "run")
    run = classifier.run
    assert run.info["dtype"] == "int8" and run.info["encoder"]["store"] == "int8"
    with ec.open_cache(place / "c.h5") as cache, ec.open_cache(place / "half.h5") as half:
        rows, texts = cache.embeddings()[:20], list(cache.texts[:20])
        assert (classifier.encode(texts) == rows).all()
        assert (classifier.predict_proba(texts) == classifier.predict_proba(vectors=rows)).all()
        near = np.asarray(half.embeddings()[:20], np.float32)
        assert np.abs(near - rows).max() < np.abs(rows).max() / 100
    both = [
        document("predict", place / "run", *given, "-o", place / f"p{i}.csv")["labels"]
        for i, given in enumerate([(place / "c.h5",), ("--input", place / "t.csv"), (place / "half.h5",)])
    ]
    assert both[0] == both[1]
    assert (place / "p0.csv").read_text().splitlines()[1:] != []


def test_what_else_reads_the_vectors(place: Path) -> None:
    assert ec.audit(place / "c.h5").rows == 160
    a, b = (ec.evaluate(place / "run", place / name, baselines=False).to_dict() for name in ("c.h5", "t.csv"))
    assert a["runs"] == b["runs"]
    page = invoke("report", place / "run", "-o", place / "r.html")
    assert page.exit_code == 0 and "int8" in (place / "r.html").read_text()
    card = (place / "run" / "README.md").read_text()
    assert "(vectors / scales).round() * scales" in card


@pytest.mark.slow
def test_the_map_is_that_of_the_decoded_rows(place: Path) -> None:
    with ec.open_cache(place / "c.h5") as cache:
        assert (make_map(cache) == project(cache.embeddings()[:])).all()
