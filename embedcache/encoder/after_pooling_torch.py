"""The steps after pooling in a prescribed vector as torch modules, through which gradients flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from embedcache.encoder.after_pooling import Prescribed


class Dense(nn.Module):
    """A linear layer with its activation; with a residual, its input is added."""

    def __init__(self, step: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        super().__init__()
        self.step = dict(step)
        self.linear = linear(weights["linear.weight"], weights.get("linear.bias"))
        own = weights.get("residual.weight")
        self.residual = None if own is None else linear(own, None)
        self.activation: nn.Module = getattr(nn, step["activation"])()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, D] to [batch, E]."""
        out: torch.Tensor = self.activation(self.linear(x))
        return out + (x if self.residual is None else self.residual(x)) if self.step["residual"] else out


class Normalize(nn.Module):
    """Scale vectors to unit length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, D] to the same."""
        return nn.functional.normalize(x, p=2, dim=-1)


class Cut(nn.Module):
    """Keep the first dimensions."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.dims, self.width = dims, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, width] to [batch, dims]."""
        return x[:, : self.dims]


def after_pooling(prescribed: Prescribed) -> list[nn.Module]:
    """The steps of a prescribed vector, in order."""
    modules: list[nn.Module] = []
    width = prescribed.width
    for step, weights in zip(prescribed.about["steps"], prescribed.weights, strict=True):
        if step["step"] == "dense":
            modules.append(Dense(step, weights))
        elif step["step"] == "layer_norm":
            norm = nn.LayerNorm(width)
            norm.load_state_dict({name: torch.from_numpy(weights[f"norm.{name}"]) for name in ("weight", "bias")})
            modules.append(norm)
        else:
            modules.append(Normalize() if step["step"] == "normalize" else Cut(step["dims"], width))
        width = step.get("out", step.get("dims", width))
    return modules


def linear(weight: Any, bias: Any) -> nn.Linear:
    """A linear layer with the weight [out, in] and the bias [out] or None, NumPy arrays."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias})
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module
