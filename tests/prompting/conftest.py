"""Tiny random models with heads, built on the spot, and a cache to label."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import WORDS, document, make_reviews, write_csv, write_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
REVIEWS = make_reviews(40)
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def save_bert(folder: Path, name: str, **more: object) -> Path:
    import torch
    import transformers

    folder.mkdir()
    settings = {**SIZES, "vocab_size": write_tokenizer(folder), "max_position_embeddings": 128, "pad_token_id": 0}
    torch.manual_seed(3)
    config = transformers.BertConfig(**settings, initializer_range=0.3, **more)  # type: ignore[arg-type]
    getattr(transformers, name)(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("lms") / "masked", "BertForMaskedLM")


@pytest.fixture(scope="session")
def tiny_nli(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = {0: "CONTRADICTION", 1: "ENTAILMENT", 2: "NEUTRAL"}
    folder = tmp_path_factory.mktemp("lms") / "nli"
    return save_bert(folder, "BertForSequenceClassification", id2label=names, label2id={v: k for k, v in names.items()})


@pytest.fixture(scope="session")
def tiny_causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with byte-level BPE and no chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("lms") / "causal"
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    bpe.train_from_iterator([" ".join(WORDS), "Text: Label:"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = LlamaConfig(
        **SIZES, vocab_size=len(tokenizer), max_position_embeddings=512, initializer_range=0.2, pad_token_id=1
    )
    LlamaForCausalLM(config).eval().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews_cache(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """40 reviews with a label, one text twice, the last two rows without a label; cls and mean vectors."""
    folder = tmp_path_factory.mktemp("zero-shot")
    rows = [*REVIEWS[:37], (REVIEWS[0][0], REVIEWS[0][1]), (REVIEWS[38][0], ""), (REVIEWS[39][0], "")]
    write_csv(folder / "reviews.csv", rows, ("text", "label"))
    extract = ["extract", folder / "reviews.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--device", "cpu"]
    document(*extract, "--pooling", "mean,cls", "--dtype", "float32", "--store", "float32")
    return folder / "c.h5"
