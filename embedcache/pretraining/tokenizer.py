"""A tokenizer trained on the texts, for a model from scratch: WordPiece or byte-level BPE, by the model's kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# Kinds by model_type whose authors use WordPiece, in lower case; all others get byte-level BPE.
WORDPIECE = frozenset(
    "bert convbert distilbert electra funnel layoutlm mobilebert mpnet nomic_bert realm rembert retribert roformer "
    "splinter squeezebert tapas visual_bert".split()
)
WORDPIECE_SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
BPE_SPECIAL = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}  # in RoBERTa's order


def train_tokenizer(texts: Iterable[str], model_type: str, vocab_size: int, max_length: int) -> Any:
    """A fast tokenizer of transformers with a mask token.

    Args:
        texts: To learn from.
        model_type: Of the model's configuration, which decides the kind.
        vocab_size: The most tokens.
        max_length: What the tokenizer says of the model's length.
    """
    from transformers import PreTrainedTokenizerFast

    wordpiece = model_type in WORDPIECE
    special = WORDPIECE_SPECIAL if wordpiece else BPE_SPECIAL
    options: dict[str, Any] = {
        "vocab_size": vocab_size, "special_tokens": list(special.values()), "show_progress": False, "min_frequency": 2,
    }  # fmt: skip
    trainer: Any
    if wordpiece:
        tokenizer = Tokenizer(models.WordPiece(unk_token=special["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(**options)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)
    tokenizer.train_from_iterator(texts, trainer)
    cls, sep = (tokenizer.token_to_id(special[name]) for name in ("cls", "sep"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special['cls']} $A {special['sep']}",
        pair=f"{special['cls']} $A {special['sep']} $B:1 {special['sep']}:1",
        special_tokens=[(special["cls"], cls), (special["sep"], sep)],
    )
    names = {f"{name}_token": token for name, token in special.items()}
    if not wordpiece:
        names |= {"bos_token": special["cls"], "eos_token": special["sep"]}
    inputs = ["input_ids", "token_type_ids", "attention_mask"] if wordpiece else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, model_input_names=inputs, **names
    )
