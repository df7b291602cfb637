"""Models whose tokenizer transformers has in Python only: the tokens and vectors of transformers itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import embedcache as ec
from embedcache.cli import main
from embedcache.encoder import Encoder, identify
from embedcache.errors import EmbedcacheError
from tests.encoder.sentence_folders import make_folder

WORDS = "the a film good story never dull was".split()
LETTERS = sorted(set("".join(WORDS)))
TEXTS = ["", "the good film", "A film  never dull!", "the story was good " * 12, "電影 film"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A BERTweet (byte pair codes) and a Japanese BERT (without MeCab), 2 layers, 32 wide."""
    import torch
    from transformers import (
        BertConfig,
        BertJapaneseTokenizer,
        BertModel,
        BertweetTokenizer,
        RobertaConfig,
        RobertaModel,
    )

    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "max_position_embeddings": 40, "initializer_range": 0.2,
    }  # fmt: skip
    torch.manual_seed(0)
    tweets, japanese = tmp_path_factory.mktemp("bertweet"), tmp_path_factory.mktemp("japanese")
    pieces = [f"{letter}@@" for letter in LETTERS] + [*LETTERS, "good", "film", "the"]
    merges = ["g o", "go o", "goo d</w>", "f i", "fi l", "fil m</w>", "t h", "th e</w>"]
    (tweets / "vocab.txt").write_text("".join(f"{piece} 1\n" for piece in pieces))
    (tweets / "bpe.codes").write_text("".join(f"{merge} 1\n" for merge in merges))
    config = {"tokenizer_class": "BertweetTokenizer", "model_max_length": 38}
    (tweets / "tokenizer_config.json").write_text(json.dumps(config))
    tokens = len(BertweetTokenizer(str(tweets / "vocab.txt"), str(tweets / "bpe.codes")))
    RobertaModel(RobertaConfig(vocab_size=tokens, pad_token_id=1, **sizes)).save_pretrained(tweets)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (japanese / "vocab.txt").write_text("\n".join([*special, *WORDS, *(f"##{one}" for one in LETTERS), *LETTERS]))
    tokenizer = BertJapaneseTokenizer(
        str(japanese / "vocab.txt"), word_tokenizer_type="basic", subword_tokenizer_type="wordpiece"
    )
    tokenizer.save_pretrained(japanese)
    BertModel(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(japanese)
    return {"bertweet": tweets, "japanese": japanese}


@pytest.mark.parametrize("name", ["bertweet", "japanese"])
def test_tokens_and_vectors_are_those_of_transformers(folders: dict[str, Path], name: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder, longest = folders[name], 20
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    assert not tokenizer.is_fast
    encoder = Encoder.load(folder, max_length=longest, dtype="float32", device="cpu")
    tokens = encoder.tokenize(TEXTS)
    (found,) = encoder.encode_tokens(tokens, [("mean", -1)])
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, truncation=True, max_length=longest)["input_ids"]
        assert tokens.ids[i] == ids
        assert tokens.whole[i] == len(tokenizer(text)["input_ids"])
        assert tokens.unknown[i] == ids.count(tokenizer.unk_token_id)
        with torch.inference_mode():
            expected = model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(found[i], expected, atol=2e-6)
    assert tokens.truncated.tolist() == [False, False, name == "bertweet" and tokens.whole[2] > 20, True, False]
    assert encoder.tokenized_by == "library: in Python, it has no fast version"


def test_every_file_of_the_tokenizer_is_part_of_what_it_is(folders: dict[str, Path]) -> None:
    identity, _ = identify(folders["bertweet"], max_length=20, device="cpu")
    assert set(identity["tokenizer"]) == {"bpe.codes", "vocab.txt", "tokenizer_config.json"}


def test_a_text_that_is_none_is_refused(folders: dict[str, Path]) -> None:
    encoder = Encoder.load(folders["japanese"], max_length=20, dtype="float32", device="cpu")
    with pytest.raises(EmbedcacheError, match="a text cannot be tokenized"):
        encoder.tokenize([None])  # type: ignore[list-item]


def test_texts_in_lower_case(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = make_folder(folders["bertweet"], tmp_path / "model", {}, settings={"do_lower_case": True})
    lowered = Encoder.load(folder, max_length=20, dtype="float32", device="cpu", lower_case=True)
    plain = Encoder.load(folder, max_length=20, dtype="float32", device="cpu")
    assert lowered.tokenize(["GOOD Film"]).ids == plain.tokenize(["good film"]).ids != plain.tokenize(["GOOD Film"]).ids


def test_chunks_and_exports_are_refused_in_one_line(folders: dict[str, Path], tmp_path: Path) -> None:
    table, cache, run = tmp_path / "t.csv", tmp_path / "c.h5", tmp_path / "run"
    table.write_text("text,label\n" + "".join(f"{'the good film ' * 12}{i},{i % 2}\n" for i in range(30)))
    settings = {"model": folders["japanese"], "max_length": 20, "dtype": "float32"}
    with pytest.raises(EmbedcacheError, match="--chunk needs a tokenizer with a fast version"):
        ec.extract(table, cache, chunk=True, **settings)
    ec.extract(table, cache, **settings)
    options = ["--hidden", "0", "--epochs", "1"]
    assert CliRunner().invoke(main, ["train-head", str(cache), "-o", str(run), *options]).exit_code == 0
    result = CliRunner().invoke(main, ["export", str(run), "--to", "torch", "-o", str(tmp_path / "model")])
    assert result.exit_code == 1 and "has no fast version (tokenizer.json)" in result.output
