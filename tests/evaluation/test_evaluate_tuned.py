"""Tuned runs of one base on a table: the layers that none of them has trained are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.evaluation import evaluate
from embedcache.evaluation.together import TogetherEncoder, sharing
from embedcache.finetune.job import finetune
from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from tests.finetune.token_caches import make_token_cache

TEXTS = ["", "a fine film", "dull " * 200, "not the best story, and the worst ending"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_bert) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tuned")
    cache = make_token_cache(folder, tiny_bert, n=160)
    settings: dict[str, Any] = {"epochs": 1, "lr": 1e-2, "early_stop": 0, "engine": "torch"}
    for pooling in ("cls", "mean"):
        train_head(cache, folder / f"heads-{pooling}", hidden=0, lr=1e-2, epochs=1, pooling=pooling)
    made = {"last": ("last", "cls"), "lora": ("lora:last", "mean"), "deep": ("top:2", "mean")}
    for name, (way, pooling) in made.items():
        start = {"from_run": folder / f"heads-{pooling}", "pooling": pooling}
        finetune(cache, folder / name, train=way, **start, **settings)
    return {name: folder / name for name in ("last", "lora", "deep", "heads-cls")}


@pytest.mark.slow
def test_shared_layers_give_each_runs_vectors(runs) -> None:
    loaded = {name: load_run(path) for name, path in runs.items()}
    names = {name: [one.path.name for one in sharing(run, loaded.values())] for name, run in loaded.items()}
    assert names == {"last": ["last", "lora"], "lora": ["last", "lora"], "deep": [], "heads-cls": []}
    some = [loaded["last"], loaded["lora"]]
    found, read = TogetherEncoder(some, lambda run: Classifier.load(run.path)).encode(TEXTS)
    for run, vectors in zip(some, found, strict=True):
        expected, counted = Classifier.load(run.path).encode_counted(TEXTS)
        np.testing.assert_allclose(vectors, expected, atol=2e-5)
        assert read == counted
    assert np.abs(found[0] - found[1]).max() > 0.1


@pytest.mark.slow
def test_texts_go_through_the_shared_layers_once(runs, monkeypatch) -> None:
    table = runs["last"].parent / "reviews.csv"
    alone = [evaluate(runs[name], table).runs[0] for name in ("last", "lora", "deep")]
    encoded: list[str] = []

    def counted(self: Encoder, *arguments: Any, **more: Any) -> Any:
        encoded.append(Path(self.source).name)
        return encode_tokens(self, *arguments, **more)

    encode_tokens = Encoder.encode_tokens
    monkeypatch.setattr(Encoder, "encode_tokens", counted)
    report = evaluate([runs[name] for name in ("last", "lora", "deep")], table)
    assert encoded == ["last", "deep"]
    for mine, theirs in zip(report.runs, alone, strict=True):
        assert {name: one.value for name, one in mine.scores.items()} == pytest.approx(
            {name: one.value for name, one in theirs.scores.items()}, abs=1e-5
        )
