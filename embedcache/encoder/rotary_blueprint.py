"""An encoder with rotary positions and a gated feed-forward part, in one layout for every family.

csrc/encoder/rotary.h defines what a layer computes. The weights are torch tensors, but nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Weights = tuple[Any, Any]  # (weight, bias or None): of a linear layer [out, in] and [out], of a norm [D] and [D]
ACTIVATIONS = {  # the name in config.json -> the runner's name
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu", "silu": "silu", "swish": "silu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip
LINEARS = ("query", "key", "value", "output", "gate", "up", "down")
NORMS = (
    "before_attention", "after_attention", "sum_attention", "before_glu", "after_glu", "sum_glu", "query_norm",
    "key_norm",
)  # fmt: skip


@dataclass(frozen=True)
class RotaryLayer:
    """One layer.

    Attributes:
        linears: the linear layers, by the names in ``LINEARS``.
        norms: the norms that the layer has, by the names in ``NORMS``.
        window: how many tokens away a query sees keys; None: it sees all.
        cosine, sine: of the angles at each position, float32 [max_length, head / 2].
    """

    linears: dict[str, Weights]
    norms: dict[str, Weights]
    window: int | None
    cosine: Any
    sine: Any


@dataclass(frozen=True)
class RotaryBlueprint:
    """An encoder's weights, all of one dtype.

    Attributes:
        word: the token embeddings, [V, D].
        word_scale: what they are multiplied by.
        token_type: [D], added to every token, or None.
        norm: of the embeddings, or None.
        final_norm: of the last layer's output, or None.
        layers: first to last.
        heads: the number of query heads.
        key_heads: the number of heads of keys and values.
        head: the width of a head.
        scale: of the scores.
        epsilon: of every norm.
        rms: whether norms do not subtract the mean.
        causal: whether a token sees only itself and the tokens before it.
        activation: one of the values in ``ACTIVATIONS``.
    """

    word: Any
    word_scale: float
    token_type: Any
    norm: Weights | None
    final_norm: Weights | None
    layers: list[RotaryLayer]
    heads: int
    key_heads: int
    head: int
    scale: float
    epsilon: float
    rms: bool
    causal: bool
    activation: str
