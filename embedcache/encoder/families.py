"""What a post-LayerNorm encoder is made of: BERT, RoBERTa, XLM-R, CamemBERT, MPNet, DistilBERT and ELECTRA.

Nothing here imports torch: a blueprint's numbers are torch tensors (see ``blueprint``) or NumPy arrays (``direct``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Affine = tuple[Any, Any]  # (weight, bias): of a linear layer [out, in] and [out], of a LayerNorm [D] and [D]

# Where each family keeps what. The attention's names are those of query, key, value and output.
_BERT = {
    "layers": "encoder.layer",
    "attention": ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    "norm1": "attention.output.LayerNorm", "norm2": "output.LayerNorm",
    "up": "intermediate.dense", "down": "output.dense",
}  # fmt: skip
_MPNET = _BERT | {
    "attention": ("attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o"),
    "norm1": "attention.LayerNorm",
}
_DISTILBERT = {
    "layers": "transformer.layer",
    "attention": ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
    "norm1": "sa_layer_norm", "norm2": "output_layer_norm",
    "up": "ffn.lin1", "down": "ffn.lin2",
}  # fmt: skip
NAMES: dict[str, dict[str, Any]] = {  # by the model_type of its configuration
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "mpnet": _MPNET,
    "distilbert": _DISTILBERT,
}
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer's weights, as ``torch.nn.Linear`` keeps them; the model's own tensors, no copies.

    Attributes:
        query, key, value, output: [D, D] and [D]. norm1: of attention + residual, [D] and [D].
        up: [F, D] and [F]. down: [D, F] and [D]. norm2: of feed-forward + residual.
    """

    query: Affine
    key: Affine
    value: Affine
    output: Affine
    norm1: Affine
    up: Affine
    down: Affine
    norm2: Affine


@dataclass(frozen=True)
class Blueprint:
    """An encoder's weights, all of one dtype on one device.

    Attributes:
        word: [V, E]. position: [P, E], row 0 is the first token's. token_type: [E], the row of type 0, or None.
        norm: the embeddings' LayerNorm, [E] and [E]. projection: ELECTRA's from E to D, [D, E] and [D], or None.
        layers: first to last. heads: of D // heads columns each. epsilon: of every LayerNorm.
        activation: "gelu" (by erf), "gelu_tanh" or "relu".
        relative: MPNet's float32 [heads, 2 * M - 1], added to the scaled scores at index j - i + M - 1 for query i and
            key j, M being max_length; or None.
        uncounted: the token id that RoBERTa and MPNet skip when they count positions: a row that holds it (a text
            with a literal "<pad>") cannot be computed from the blueprint. None where there is no such id.
    """

    word: Any
    position: Any
    token_type: Any
    norm: Affine
    projection: Affine | None
    layers: list[Layer]
    heads: int
    epsilon: float
    activation: str
    relative: Any
    uncounted: int | None


def assemble(
    model_type: str,
    layers: int,
    has: Callable[[str], bool],
    table: Callable[[str], Any],
    affine: Callable[[str], Affine],
    *,
    heads: int,
    epsilon: float,
    activation: str,
    uncounted: int | None,
    relative: Callable[[Any], Any],
) -> Blueprint:
    """The blueprint of a family's encoder.

    ``has`` tells whether there is a module of a name, ``table`` gives its weight, ``affine`` weight and bias;
    ``relative`` makes MPNet's bias by distance of its embedding [buckets, heads]. What these raise comes through.
    """
    names, types = NAMES[model_type], "embeddings.token_type_embeddings"

    def layer(prefix: str) -> Layer:
        query, key, value, output = (affine(f"{prefix}.{name}") for name in names["attention"])
        norm1, up, down, norm2 = (affine(f"{prefix}.{names[part]}") for part in ("norm1", "up", "down", "norm2"))
        return Layer(query, key, value, output, norm1, up, down, norm2)

    return Blueprint(
        word=table("embeddings.word_embeddings"),
        position=table("embeddings.position_embeddings")[0 if uncounted is None else uncounted + 1 :],
        token_type=table(types)[0] if has(types) else None,
        norm=affine("embeddings.LayerNorm"),
        projection=affine("embeddings_project") if has("embeddings_project") else None,
        layers=[layer(f"{names['layers']}.{i}") for i in range(layers)],
        heads=heads,
        epsilon=epsilon,
        activation=ACTIVATIONS[activation],
        relative=relative(table("encoder.relative_attention_bias")) if names is _MPNET else None,
        uncounted=uncounted,
    )


def plain_config(setting: Callable[..., Any]) -> bool:
    """Whether a configuration has no setting that makes the forward pass another one; ``setting(name, default)``."""
    off = ("is_decoder", "add_cross_attention", "is_encoder_decoder")
    absolute = setting("position_embedding_type", "absolute") in ("absolute", None)
    return absolute and not any(setting(name, False) for name in off)
