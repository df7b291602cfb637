"""Tiny random models of every family, as transformers makes them, without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

VOCABULARY = 99


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """``make_model("bert", hidden_act="relu")``: a 3-layer, 32-wide model in eval mode, weights of visible size."""
    return _make_model


def _make_model(family: str, **changes: Any) -> Any:
    import torch
    import transformers

    names = {"bert": "Bert", "roberta": "Roberta", "xlm-r": "XLMRoberta", "camembert": "Camembert", "mpnet": "MPNet",
             "electra": "Electra", "distilbert": "DistilBert", "albert": "Albert", "deberta": "DebertaV2",
             "modernbert": "ModernBert", "prelayernorm": "RobertaPreLayerNorm"}  # fmt: skip
    settings = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                "intermediate_size": 48, "max_position_embeddings": 70, "initializer_range": 0.2}  # fmt: skip
    settings |= {"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
    if family == "distilbert":
        renamed = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
                   "intermediate_size": "hidden_dim", "hidden_act": "activation"}  # fmt: skip
        settings, changes = ({renamed.get(k, k): v for k, v in part.items()} for part in (settings, changes))
    config = getattr(transformers, f"{names[family]}Config")(**settings | changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{names[family]}Model")(config).eval().requires_grad_(False)
    for weight in model.parameters():  # transformers starts biases at 0 and scales at 1: faults would hide
        if weight.ndim == 1:
            weight += 0.1 * torch.randn_like(weight)
    return model
