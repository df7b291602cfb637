"""What follows the pooling in a prescribed vector, as modules of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from embedcache.encoder.after_pooling_torch import Cut, Dense, Normalize, linear
from embedcache.export.place import write_json


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
        write_dense(folder, linear(torch.eye(module.width)[: module.dims].numpy(), None), "linear.Identity")
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
