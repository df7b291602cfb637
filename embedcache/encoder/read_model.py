"""Read the blueprint of a model that transformers has loaded.

Reading is strict: a model with any part that is not listed here, such as an adapter, cross attention or another kind of
position, has no blueprint, and plain transformers runs it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from embedcache.encoder.blueprint import Affine, Blueprint, assemble, plain_config
from embedcache.encoder.disentangled import with_distances
from embedcache.encoder.families import FAMILIES

CLASSES = {f"transformers.models.{family.model}": family for family in FAMILIES.values()}
# What a family's model may consist of, in addition to the classes of its own module.
_PARTS = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList, nn.Tanh, nn.ReLU)


def read_blueprint(model: Any, max_length: int) -> Blueprint | None:
    """The blueprint of a transformers model for rows of up to ``max_length`` tokens; None where it has none.

    It holds the model's own tensors, not copies.
    """
    family, config = CLASSES.get(f"{type(model).__module__}.{type(model).__name__}"), model.config
    if family is None or not plain_config(partial(getattr, config)) or not _known_parts(model):
        return None
    if not all(_has(config, name, value) for name, value in family.settings.items()):
        return None
    keys, weights = family.keys, _Weights(model)
    try:
        blueprint = assemble(
            family,
            lambda name, *default: getattr(config, keys.get(name, name), *default),
            weights,
            epsilon=weights.modules["embeddings.LayerNorm"].eps,
            uncounted=weights.modules["embeddings.position_embeddings"].padding_idx if family.positions else None,
            relative=lambda weight: _relative(model, weight, max_length),
        )
        if family.distances:
            embedding, norm = weights.table(family.distances[0]), weights.affine(family.distances[1])
            blueprint = with_distances(blueprint, embedding, norm, config, max_length)
    except (KeyError, AttributeError, IndexError):
        return None
    # Every weight must have a place in the blueprint, except the pooler's, which the vectors do not pass through.
    own = {name: weight for name, weight in model.named_parameters() if not name.startswith("pooler.")}
    return blueprint if own.keys() == weights.seen and _consistent(blueprint, list(own.values()), max_length) else None


class _Weights:
    """A model's own tensors by module name. ``seen`` holds the names of the parameters that were read."""

    def __init__(self, model: nn.Module) -> None:
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.seen: set[str] = set()

    def has(self, module: str) -> bool:
        return module in self.modules

    def table(self, module: str) -> Tensor:
        self.seen.add(f"{module}.weight")
        weight: Tensor = self.modules[module].weight
        return weight.detach()

    def affine(self, module: str) -> Affine:
        self.seen.update((f"{module}.weight", f"{module}.bias"))
        return self.modules[module].weight.detach(), self.modules[module].bias.detach()


def _has(config: Any, name: str, value: Any) -> bool:
    found = getattr(config, name, None)
    return bool(found == value) or (isinstance(found, (list, tuple)) and sorted(found) == value)


def _known_parts(model: nn.Module) -> bool:
    """Whether all modules are the family's, torch's or transformers' activations, and all LayerNorms share epsilon."""
    own = {type(model).__module__, "transformers.activations"}
    epsilons = {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)}
    return len(epsilons) == 1 and all(
        (type(module) in _PARTS or type(module).__module__ in own)
        and not (isinstance(module, nn.Embedding) and module.max_norm is not None)
        for module in model.modules()
    )


def _consistent(blueprint: Blueprint, weights: list[Tensor], max_length: int) -> bool:
    """Whether all weights have one dtype and device, the width divides into heads, and every token has a position."""
    width = blueprint.layers[0].query[0].shape if blueprint.layers else (0, 1)
    return (
        len({(weight.dtype, weight.device) for weight in weights}) == 1
        and width[0] == width[1]
        and width[0] % blueprint.heads == 0
        and (blueprint.position is None or len(blueprint.position) >= max_length)
    )


def _relative(model: Any, weight: Tensor, max_length: int) -> Tensor:
    """MPNet's bias by distance: float32 [heads, 2 * max_length - 1]."""
    distance = torch.arange(1 - max_length, max_length, device=weight.device)
    return weight[model.encoder.relative_position_bucket(distance)].T.float().contiguous()
