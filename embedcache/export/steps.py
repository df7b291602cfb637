"""What follows the pooling in a prescribed vector, as torch modules and as modules of sentence-transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import nn

from embedcache.export.place import write_json

if TYPE_CHECKING:
    from embedcache.encoder.after_pooling import Prescribed


class Dense(nn.Module):
    """A linear layer with its activation, added to what came in where the step says so."""

    def __init__(self, step: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
        super().__init__()
        self.step = dict(step)
        self.linear = _linear(weights["linear.weight"], weights.get("linear.bias"))
        own = weights.get("residual.weight")
        self.residual = None if own is None else _linear(own, None)
        self.activation: nn.Module = getattr(nn, step["activation"])()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, D] to [batch, E]."""
        out: torch.Tensor = self.activation(self.linear(x))
        return out + (x if self.residual is None else self.residual(x)) if self.step["residual"] else out


class Normalize(nn.Module):
    """To unit length."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, D]."""
        return nn.functional.normalize(x, p=2, dim=-1)


class Cut(nn.Module):
    """To the first dimensions."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.dims, self.width = dims, width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 [batch, width] to [batch, dims]."""
        return x[:, : self.dims]


def after_pooling(prescribed: Prescribed) -> list[nn.Module]:
    """The steps of a prescribed vector."""
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


def write_step(folder: Path, module: nn.Module) -> str:
    """Write a step as sentence-transformers 2 and later read it; returns the name of their class."""
    folder.mkdir()
    if isinstance(module, Normalize):
        return "Normalize"
    if isinstance(module, nn.LayerNorm):
        write_json(folder / "config.json", {"dimension": module.normalized_shape[0]})
        save_file({f"norm.{name}": one.detach() for name, one in module.named_parameters()}, folder / WEIGHTS)
        return "LayerNorm"
    if isinstance(module, Cut):  # they have no module for it: the first rows of the unit matrix, which change no digit
        write_dense(folder, _linear(torch.eye(module.width)[: module.dims].numpy(), None), "linear.Identity")
        return "Dense"
    assert isinstance(module, Dense)
    activation = (
        "linear.Identity" if module.step["activation"] == "Identity" else (f"activation.{module.step['activation']}")
    )
    write_dense(folder, module.linear, activation, module.residual, added=module.step["residual"])
    return "Dense"


WEIGHTS = "model.safetensors"


def write_dense(
    folder: Path, module: nn.Linear, activation: str, residual: nn.Linear | None = None, *, added: bool = False
) -> None:
    """A linear layer as their Dense, in a folder that is there."""
    shape = {"in_features": module.in_features, "out_features": module.out_features, "bias": module.bias is not None}
    more = {"use_residual": True} if added else {}
    write_json(folder / "config.json", {**shape, "activation_function": f"torch.nn.modules.{activation}", **more})
    weights = {f"linear.{name}": one.detach() for name, one in module.named_parameters()}
    weights |= {} if residual is None else {"residual.weight": residual.weight.detach()}
    save_file(weights, folder / WEIGHTS)


def _linear(weight: Any, bias: Any) -> nn.Linear:
    """Of NumPy arrays."""
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias})
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return module
