"""Tiny random models of every family, as transformers makes them, without a tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from embedcache.encoder.families import FAMILIES

VOCABULARY = 99
OTHERS = {"deberta": "DebertaModel", "modernbert": "ModernBertModel",
          "prelayernorm": "RobertaPreLayerNormModel"}  # fmt: skip


@pytest.fixture
def make_model() -> Callable[..., Any]:
    """``make_model("bert", hidden_act="relu")``: a 3-layer, 32-wide model in eval mode, weights of visible size."""
    return _make_model


def _make_model(family: str, **changes: Any) -> Any:
    import torch
    import transformers

    known = FAMILIES.get(family)
    name = known.model.rpartition(".")[2] if known else OTHERS[family]
    settings = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                "intermediate_size": 48, "max_position_embeddings": 70, "initializer_range": 0.2}  # fmt: skip
    settings |= {"bos_token_id": None, "eos_token_id": None, "cls_token_id": None, "sep_token_id": None}
    keys = known.keys if known else {}
    settings |= known.settings if known else {}
    config = getattr(transformers, f"{name.removesuffix('Model')}Config")(
        **{keys.get(key, key): value for key, value in (settings | changes).items()}
    )
    torch.manual_seed(0)
    model = getattr(transformers, name)(config).eval().requires_grad_(False)
    for weight in model.parameters():  # transformers starts biases at 0 and scales at 1: faults would hide
        if weight.ndim == 1:
            weight += 0.1 * torch.randn_like(weight)
    return model


def attend_by_rows(q: Any, k: Any, v: Any, starts: Any, starts_k: Any, longest: int, longest_k: int) -> Any:
    """What torch's varlen_attn documents, row by row."""
    import torch

    assert starts.dtype == starts_k.dtype == torch.int32
    assert (longest, longest_k) == (int(starts.diff().max()), int(starts_k.diff().max()))
    out = torch.empty_like(q)
    for (begin, end), (begin_k, end_k) in zip(pairwise(starts), pairwise(starts_k), strict=True):
        one, keys, values = q[begin:end].transpose(0, 1), k[begin_k:end_k].transpose(0, 1), v[begin_k:end_k]
        scores = one @ keys.mT / q.shape[-1] ** 0.5
        out[begin:end] = (scores.softmax(-1) @ values.transpose(0, 1)).transpose(0, 1)
    return out
