"""Tuned runs of one base on a table: the layers that none of them has trained are computed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedcache.encoder import Encoder
from embedcache.evaluation import evaluate
from embedcache.finetune.job import finetune
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.job import predict_file
from embedcache.prediction.shared_layers import TogetherEncoder
from embedcache.prediction.together import sharing
from embedcache.runs.folder import load_run
from embedcache.runs.job import train_head
from tests.conftest import document, fails
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


@pytest.mark.slow
def test_predict_of_several_runs_encodes_what_they_share_once(runs, tiny_bert, tmp_path, monkeypatch) -> None:
    """Each has its columns, the same as alone but for rounding; a frozen run beside them reads its own encoder."""
    table, names = runs["last"].parent / "reviews.csv", ("last", "lora", "deep", "heads-cls")
    alone = {name: predict_file(runs[name], table, tmp_path / f"{name}.parquet") for name in names}
    encoded: list[str] = []

    def counted(self: Encoder, *arguments: Any, **more: Any) -> Any:
        encoded.append(Path(self.source).name)
        return encode_tokens(self, *arguments, **more)

    encode_tokens = Encoder.encode_tokens
    monkeypatch.setattr(Encoder, "encode_tokens", counted)
    heard: list[int] = []
    report = predict_file([runs[name] for name in names], table, tmp_path / "all.parquet",
                          progress=lambda done, total, rows: heard.append(rows))  # fmt: skip
    assert encoded == ["last", "deep", tiny_bert.name]
    assert heard[-1] == report.rows == alone["last"].rows
    found = pq.read_table(tmp_path / "all.parquet")
    assert report.predicted == [f"predicted_{name}{end}" for name in names for end in ("", "_probability")]
    assert list(report.columns) == list(names)
    for name in names:
        theirs = pq.read_table(tmp_path / f"{name}.parquet")
        chances = (found[f"predicted_{name}_probability"].to_numpy(), theirs["predicted_probability"].to_numpy())
        np.testing.assert_allclose(*chances, atol=1e-5)
        sure = chances[1] > 0.5 + 1e-4
        assert sure.sum() > 100
        mine = found[f"predicted_{name}"].to_numpy(zero_copy_only=False)
        assert (mine == theirs["predicted"].to_numpy(zero_copy_only=False))[sure].all()


@pytest.mark.slow
def test_several_runs_on_the_command_line(runs, tmp_path) -> None:
    folder, heads = runs["last"].parent, runs["heads-cls"]
    cache, table = next(folder.glob("*.h5")), folder / "reviews.csv"
    both = (heads, folder / "heads-mean")
    report = document("predict", *both, cache, "-o", tmp_path / "cache.csv")
    assert report["predicted"][::2] == ["predicted_heads-cls", "predicted_heads-mean"]
    again = document("predict", *both, "--input", table, "-o", tmp_path / "table.csv", "--as", "is")
    assert {name: sum(counts.values()) for name, counts in again["columns"].items()} == dict.fromkeys(
        ("heads-cls", "heads-mean"), again["rows"]
    )
    assert again["columns"] == report["columns"]
    out = ("-o", tmp_path / "x.csv")
    assert "'some text' is not a run" in fails("predict", heads, "some text", "--input", table, *out, code=2)
    assert "several runs label the rows of --input" in fails("predict", *both, "some text", code=2)
    assert "two runs are called 'heads-cls'" in fails("predict", heads, heads, "--input", table, *out)
    assert "is a tuned run, which reads the vectors of its own encoder" in fails("predict", heads, runs["last"], cache)
    assert not (tmp_path / "x.csv").exists()
