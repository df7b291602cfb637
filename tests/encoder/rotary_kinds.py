"""Tiny random models of every rotary family, and of what its configurations may vary."""

from __future__ import annotations

from typing import Any

import numpy as np

VOCABULARY = 99
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
         "intermediate_size": 48, "max_position_embeddings": 1024, "initializer_range": 0.2, "pad_token_id": 0,
         "bos_token_id": None, "eos_token_id": None}  # fmt: skip
GROUPED = {"num_key_value_heads": 2, "head_dim": 32}
NO_MARKS = {"cls_token_id": None, "sep_token_id": None}
GEMMA = {**GROUPED, "sliding_window": 17, "query_pre_attn_scalar": 8, "sliding_window_pattern": 2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "modernbert": ("ModernBert", {"local_attention": 32, **NO_MARKS}),
    "modernbert with biases": ("ModernBert", {"attention_bias": True, "mlp_bias": True, "norm_bias": True, **NO_MARKS}),
    "modernbert, odd sizes": (
        "ModernBert",
        {"hidden_size": 36, "num_attention_heads": 3, "intermediate_size": 22, "local_attention": 6, **NO_MARKS},
    ),
    "nomic_bert": ("NomicBert", {}),
    "gte": ("Gte", {}),
    "gte without token types": ("Gte", {"type_vocab_size": 0, "hidden_act": "gelu_new"}),
    "eurobert": ("EuroBert", {"num_key_value_heads": 2}),
    "qwen3": ("Qwen3", GROUPED),
    "qwen3, heads of 64": ("Qwen3", {"num_key_value_heads": 1, "head_dim": 64, "num_hidden_layers": 2}),
    "qwen3, heads of 128": ("Qwen3", {"num_key_value_heads": 4, "head_dim": 128, "num_hidden_layers": 2}),
    "gemma3_text": ("Gemma3Text", GEMMA),
    "gemma3_text, both ways": ("Gemma3Text", {**GEMMA, "use_bidirectional_attention": True}),
    "gemma3_text, heads of 256": ("Gemma3Text", {**GEMMA, "head_dim": 256, "num_hidden_layers": 2}),
    "qwen2": ("Qwen2", {"num_key_value_heads": 2}),
    "qwen2, local at the end": (
        "Qwen2",
        {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 2},
    ),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": 8}),
    "llama": ("Llama", {**GROUPED, "num_key_value_heads": 1}),
}


def make_rotary(kind: str, **changes: Any) -> Any:
    """A model in eval mode, weights of visible size; ``changes`` of its configuration."""
    import torch
    import transformers

    name, own = CASES[kind]
    made = getattr(transformers, f"{name}Model", None)
    if made is None:
        import pytest

        pytest.skip(f"transformers {transformers.__version__} has no {name}Model")
    torch.manual_seed(0)
    model = made(made.config_class(**(SIZES | own | changes))).eval().requires_grad_(False)
    for weight in model.parameters():  # transformers starts biases at 0 and scales at 1: faults would hide
        if weight.ndim == 1:
            weight += 0.1 * torch.randn_like(weight)
    return model


def some_rows(lengths: list[int]) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, VOCABULARY, size=length).tolist() for length in lengths]
