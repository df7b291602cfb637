"""An encoder with rotary positions and a gated feed-forward part, laid out alike for every family.

csrc/encoder/rotary.h says what a layer computes. Nothing here imports torch: the numbers are torch tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Weights = tuple[Any, Any]  # (weight, bias or None): of a linear layer [out, in] and [out], of a norm [D] and [D]
ACTIVATIONS = {  # as configurations call them -> as the runner does
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
        linears: by the names of ``LINEARS``. norms: by those of ``NORMS``, as many as the layer has.
        window: the farthest key that a query sees; None: all.
        cosine, sine: float32 [max_length, head / 2], of the angles at each position.
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
        word: [V, D], times ``word_scale``. token_type: [D], added to every token, or None.
        norm: of the embeddings, or None. final_norm: of the last layer's output, or None.
        layers: first to last. heads: of queries. key_heads: of keys and values. head: the numbers of one.
        scale: of the scores. epsilon: of every norm. rms: whether norms take no mean off.
        causal: whether a token sees those before it and itself alone. activation: one of ``ACTIVATIONS``' values.
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
