"""The blueprint of a model that transformers has loaded.

The runners in ``packed`` and ``native`` compute from this alone. It is read strictly: a model with any part that is not
listed here, be it an adapter, cross attention or another kind of position, has no blueprint, and plain transformers
runs it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from embedcache.encoder.families import Affine, Blueprint, assemble, plain_config

MODEL_TYPES = {
    "transformers.models.bert.modeling_bert.BertModel": "bert",
    "transformers.models.roberta.modeling_roberta.RobertaModel": "roberta",
    "transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaModel": "xlm-roberta",
    "transformers.models.camembert.modeling_camembert.CamembertModel": "camembert",
    "transformers.models.electra.modeling_electra.ElectraModel": "electra",
    "transformers.models.mpnet.modeling_mpnet.MPNetModel": "mpnet",
    "transformers.models.distilbert.modeling_distilbert.DistilBertModel": "distilbert",
}
# What a family's model may be made of, beside the classes of its own module.
_PARTS = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList, nn.Tanh, nn.ReLU)


def read_blueprint(model: Any, max_length: int) -> Blueprint | None:
    """A transformers model's blueprint for rows of up to ``max_length`` tokens; None for any other architecture.

    Its numbers are the model's own tensors, no copies.
    """
    kind, config = MODEL_TYPES.get(f"{type(model).__module__}.{type(model).__name__}"), model.config
    if kind is None or not plain_config(partial(getattr, config)) or not _known_parts(model):
        return None
    modules = dict(model.named_modules())
    seen: set[str] = set()  # the parameters that the blueprint uses

    def affine(name: str) -> Affine:
        seen.update((f"{name}.weight", f"{name}.bias"))
        return modules[name].weight.detach(), modules[name].bias.detach()

    def table(name: str) -> Tensor:
        seen.add(f"{name}.weight")
        return modules[name].weight.detach()

    try:
        blueprint = assemble(
            kind,
            config.num_hidden_layers,
            modules.__contains__,
            table,
            affine,
            heads=config.num_attention_heads,
            epsilon=modules["embeddings.LayerNorm"].eps,
            activation=config.hidden_act if hasattr(config, "hidden_act") else config.activation,
            uncounted=modules["embeddings.position_embeddings"].padding_idx,
            relative=lambda weight: _relative(model, weight, max_length),
        )
    except (KeyError, AttributeError, IndexError):
        return None
    # Every weight must have been understood. The pooler comes after the vectors.
    weights = {name: weight for name, weight in model.named_parameters() if not name.startswith("pooler.")}
    return blueprint if weights.keys() == seen and _consistent(blueprint, list(weights.values()), max_length) else None


def _known_parts(model: nn.Module) -> bool:
    """Only modules of the family itself, of torch and of transformers' activations, and one epsilon for all."""
    own = {type(model).__module__, "transformers.activations"}
    epsilons = {module.eps for module in model.modules() if isinstance(module, nn.LayerNorm)}
    return len(epsilons) == 1 and all(
        (type(module) in _PARTS or type(module).__module__ in own)
        and not (isinstance(module, nn.Embedding) and module.max_norm is not None)
        for module in model.modules()
    )


def _consistent(blueprint: Blueprint, weights: list[Tensor], max_length: int) -> bool:
    """One dtype, one device; whole heads; positions for every token."""
    width = blueprint.layers[0].query[0].shape if blueprint.layers else (0, 1)
    return (
        len({(weight.dtype, weight.device) for weight in weights}) == 1
        and width[0] == width[1]
        and width[0] % blueprint.heads == 0
        and len(blueprint.position) >= max_length
    )


def _relative(model: Any, weight: Tensor, max_length: int) -> Tensor:
    """MPNet's bias by distance: float32 [heads, 2 * max_length - 1]."""
    distance = torch.arange(1 - max_length, max_length, device=weight.device)
    return weight[model.encoder.relative_position_bucket(distance)].T.float().contiguous()
