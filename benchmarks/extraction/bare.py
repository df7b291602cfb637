"""Texts, a tokenizer and an encoder out of nothing but a checkout: for machines without a network.

The words are those of this repository's documentation and programs, cut into texts with the mix of lengths that
critics' snippets and plots have (``data.texts("mixed")``): twelve short ones to a long one. WordPiece is trained on
them; the encoder has BERT-base's or MiniLM's shape and random weights, which is all the same to speed.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.machine import ROOT

BASE = (12, 768, 3072)  # layers, width, inner; 12 heads
SHAPES = {"bert-base": BASE, "minilm": (6, 384, 1536), "mpnet": BASE}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHORT, LONG = (4, 40), (90, 400)  # words of a text
VOCABULARY = 8000


def words() -> list[str]:
    paths = [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("embedcache/**/*.py"))]
    return [word for path in paths for word in path.read_text(encoding="utf-8").split()]


def texts(rows: int) -> list[str]:
    """All different, the same each time."""
    rng, every, made = np.random.default_rng(0), words(), dict[str, None]()
    while len(made) < rows:
        length = int(rng.integers(*(LONG if len(made) % 13 == 0 else SHORT)))
        begin = int(rng.integers(len(every) - length))
        made[" ".join(every[begin : begin + length])] = None
    return list(made)


def encoder_folder(shape: str, folder: Path) -> Path:
    """A folder as transformers keeps one, made in ``folder``."""
    import torch
    from transformers import BertConfig, BertModel, MPNetConfig, MPNetModel

    folder.mkdir(parents=True)
    _write_tokenizer(folder)
    layers, width, inner = SHAPES[shape]
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
    torch.manual_seed(0)
    kind, settings = (MPNetModel, MPNetConfig) if shape == "mpnet" else (BertModel, BertConfig)
    kind(settings(vocab_size=30_522, **sizes)).eval().save_pretrained(folder)
    return folder


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False)
    backend.train_from_iterator(words(), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    backend.save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
