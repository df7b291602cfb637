"""The main job with the packaged MiniLM encoder on real reviews, through the commands, against plain transformers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.common.signed import CARD, REPORT
from embedcache.runs.folder import FILES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "demo"))
import fetch


def embedcache(*arguments: Any) -> Any:
    """Run a command as a user's shell would, in a process of its own; its JSON."""
    command = [sys.executable, "-m", "embedcache", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """800 real reviews and one of them a second time."""
    with fetch.reviews().open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[:801]
    path = tmp_path_factory.mktemp("end-to-end") / "reviews.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*rows, rows[5]])
    return path


@pytest.fixture(scope="module")
def cache(reviews: Path) -> Path:
    path = reviews.parent / "reviews.h5"
    report = embedcache(
        "extract", reviews, "-o", path, "--model", fetch.encoder(), "--keep", "movie", "--pooling", "cls,mean"
    )
    assert report["rows"] == 801 and report["duplicates"] >= 1
    assert report["encoded"] == 801 - report["duplicates"] and report["truncated"] == 0
    return path


def test_vectors_are_those_of_plain_transformers(cache: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(fetch.encoder()), AutoModel.from_pretrained(fetch.encoder()).eval()
    opened = ec.open_cache(cache)
    lengths = [len(text) for text in opened.texts]
    # What "auto" is depends on the processor.
    worst = {"float32": 0.99999, "bfloat16": 0.9999}[opened.encoder["identity"]["compute_dtype"]]
    chosen = sorted({*np.argsort(lengths)[:5].tolist(), *np.argsort(lengths)[-5:].tolist(), *range(0, 801, 40)})
    for row in chosen:
        with torch.inference_mode():
            batch = tokenizer(opened.texts[row], truncation=True, max_length=250, return_tensors="pt")
            hidden = model(**batch).last_hidden_state[0].double().numpy()
        for pooling, plain in (("cls", hidden[0]), ("mean", hidden.mean(0))):
            stored = opened.embeddings(pooling)[row].astype(np.float64)
            assert stored @ plain / np.linalg.norm(stored) / np.linalg.norm(plain) > worst


def test_the_second_pass_encodes_nothing(cache: Path, reviews: Path) -> None:
    report = embedcache(
        "extract", reviews, "-o", cache, "--model", fetch.encoder(), "--keep", "movie", "--pooling", "cls,mean"
    )
    assert (report["rows"], report["encoded"]) == (801, 0)


def test_train_predict_search(cache: Path, tmp_path: Path) -> None:
    sweep = ["--hidden", "0,128", "--lr", "1e-4,1e-3", "--seed", "0,1"]
    run = tmp_path / "run"
    trained = embedcache("train-head", cache, "-o", run, "--pooling", "mean", "--group", "movie", *sweep)
    assert trained["heads"] == 8 and trained["engine"].startswith("native")
    assert trained["best"]["val_accuracy"] > 0.6
    assert trained["best"]["test_accuracy"] > trained["baselines"]["majority"]["test_accuracy"]
    good, bad = embedcache(
        "predict",
        run,
        "a warm, funny, moving and beautifully acted film",
        "a dull and lifeless mess that bores to tears",
    )
    assert (good["label"], bad["label"]) == ("fresh", "rotten")
    assert sorted(file.name for file in run.iterdir()) == sorted([*FILES, REPORT, CARD])
    found = embedcache("search", cache, "a scary horror film", "-k", "5", "--pooling", "mean")["results"]
    assert [one["rank"] for one in found] == [1, 2, 3, 4, 5]
    assert any(
        word in one["text"].lower() for one in found for word in ("horror", "scar", "fright", "chill", "thriller")
    )
