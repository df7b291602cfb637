"""Heads that read several outputs side by side, wherever a run is used: texts, cache, evaluation, page, export."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from embedcache.cache import open_cache
from embedcache.cache.side_by_side import vectors_of
from embedcache.common.outputs import parts_of
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.evaluation.job import evaluate
from embedcache.export import export_run
from embedcache.extraction.job import extract
from embedcache.finetune.start import pooling_of
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.job import predict_file
from embedcache.prediction.together import vectors_key
from embedcache.report import write_report
from embedcache.report.card_code import code_of
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from embedcache.serve.service import Service
from tests.conftest import make_reviews
from tests.serve.serving import make_client

OUTPUTS = [("cls+mean", -1), ("mean", "-1+-2"), ("cls+mean", "-2+-1")]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    rows = "".join(f"{text},{label}\n" for text, label in make_reviews(120))
    (folder / "reviews.csv").write_text("text,label\n" + rows, "utf-8")
    extract(
        folder / "reviews.csv", folder / "c.h5", model=tiny_bert, pooling=["cls", "mean"], layers=[-1, -2], device="cpu"
    )
    return folder / "c.h5"


@pytest.fixture(scope="module", params=OUTPUTS, ids=str)
def run(request: pytest.FixtureRequest, cache: Path) -> Path:
    pooling, layer = request.param
    path = cache.parent / f"run-{pooling}-{layer}"
    train_head(cache, path, pooling=pooling, layer=layer, hidden=8, lr=1e-2, epochs=3, threads=1)
    return path


def test_an_encoder_puts_them_side_by_side(tiny_bert: Path) -> None:
    encoder = Encoder.load(tiny_bert, max_length=64, device="cpu", dtype="float32")
    texts = [text for text, _ in make_reviews(9)]
    apart = encoder.encode_texts(texts, [("cls", -1), ("mean", -1), ("cls", -2), ("mean", -2)])
    joined, plain = encoder.encode_texts(texts, [("cls+mean", "-1+-2"), ("mean", -2)])
    np.testing.assert_array_equal(joined, np.hstack(apart))
    np.testing.assert_array_equal(plain, apart[3])


def test_texts_and_rows_of_the_cache_are_labelled_alike(cache: Path, run: Path) -> None:
    classifier = Classifier.load(run, device="cpu")
    pooling, layer = classifier.run.info["pooling"], classifier.run.info["layer"]
    with open_cache(cache) as opened:
        texts, x = list(opened.texts)[:20], np.asarray(vectors_of(opened, pooling, layer))[:20]
        parts = [np.asarray(opened.embeddings(*part))[:20] for part in parts_of(pooling, layer)]
    np.testing.assert_array_equal(x, np.hstack(parts))
    assert x.shape[1] == classifier.run.info["dim"]
    np.testing.assert_allclose(classifier.predict_proba(texts), classifier.predict_proba(vectors=x), atol=2e-3)
    assert len(classifier.predict(texts[:2], explain=True).to_arrow()) == 2 and not classifier.no_neighbours


def test_runs_that_read_the_same_parts_share_them(cache: Path) -> None:
    found = {spec: {"encoder": open_cache(cache).encoder, "pooling": spec[0], "layer": spec[1], "dtype": "float16"}
             for spec in [*OUTPUTS, ("cls", -1), ("mean+cls", -1)]}  # fmt: skip
    keys = {spec: vectors_key(SimpleNamespace(info=info)) for spec, info in found.items()}
    assert len(set(keys.values())) == len(keys)


def test_tables_evaluation_and_report(cache: Path, run: Path, tmp_path: Path) -> None:
    predict_file(run, cache, tmp_path / "a.csv", device="cpu")
    predict_file(run, cache.parent / "reviews.csv", tmp_path / "b.csv", device="cpu")
    a, b = (pd.read_csv(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert (a["predicted"] == b["predicted"]).mean() > 0.98
    (scores,) = evaluate([run], cache, label="label").runs
    assert scores.scores["accuracy"].value == pytest.approx((a["predicted"] == a["label"]).mean())
    write_report(run, tmp_path / "report.html")
    info = load_run(run).info
    assert f"{info['pooling']} pooling, layer {info['layer']}" in (tmp_path / "report.html").read_text("utf-8")
    assert "puts the vectors side by side" in code_of(load_run(run), "encoder")


def test_poolings_and_layers_are_exported(run: Path, tmp_path: Path) -> None:
    layer = load_run(run).info["layer"]
    assert export_run(run, tmp_path / "model", "torch").checked["max_difference"] < 1e-3
    about = json.loads((tmp_path / "model" / "embedcache.json").read_text())
    assert about["layer"] == {-1: 2, "-1+-2": "2+1", "-2+-1": "1+2"}[layer]
    if layer != -1:
        with pytest.raises(EmbedcacheError, match="several layers side by side, and sentence-transformers takes"):
            export_run(run, tmp_path / "folder", "sentence-transformers")
        assert not (tmp_path / "folder").exists()


def test_the_service_labels_texts(cache: Path, run: Path) -> None:
    texts = [text for text, _ in make_reviews(5)]
    service = Service.open(cache, run, device="cpu")
    try:
        answers = make_client(service).post("/predict", json={"texts": texts}).json()
        about = make_client(service).get("/info").json()["runs"][0]
    finally:
        service.close()
    expected = Classifier.load(run, device="cpu").predict(texts)
    assert [one["label"] for one in answers] == [one.label for one in expected]
    assert (about["pooling"], about["layer"]) == (load_run(run).info["pooling"], load_run(run).info["layer"])


def test_finetune_starts_from_one_pooling(run: Path) -> None:
    with pytest.raises(EmbedcacheError, match="its heads read"):
        pooling_of(run, "label")
