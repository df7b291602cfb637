"""A post-LayerNorm encoder as the runners compute it: its weights in one layout for every family.

Nothing here imports torch: a blueprint holds torch tensors (from ``read_model``) or NumPy arrays (from
``load_without_torch``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from embedcache.encoder.families import Family

_POSITIONS = "embeddings.position_embeddings"
Affine = tuple[Any, Any]  # (weight, bias): of a linear layer [out, in] and [out], of a LayerNorm [D] and [D]
ACTIVATIONS = {  # the name in config.json -> the runners' name
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One layer's weights, (weight, bias) each, in the layout of ``torch.nn.Linear``. They are not copies.

    Attributes:
        query, key, value, output: of attention, [D, D] and [D].
        norm1: the LayerNorm after attention and residual, [D] and [D].
        up, down: the feed-forward part, [F, D] and [F], [D, F] and [D].
        norm2: the LayerNorm after feed-forward and residual, [D] and [D].
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
class Distances:
    """What scores depend on besides query and key, see ``disentangled``.

    Attributes:
        bucket: int32 [2 * M - 1] for M = max_length: query i and key j meet in the bucket at index j - i + M - 1. It
            ascends.
        key, query: of each layer float32 [buckets, D]: what queries and what keys are multiplied by.
    """

    bucket: Any
    key: list[Any]
    query: list[Any]


@dataclass(frozen=True)
class Blueprint:
    """An encoder's weights, all of one dtype on one device.

    Attributes:
        word: the token embeddings, [V, E].
        position: the position embeddings, [P, E]; row 0 is the first token's. None where the family has none.
        token_type: [E], added to every token, or None.
        norm: the embeddings' LayerNorm, [E] and [E].
        projection: from E to D, [D, E] and [D], or None.
        layers: first to last; those that share their weights are the same object.
        heads: the number of attention heads, of D // heads columns each.
        epsilon: of every LayerNorm.
        activation: "gelu" (by erf), "gelu_tanh" or "relu".
        relative: float32 [heads, 2 * M - 1] for M = max_length: index j - i + M - 1 is added to the scaled score of
            query i and key j. None where the family has no such bias.
        uncounted: the token id that is skipped when positions are counted. A row that holds it (a text with a literal
            "<pad>") cannot be computed from the blueprint. None where there is no such id.
        distances: None where scores do not depend on distances by content.
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
    distances: Distances | None = None


class Weights(Protocol):
    """Where ``assemble`` finds a model's weights, by module name. An unknown name raises any exception."""

    def has(self, module: str) -> bool:
        """Whether there is a module of that name."""

    def table(self, module: str) -> Any:
        """An embedding's weight, [rows, E]."""

    def affine(self, module: str) -> Affine:
        """Weight and bias of a linear layer or a LayerNorm."""


def assemble(
    family: Family,
    setting: Callable[..., Any],
    weights: Weights,
    *,
    epsilon: float,
    uncounted: int | None,
    relative: Callable[[Any], Any],
) -> Blueprint:
    """Assemble the blueprint of a family's model.

    Args:
        family: its record.
        setting: ``setting(name)`` or ``setting(name, default)`` returns a value of its configuration, by BERT's name.
        weights: returns the weights of its modules.
        epsilon: of every LayerNorm.
        uncounted: the token id that is skipped when positions are counted, or None.
        relative: turns its embedding [buckets, heads] into the bias by distance, see ``Blueprint.relative``.

    Raises:
        Exception: whatever the three callables raise, such as a KeyError for a missing weight.
    """
    names = family.names

    @cache
    def layer(prefix: str) -> Layer:
        query, key, value, output = (weights.affine(f"{prefix}.{name}") for name in names.attention)
        norm1, up, down, norm2 = (
            weights.affine(f"{prefix}.{name}") for name in (names.norm1, names.up, names.down, names.norm2)
        )
        return Layer(query, key, value, output, norm1, up, down, norm2)

    types = [weights.table(name)[0] for name, switch in family.types.items() if not switch or setting(switch, False)]
    projects = family.projection is not None and weights.has(family.projection)
    return Blueprint(
        word=weights.table("embeddings.word_embeddings"),
        position=weights.table(_POSITIONS)[0 if uncounted is None else uncounted + 1 :] if family.positions else None,
        token_type=sum(types[1:], start=types[0]) if types else None,
        norm=weights.affine("embeddings.LayerNorm"),
        projection=weights.affine(family.projection) if family.projection and projects else None,
        layers=[layer(name) for name in family.layer_names(setting)],
        heads=setting("num_attention_heads"),
        epsilon=epsilon,
        activation=ACTIVATIONS[setting("hidden_act")],
        relative=relative(weights.table(family.relative)) if family.relative else None,
        uncounted=uncounted,
    )


def plain_config(setting: Callable[..., Any]) -> bool:
    """Whether no setting of a configuration changes the forward pass; called as ``setting(name, default)``."""
    off = ("is_decoder", "add_cross_attention", "is_encoder_decoder")
    absolute = setting("position_embedding_type", "absolute") in ("absolute", None)
    return absolute and not any(setting(name, False) for name in off)
