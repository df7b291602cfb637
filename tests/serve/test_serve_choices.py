"""Which caches and runs can be served: without a run, without an encoder, several columns, other poolings, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.prediction.classifier import Classifier
from tests.conftest import document, make_cache, make_reviews, write_csv
from tests.serve.serving import detail, make_client

TEXT = "a wonderful film with a superb story"


def test_without_a_run_texts_are_searched_but_not_labelled(shown: Path, open_service: Callable[..., Any]) -> None:
    client = make_client(open_service(shown / "reviews.h5"))
    assert client.get("/info").json()["run"] is None
    assert client.get("/leaderboard").json() == {"columns": {}, "others": {}, "comparisons": {}}
    assert client.get("/rows/1").json()["prediction"] is None
    assert "--run RUN" in detail(client.post("/predict", json={"texts": ["good"]}), 422)
    assert len(client.post("/search", json={"query": "good"}).json()["results"]) == 10


def test_without_an_encoder_and_labels_rows_are_searched(tmp_path: Path, open_service: Callable[..., Any]) -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 8)).astype(np.float32)
    cache = make_cache(tmp_path / "made.h5", [f"text {i}" for i in range(40)], vectors)
    client = make_client(open_service(cache))
    info = client.get("/info").json()
    assert info["texts"] is False and "--model FOLDER" in info["why_no_texts"]
    assert len(client.post("/search", json={"row": 0}).json()["results"]) == 10
    assert "--model FOLDER" in detail(client.post("/search", json={"query": "good"}), 503)
    assert client.get("/map").json()["groups"] == {}


def test_several_columns_lists_and_numbers(tmp_path: Path, tiny_bert: Path, open_service: Callable[..., Any]) -> None:
    rows = [
        {"text": text, "mood": mood, "topics": [["a"], ["a", "b"], []][i % 3], "stars": str(i % 11)}
        for i, (text, mood) in enumerate(make_reviews(80))
    ]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    cache = tmp_path / "rows.h5"
    document("extract", source, "-o", cache, "--model", tiny_bert, "--label", "mood,topics,stars")
    document("train-head", cache, "-o", tmp_path / "both", "--label", "mood,topics", "--epochs", "2")
    document("train-head", cache, "-o", tmp_path / "stars", "--label", "stars", "--epochs", "2", "--task", "regression")

    both = make_client(open_service(cache, tmp_path / "both"))
    (one,) = both.post("/predict", json={"texts": [TEXT]}).json()
    assert isinstance(one["columns"]["mood"]["label"], str) and isinstance(one["columns"]["topics"]["label"], list)
    assert one["label"] == one["columns"]["mood"]["label"]
    assert both.get("/rows/1").json()["labels"] == {"mood": "positive", "topics": ["a", "b"], "stars": "1"}
    assert set(both.get("/leaderboard").json()["columns"]) == {"mood", "topics"}
    groups = both.get("/map").json()["groups"]
    assert [group["role"] for group in groups["topics"]] == ["class", "class", "several", "other"]
    assert {group["role"] for group in groups["stars"]} == {"bin"}

    stars = make_client(open_service(cache, tmp_path / "stars"))
    (one,) = stars.post("/predict", json={"texts": [TEXT]}).json()
    assert isinstance(one["label"], float) and one["probabilities"] == {}
    board = stars.get("/leaderboard").json()["columns"]["stars"]
    assert board["score"] == "val_r2" and board["drawn"] == ["val_loss", "val_r2", "train_loss"]
    assert board["scores"] == ["val_r2", "val_loss", "val_rmse", "val_mae", "val_spearman"]


def test_another_pooling_of_the_same_encoder_serves_both(made: Path, open_service: Callable[..., Any]) -> None:
    service = open_service(made / "reviews.h5", made / "run", pooling="mean")
    (one,) = make_client(service).post("/predict", json={"texts": [TEXT]}).json()
    (expected,) = Classifier.load(made / "run", "cpu").predict([TEXT])
    # Two poolings in one pass are computed another way than one: they agree as bfloat16 does.
    assert one["probabilities"] == pytest.approx(expected.probabilities, abs=5e-3)
    assert make_client(service).get("/info").json()["index"]["pooling"] == "mean"


def test_the_vectors_that_the_heads_read_are_searched(
    made: Path, tmp_path: Path, open_service: Callable[..., Any]
) -> None:
    document("train-head", made / "reviews.h5", "-o", tmp_path / "run", "--pooling", "mean", "--epochs", "1")
    info = make_client(open_service(made / "reviews.h5", tmp_path / "run")).get("/info").json()
    assert info["index"]["pooling"] == info["run"]["pooling"] == "mean"


def test_a_run_of_another_encoder_is_refused(
    shown: Path, tmp_path: Path, tiny_bert: Path, open_service: Callable[..., Any]
) -> None:
    write_csv(tmp_path / "reviews.csv", make_reviews(60))
    document(
        "extract", tmp_path / "reviews.csv", "-o", tmp_path / "other.h5", "--model", tiny_bert, "--max-length", "9"
    )
    with pytest.raises(EmbedcacheError, match=r"another encoder than that of .*other\.h5"):
        open_service(tmp_path / "other.h5", shown / "run")


def test_a_model_that_is_not_the_caches(
    shown: Path, tiny_models: dict[str, Path], open_service: Callable[..., Any]
) -> None:
    with pytest.raises(EmbedcacheError, match="is not the one that made"):
        open_service(shown / "reviews.h5", model=tiny_models["distilbert"])
