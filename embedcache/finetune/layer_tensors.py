"""The last layer of a transformers model as the tensors that the native engine trains, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedcache.encoder.families import Family
from embedcache.errors import EmbedcacheError
from embedcache.finetune.blocks import Shape

# transformers' names of the activations that the engine has
ACTIVATIONS = {
    "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_python": "gelu", "relu": "relu",
}  # fmt: skip


def shape_of(config: Any, family: Family, relative: np.ndarray | None = None) -> Shape:
    """Of one of a model's layers, by its configuration, for the first token's row.

    Args:
        config: transformers' configuration of the model.
        family: its record.
        relative: as Shape has it.

    Raises:
        EmbedcacheError: the engine lacks the activation.
    """

    def setting(name: str) -> Any:
        return getattr(config, family.keys.get(name, name))

    activation = setting("hidden_act")
    if activation not in ACTIVATIONS:
        raise EmbedcacheError(f"the native engine knows no activation {activation!r}: use --engine torch")
    epsilon = family.epsilon if family.epsilon is not None else float(config.layer_norm_eps)
    sizes = (setting("hidden_size"), setting("intermediate_size"), setting("num_attention_heads"))
    return Shape(*sizes, epsilon, ACTIVATIONS[activation], "first", relative)


def module_names(family: Family) -> dict[str, str]:
    """The engine's tensors by the names of a layer's parameters; the key's bias is not trained."""
    names = family.names
    matrices = zip(("query", "key", "value", "output"), names.attention, strict=True)
    found = {}
    for ours, theirs in (
        *matrices,
        ("norm1", names.norm1),
        ("up", names.up),
        ("down", names.down),
        ("norm2", names.norm2),
    ):
        found[f"{theirs}.weight"] = ours
        if ours != "key":
            found[f"{theirs}.bias"] = f"{ours}_bias"
    return found


def tensors_of(parameters: Mapping[str, Any], family: Family) -> dict[str, np.ndarray]:
    """The engine's tensors, float32 copies, of a layer's torch parameters by name."""
    names = module_names(family).items()
    return {ours: parameters[theirs].detach().float().cpu().numpy().copy() for theirs, ours in names}


def parameters_of(tensors: Mapping[str, np.ndarray], family: Family) -> dict[str, np.ndarray]:
    """The inverse of ``tensors_of``: arrays by the names of a layer's parameters, all but the key's bias."""
    return {theirs: tensors[ours] for theirs, ours in module_names(family).items()}
