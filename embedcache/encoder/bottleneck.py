"""Bottleneck adapters (Houlsby et al., 2019): small layers after the last linear layer of each half of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.encoder.tuned import ADAPTER


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))). It starts as the identity, since up is zero."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, rank), nn.Linear(rank, width)
        nn.init.normal_(self.down.weight, std=0.02)
        nn.init.zeros_(self.down.bias)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] to the same."""
        return x + self.up(nn.functional.gelu(self.down(x)))


class Adapted(nn.Module):
    """A linear layer, followed by its bottleneck."""

    def __init__(self, linear: nn.Module, adapter: Bottleneck) -> None:
        super().__init__()
        self.linear, self.adapter = linear, adapter

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        out: Tensor = self.adapter(self.linear(x))
        return out


def adapt(model: nn.Module, name: str, rank: int) -> Bottleneck:
    """Put a new bottleneck after the linear layer of that name."""
    parent, _, last = name.rpartition(".")
    linear: Any = model.get_submodule(name)
    adapter = Bottleneck(linear.out_features, rank)
    setattr(model.get_submodule(parent), last, Adapted(linear, adapter))
    return adapter


def insert_adapters(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put stored bottlenecks into a model, and replace its tensors by the other stored ones (LayerNorms).

    Args:
        model: of transformers; it is changed.
        arrays: the stored tensors by name.

    Raises:
        KeyError, ValueError: they do not fit the model.
    """
    own, rest = dict(model.named_parameters()), dict(arrays)
    for name in sorted({key.partition(ADAPTER)[0] for key in arrays if ADAPTER in key}):
        weights = {k: torch.from_numpy(rest.pop(f"{name}{ADAPTER}{k}")) for k in _PARTS}
        try:
            adapter = adapt(model, name, len(weights["down.bias"]))
            adapter.load_state_dict(weights)
        except (AttributeError, RuntimeError) as error:
            raise ValueError(f"{name}: {error}") from None
        adapter.to(next(iter(own.values())).dtype)
    with torch.no_grad():
        for key, array in rest.items():
            if own[key].shape != array.shape:
                raise ValueError(f"{key} has the shape {list(array.shape)}")
            own[key].copy_(torch.from_numpy(array))


_PARTS = ("down.weight", "down.bias", "up.weight", "up.bias")
