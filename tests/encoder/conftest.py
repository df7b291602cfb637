"""Tiny random encoders of the families that differ: token types, position offsets, names of layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import write_tokenizer


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> dict[str, Path]:
    """Family -> folder of a 2-layer, 32-wide model of it, with 130 positions where it has a table of them."""
    import torch
    from transformers import DistilBertConfig, DistilBertModel, MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

    both = {"initializer_range": 0.2, "max_position_embeddings": 130}
    wide = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, **both}
    distil = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, **both}
    folders = {"bert": tiny_bert}
    for name, model, config in (
        ("roberta", RobertaModel, RobertaConfig(pad_token_id=1, **wide)),
        ("mpnet", MPNetModel, MPNetConfig(pad_token_id=1, **wide)),
        ("distilbert", DistilBertModel, DistilBertConfig(pad_token_id=0, **distil)),
    ):
        folders[name] = tmp_path_factory.mktemp(f"tiny-{name}")
        config.vocab_size = write_tokenizer(folders[name])
        if config.pad_token_id == 1:  # RoBERTa's and MPNet's positions are counted by the pad id, which is 1 there
            _swap_first_two_tokens(folders[name] / "tokenizer.json")
        torch.manual_seed(1)
        model(config).eval().save_pretrained(folders[name])
    return folders


def _swap_first_two_tokens(path: Path) -> None:
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocab = tokenizer["model"]["vocab"]
    vocab["[PAD]"], vocab["[UNK]"] = vocab["[UNK]"], vocab["[PAD]"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


@pytest.fixture
def bert_copy(tmp_path: Path, tiny_bert: Path) -> Path:
    """A copy of the tiny BERT that a test may spoil."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "copy"))
