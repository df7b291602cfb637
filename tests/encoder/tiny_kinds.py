"""Tiny random models of many architectures, each with a tokenizer as its kind has one."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import write_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
         "max_position_embeddings": 128, "initializer_range": 0.2}  # fmt: skip
GROUPED = {"num_key_value_heads": 2}
OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 4, "init_std": 0.2,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip


@dataclass(frozen=True)
class Tiny:
    """settings: of its configuration. before, after: what stands around a text. slow: for the long run."""

    settings: dict[str, Any] = field(default_factory=dict)
    before: str = ""
    after: str = ""
    model: str = ""
    slow: bool = True


CAUSAL = {
    "Qwen3": Tiny({**GROUPED, "head_dim": 8}, after="[SEP]", slow=False),
    "Qwen2": Tiny(GROUPED, after="[SEP]"),
    "Llama": Tiny({**GROUPED, "pad_token_id": -1}, before="[CLS]", slow=False),
    "Mistral": Tiny({**GROUPED, "sliding_window": 8}, before="[CLS]", after="[SEP]"),
    "Gemma": Tiny({**GROUPED, "head_dim": 8}, before="[CLS]"),
    "Gemma3Text": Tiny({**GROUPED, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}, before="[CLS]"),
    "Phi": Tiny(), "Phi3": Tiny(GROUPED), "SmolLM3": Tiny(GROUPED), "GPTNeoX": Tiny(), "Bloom": Tiny(OLD),
    "OPT": Tiny({"word_embed_proj_dim": 16, "ffn_dim": 64}, before="[SEP]", slow=False),
    "GPT2": Tiny(OLD, slow=False),
    "GPTJ": Tiny({**OLD, "rotary_dim": 4}),
    "Mamba": Tiny({"state_size": 4, "expand": 2}),
    "Falcon": Tiny(), "OpenAIGPT": Tiny(OLD),
    "CLIPText": Tiny(before="[CLS]", after="[SEP]"),
}  # fmt: skip
ENCODERS = {
    "EmbeddingGemma": Tiny({**GROUPED, "head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8,
                            "use_bidirectional_attention": True}, "[CLS]", "[SEP]", "Gemma3TextModel", slow=False),
    "T5": Tiny(T5, after="[SEP]", slow=False),
    "MT5": Tiny(T5, after="[SEP]"),
    "UMT5": Tiny(T5, after="[SEP]"),
    "T5 without its decoder": Tiny(T5, "", "[SEP]", "T5EncoderModel"),
    "Bart": Tiny(BART, "[CLS]", "[SEP]", slow=False),
    "MBart": Tiny(BART, after="[SEP]"),
    "M2M100": Tiny(BART, "[CLS]", "[SEP]"),
    "Marian": Tiny(BART, after="[SEP]"),
    "Pegasus": Tiny(BART, after="[SEP]"),
    "DPR": Tiny({}, "[CLS]", "[SEP]", "DPRContextEncoder"),
    "BertGeneration": Tiny({}, model="BertGenerationEncoder"),
}  # fmt: skip
ALL = CAUSAL | ENCODERS


def write_kind(folder: Path, kind: str, **changes: Any) -> Path:
    """The model and tokenizer of a kind in ``ALL``; ``changes`` of its configuration."""
    import torch
    import transformers

    tiny = ALL[kind]
    vocabulary = write_tokenizer(folder, 128)
    _put_around(folder, tiny)
    name = tiny.model or f"{kind}Model"
    model = getattr(transformers, name)
    settings = {**SIZES, "vocab_size": vocabulary + 8, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(0)
    made = model(model.config_class(**(settings | tiny.settings | changes))).eval().requires_grad_(False)
    for weight in made.parameters():  # transformers starts biases at 0 and scales at 1: faults would hide
        if weight.ndim == 1:
            weight += 0.1 * torch.randn_like(weight)
    made.save_pretrained(folder)
    return folder


def _put_around(folder: Path, tiny: Tiny) -> None:
    """The special tokens that stand around a text; no pad token where there is none in front."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary, sequence = tokenizer["model"]["vocab"], [{"Sequence": {"id": "A", "type_id": 0}}]
    ends = [[{"SpecialToken": {"id": one, "type_id": 0}}] if one else [] for one in (tiny.before, tiny.after)]
    named = {one: {"id": one, "ids": [vocabulary[one]], "tokens": [one]} for one in (tiny.before, tiny.after) if one}
    single = ends[0] + sequence + ends[1]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    template = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": named}
    tokenizer["post_processor"] = template if named else None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if not tiny.before:
        config = {name: value for name, value in config.items() if name not in ("pad_token", "cls_token")}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
