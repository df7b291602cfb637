"""Token states and finetune on a CUDA device: what the CPU finds. Runs where there is a GPU."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from embedcache.cache import open_cache
from embedcache.extraction.job import extract
from embedcache.finetune.job import finetune
from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from tests.conftest import make_reviews, write_csv
from tests.finetune.token_caches import make_token_cache

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

GPU = "cuda"
QUIET = {"epochs": 2, "lr": 1e-3, "group": "film", "early_stop": 0, "layer_dropout": 0.0, "engine": "torch"}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_bert) -> Path:
    return make_token_cache(tmp_path_factory.mktemp("gpu"), tiny_bert, n=120)


def probabilities(run: Path) -> np.ndarray:
    """Of the test rows."""
    stored = pq.read_table(run / "predictions.parquet")
    stored = stored.filter(pc.field("side") == "test")
    return np.stack([np.array(stored[f"p:{name}"].to_pylist(), float) for name in load_run(run).classes], 1)


def test_token_states(tiny_bert, tmp_path) -> None:
    table = write_csv(tmp_path / "reviews.csv", make_reviews(60))
    found = {}
    for device in ("cpu", GPU):
        path = tmp_path / f"{device}.h5"
        extract(table, path, model=tiny_bert, pooling="cls", tokens=2, device=device, dtype="float32", max_length=64)
        with open_cache(path) as opened:
            found[device] = (opened.embeddings("cls"), *opened.token_states().take(np.arange(len(opened))))
    for there, here in zip(found[GPU], found["cpu"], strict=True):
        np.testing.assert_allclose(there.astype(float), here.astype(float), atol=4e-3)


@pytest.mark.parametrize("way", ["last", "top:1", "lora", "adapter", "full"])
def test_each_way(cache, tiny_bert, tmp_path, way: str) -> None:
    found = {}
    for device in ("cpu", GPU):
        report = finetune(cache, tmp_path / device, train=way, device=device, compute="float32", **QUIET)
        assert report.engine == f"torch-{device}"
        found[device] = probabilities(tmp_path / device)
    assert np.abs(found[GPU] - found["cpu"]).max() < 5e-3
    texts = ["a great film", "a dull mess of a film"]
    there, here = (Classifier.load(tmp_path / GPU, device=device).predict_proba(texts) for device in (GPU, "cpu"))
    assert np.abs(there - here).max() < 5e-2  # bfloat16 on the GPU


def test_bfloat16_is_the_default_there(cache, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        finetune(cache, tmp_path / "run", train="top:1", device=GPU, **QUIET)
    found = probabilities(tmp_path / "run")
    assert len(found) and np.isfinite(found).all()
