"""Exports of causal models and of encoders alone: a pad token is given where there is none, padding is behind the text.

``export`` itself opens what it wrote with the ecosystem's loader, pads a batch, and refuses other results.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from embedcache.encoder.folder import read_json
from tests.conftest import document, fails, make_reviews, write_csv
from tests.encoder import tiny_kinds
from tests.encoder.sentence_folders import NORMALIZE, make_folder


def run_of(kind: str, folder: Path, prescribes: bool = True) -> Path:
    """A run on vectors of a tiny model of the kind."""
    (folder / "base").mkdir()
    base = tiny_kinds.write_kind(folder / "base", kind)
    last = {"pooling_mode_lasttoken": True} if kind in tiny_kinds.CAUSAL else {}
    model = make_folder(base, folder / "model", last, NORMALIZE) if prescribes else base
    write_csv(folder / "rows.csv", make_reviews(80))
    cache = folder / "cache.h5"
    document("extract", folder / "rows.csv", "-o", cache, "--model", model, "--label", "label", "--max-length", 60)
    document("train-head", cache, "-o", folder / "run", "--hidden", 8, "--epochs", 2)
    return folder / "run"


@pytest.mark.parametrize(
    ("kind", "to"),
    [
        ("GPT2", "sentence-transformers"),
        *(pytest.param(kind, to, marks=pytest.mark.slow) for kind, to in (
            ("GPT2", "onnx"), ("Qwen3", "torch"), ("Qwen3", "sentence-transformers"),
            ("EmbeddingGemma", "sentence-transformers"), ("T5", "sentence-transformers"), ("T5", "torch"),
        )),
    ],
)  # fmt: skip
def test_an_export_gives_the_runs_results(kind: str, to: str, tmp_path: Path) -> None:
    about = document("export", run_of(kind, tmp_path), "--to", to, "-o", tmp_path / "out")
    assert about["checked"]["max_difference"] < 1e-4
    inner = tmp_path / "out" / ("0_Transformer" if to == "sentence-transformers" else "")
    settings = read_json(inner / "tokenizer_config.json")
    assert settings["padding_side"] == "right" and settings["pad_token"]


def test_an_encoder_that_sentence_transformers_does_not_open(tmp_path: Path) -> None:
    run = run_of("Bart", tmp_path, prescribes=False)
    line = fails("export", run, "--to", "sentence-transformers", "-o", tmp_path / "out")
    assert "sentence-transformers does not open the encoder of a bart model alone: use --to torch or --to onnx" in line
