"""The top layers of a transformers model, fed with the states that a cache holds in place of the embeddings' output.

For any family: a copy of the model as loaded, without the layers below, whose embeddings hand the states through.
Masks, positions by rotation, final norms and all else are the model's own. ``check_top`` compares it with the whole
model.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from embedcache.encoder.families import Family, with_own_layers
from embedcache.errors import EmbedcacheError
from embedcache.finetune.first_row import FirstRow, distances

NORMS = ("norm", "final_norm", "final_layer_norm", "ln_f")  # of the whole model, behind its last layer
DROPS = ("dropout_prob", "attention_dropout")  # numbers of attention modules, beside nn.Dropout
CLOSE = 2e-4  # of the largest number, in float32


class Through(nn.Module):
    """In the place of the embeddings: the states [n, L, D] that are among what it is called with."""

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """[n, L, D]."""
        return next(one for one in (*inputs, *named.values()) if isinstance(one, Tensor) and one.dim() == 3)


def layers_of(model: Any) -> tuple[str, nn.ModuleList]:
    """The list of a model's layers, and its name.

    Raises:
        EmbedcacheError: it has none with one module for each layer.
    """
    family, count = with_own_layers(model.config.model_type), model.config.num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count and (not family or name == family.names.layers):
            return name, module
    raise EmbedcacheError(
        f"{model.config.model_type} has no list of {count} layers of their own (ALBERT's share their weights): "
        "use --train full"
    )


def renumbered(name: str, path: str, first: int) -> str:
    """The name in the whole model of a part of a layer in its top, whose list of layers is ``path``."""
    number, _, rest = name.removeprefix(f"{path}.").partition(".")
    return f"{path}.{first + int(number)}.{rest}"


def copy_top(model: Any, keep: int) -> nn.Module:
    """A copy of the model's last layers and what follows them; it takes ``inputs_embeds`` [n, L, D]."""
    path, layers = layers_of(model)
    memo: dict[int, Any] = {id(layer): nn.Identity() for layer in layers[: len(layers) - keep]}
    for name in ("embeddings", "embeddings_project", "embed_tokens", "wte", "word_embedding"):
        if isinstance(part := getattr(model, name, None), nn.Module):
            memo[id(part)] = Through()
    if isinstance(pooler := getattr(model, "pooler", None), nn.Module):
        memo[id(pooler)] = None
    top: nn.Module = copy.deepcopy(model, memo)
    parent, _, last = path.rpartition(".")
    kept = nn.ModuleList(list(top.get_submodule(path).children())[len(layers) - keep :])
    setattr(top.get_submodule(parent), last, kept)
    config: Any = top.config
    config.num_hidden_layers, config.use_cache = keep, False  # a cache would be numbered by the whole model's layers
    if isinstance(kinds := getattr(config, "layer_types", None), (list, tuple)):
        config.layer_types = list(kinds)[len(layers) - keep :]
    return top


class Top(nn.Module):
    """The last ``keep`` layers.

    Attributes:
        body: they, or where ``row`` computes the last of them those below it; None where nothing is below.
        row: the last layer for the first token alone, or None.
    """

    def __init__(self, model: Any, keep: int, first_alone: bool, longest: int) -> None:
        super().__init__()
        family = with_own_layers(model.config.model_type)
        top = copy_top(model, keep)
        self.path, layers = layers_of(top)
        self.first, self.row = model.config.num_hidden_layers - keep, None
        self.body: nn.Module | None = top
        if first_alone and family is not None:
            self.row = FirstRow(layers[-1], family, model.config, distances(model, family, 0, longest))
            setattr(top.get_submodule(self.path.rpartition(".")[0]), self.path.rpartition(".")[2], layers[:-1])
            top.config.num_hidden_layers = keep - 1  # type: ignore[union-attr]
            self.body = top if keep > 1 else None

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x float32 [n, L, D], mask bool [n, L]; to [n, L, D], or with ``row`` [n, 1, D]."""
        if self.body is not None:
            x = self.body(inputs_embeds=x, attention_mask=mask.long(), return_dict=True).last_hidden_state
        return x if self.row is None else self.row(x, mask)

    def weights(self) -> dict[str, nn.Parameter]:
        """What is trained, by its name in the model: the layers' own, and the norm behind the last.

        What all layers share, such as MPNet's bias by distance, is not: the layers below were computed with it.
        """
        found: dict[str, nn.Parameter] = {}
        for name, weight in [] if self.body is None else self.body.named_parameters():
            if name.startswith(f"{self.path}."):
                found[renumbered(name, self.path, self.first)] = weight
            elif name.partition(".")[0] in NORMS:
                found[name] = weight
        if self.row is not None:
            below = 0 if self.body is None else len(self.body.get_submodule(self.path))  # type: ignore[arg-type]
            named = self.row.layer.named_parameters()
            found |= {f"{self.path}.{self.first + below}.{name}": weight for name, weight in named}
        return found


class WholeModel(nn.Module):
    """A copy of the whole model, from token ids on."""

    def __init__(self, model: Any, checkpointing: bool = False) -> None:
        super().__init__()
        pooler = getattr(model, "pooler", None)
        memo: dict[int, Any] = {id(pooler): None} if isinstance(pooler, nn.Module) else {}
        self.body: Any = copy.deepcopy(model, memo)
        if checkpointing:
            _checkpoint(self.body)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x int64 [n, L], mask bool [n, L]; to [n, L, D]."""
        out: Tensor = self.body(input_ids=x, attention_mask=mask.long(), return_dict=True).last_hidden_state
        return out

    def weights(self) -> dict[str, nn.Parameter]:
        """All of them, by name."""
        return dict(self.body.named_parameters())


def _checkpoint(model: Any) -> None:
    """Keep the inputs of layers alone, and compute the rest again for the gradients. Raises EmbedcacheError."""
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    try:
        enable({"use_reentrant": False})  # the reentrant kind loses gradients where the first layer's input has none
    except ValueError:
        raise EmbedcacheError(
            f"--gradient-checkpointing: {model.config.model_type} does not support it; use --accumulate, or a smaller "
            "--batch-size"
        ) from None


def set_dropout(module: nn.Module, share: float) -> None:
    """The share that every part of it drops while it trains."""
    for part in module.modules():
        if isinstance(part, (nn.Dropout, FirstRow)):
            part.p = share
        for name in DROPS:
            if isinstance(getattr(part, name, None), float):
                setattr(part, name, share)


def known_by_parts(model: Any) -> bool:
    """Whether its family is known, and its last layer has that family's parts and no other."""
    family: Family | None = with_own_layers(model.config.model_type)
    if family is None:
        return False
    layers = layers_of(model)[1]
    known = (*family.names.attention, family.names.norm1, family.names.up, family.names.down, family.names.norm2)
    parts = {name for name, part in layers[-1].named_modules() if next(part.parameters(False), None) is not None}
    return parts == set(known)


def first_alone(model: Any, pooling: str) -> bool:
    """Whether the last layer can be computed for the first token alone: pooling cls, a family known by its parts."""
    return pooling == "cls" and known_by_parts(model)


@torch.no_grad()
def check_top(model: Any, top: Top, ids: Tensor, mask: Tensor) -> Tensor:
    """Compare it with the whole model on some rows; returns what its first layer reads, float32 [n, L, D].

    Raises:
        EmbedcacheError: they differ.
    """
    top.eval()
    try:
        whole = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True, return_dict=True)
        states: Tensor = whole.hidden_states[top.first].float()
        theirs, ours = whole.last_hidden_state, top(states, mask)
        theirs = theirs[:, :1] if ours.shape[1] == 1 else theirs
        seen = mask[:, : ours.shape[1]]
        same = bool(((ours - theirs)[seen].abs().max() <= CLOSE * theirs[seen].abs().max()).item())
    except Exception as error:  # an architecture's own code raises anything
        raise EmbedcacheError(
            f"the layers of {model.config.model_type} cannot be fed with stored states "
            f"({' '.join(str(error).split())[:100]}): use --train full"
        ) from error
    if not same:
        raise EmbedcacheError(
            f"the top layers of {model.config.model_type} give other vectors from stored states than the whole model: "
            "use --train full"
        )
    return states
