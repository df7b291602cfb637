"""A post-LayerNorm encoder as plain tensors: BERT, RoBERTa, XLM-R, CamemBERT, MPNet, DistilBERT and ELECTRA.

The runners in ``packed`` and ``native`` compute from this alone. It is read strictly: a model with any part that is not
listed here, be it an adapter, cross attention or another kind of position, has no blueprint, and plain transformers
runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Affine = tuple[Tensor, Tensor]  # (weight, bias): of a linear layer [out, in] and [out], of a LayerNorm [D] and [D]

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
FAMILIES: dict[str, dict[str, Any]] = {
    "transformers.models.bert.modeling_bert.BertModel": _BERT,
    "transformers.models.roberta.modeling_roberta.RobertaModel": _BERT,
    "transformers.models.xlm_roberta.modeling_xlm_roberta.XLMRobertaModel": _BERT,
    "transformers.models.camembert.modeling_camembert.CamembertModel": _BERT,
    "transformers.models.electra.modeling_electra.ElectraModel": _BERT,
    "transformers.models.mpnet.modeling_mpnet.MPNetModel": _MPNET,
    "transformers.models.distilbert.modeling_distilbert.DistilBertModel": _DISTILBERT,
}
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
}  # fmt: skip
# What a family's model may be made of, beside the classes of its own module.
_PARTS = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.ModuleList, nn.Tanh, nn.ReLU)


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

    word: Tensor
    position: Tensor
    token_type: Tensor | None
    norm: Affine
    projection: Affine | None
    layers: list[Layer]
    heads: int
    epsilon: float
    activation: str
    relative: Tensor | None
    uncounted: int | None


def read_blueprint(model: Any, max_length: int) -> Blueprint | None:
    """A transformers model's blueprint for rows of up to ``max_length`` tokens; None for any other architecture."""
    kind = f"{type(model).__module__}.{type(model).__name__}"
    names, config = FAMILIES.get(kind), model.config
    if names is None or not _plain(config) or not _known_parts(model):
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
        layers = [_layer(f"{names['layers']}.{i}", names, affine) for i in range(config.num_hidden_layers)]
        uncounted = modules["embeddings.position_embeddings"].padding_idx
        types = "embeddings.token_type_embeddings"
        blueprint = Blueprint(
            word=table("embeddings.word_embeddings"),
            position=table("embeddings.position_embeddings")[0 if uncounted is None else uncounted + 1 :],
            token_type=table(types)[0] if types in modules else None,
            norm=affine("embeddings.LayerNorm"),
            projection=affine("embeddings_project") if "embeddings_project" in modules else None,
            layers=layers,
            heads=config.num_attention_heads,
            epsilon=modules["embeddings.LayerNorm"].eps,
            activation=ACTIVATIONS[config.hidden_act if hasattr(config, "hidden_act") else config.activation],
            relative=_relative(model, table, max_length) if names is _MPNET else None,
            uncounted=uncounted,
        )
    except (KeyError, AttributeError, IndexError):
        return None
    # Every weight must have been understood. The pooler comes after the vectors.
    weights = {name: weight for name, weight in model.named_parameters() if not name.startswith("pooler.")}
    return blueprint if weights.keys() == seen and _consistent(blueprint, list(weights.values()), max_length) else None


def _layer(prefix: str, names: dict[str, Any], affine: Any) -> Layer:
    query, key, value, output = (affine(f"{prefix}.{name}") for name in names["attention"])
    norm1, up, down, norm2 = (affine(f"{prefix}.{names[part]}") for part in ("norm1", "up", "down", "norm2"))
    return Layer(query, key, value, output, norm1, up, down, norm2)


def _plain(config: Any) -> bool:
    """No setting that makes the forward pass another one."""
    off = ("is_decoder", "add_cross_attention", "is_encoder_decoder")
    return getattr(config, "position_embedding_type", "absolute") in ("absolute", None) and not any(
        getattr(config, name, False) for name in off
    )


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


def _relative(model: Any, table: Any, max_length: int) -> Tensor:
    """MPNet's bias by distance: float32 [heads, 2 * max_length - 1]."""
    weight = table("encoder.relative_attention_bias")
    distance = torch.arange(1 - max_length, max_length, device=weight.device)
    return weight[model.encoder.relative_position_bucket(distance)].T.float().contiguous()
