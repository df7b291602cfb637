"""What a ladder says beforehand: measured with the engine that will train, and counted in its units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from embedcache.ladder.plan import FORWARD, HEAD_ROW, START, rung_cost
from embedcache.ladder.rungs import read_rung
from embedcache.ladder.speed import MachineSpeed, measure
from tests.conftest import make_reviews, write_csv, write_tokenizer

KNOWN = MachineSpeed(
    rows=1000, tokens=30.0, text_bytes=100.0, encode=1e4, train=300.0, native=6000.0, layers=6, width=384,
    parameters=1000, vectors=1,
)  # fmt: skip
TOKENS = 1000 * 30 * 5 * (0.8 + 0.1 * FORWARD)  # of all epochs


def training(rung: str, known: MachineSpeed) -> float:
    """Seconds, without those of the start and the baselines."""
    return rung_cost(read_rung(rung), "m", known, 0.8, 0.1).seconds - START - known.rows * HEAD_ROW


def test_the_last_layers_cost_what_the_native_engine_takes() -> None:
    assert training("top:2", KNOWN) == pytest.approx(TOKENS * 2 / 6000)
    assert training("last", KNOWN) == pytest.approx(1.2 * TOKENS / 6000), "the CLS row alone, too"


def test_where_it_trains_nothing_torch_does() -> None:
    assert training("top:2", replace(KNOWN, native=None)) == pytest.approx(TOKENS * 2 / 6 / 300)
    assert training("full", KNOWN) == pytest.approx(TOKENS / 300)
    assert training("lora:top:2", KNOWN) == training("lora:top:2", replace(KNOWN, native=None))


@pytest.fixture
def albert(tmp_path: Path) -> Path:
    """Whose layers share their weights."""
    from transformers import AlbertConfig, AlbertModel

    folder = tmp_path / "albert"
    folder.mkdir()
    vocab = write_tokenizer(folder)
    sizes = {"hidden_size": 32, "embedding_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    AlbertModel(AlbertConfig(vocab_size=vocab, num_hidden_layers=2, **sizes)).eval().save_pretrained(folder)
    return folder


def test_what_is_measured(tiny_bert: Path, albert: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "reviews.csv", make_reviews(40), ("text", "label"))

    def known(model: Path, trains: bool = True) -> MachineSpeed:
        return measure(str(tmp_path / "reviews.csv"), str(model), "cpu", False, trains, "text")

    bert, other, frozen = known(tiny_bert), known(albert), known(tiny_bert, trains=False)
    assert bert.rows == 40 and bert.layers == 2
    assert bert.train and bert.native
    assert other.train and other.native is None, "the native engine does not know its layers"
    assert frozen.train is None and frozen.native is None and frozen.encode > 0
