"""What is trained beside frozen weights: LoRA, by PEFT, and bottleneck adapters."""

from __future__ import annotations

from typing import Any

from torch import nn

from embedcache.encoder.bottleneck import adapt
from embedcache.encoder.families import FAMILIES, with_own_layers
from embedcache.encoder.tuned import ADAPTER, LORA_A, LORA_B
from embedcache.errors import EmbedcacheError
from embedcache.finetune.top import Top, layers_of, renumbered
from embedcache.finetune.trainee import Trainee


def add_lora(trainee: Trainee, rank: int, alpha: float | None, targets: tuple[str, ...]) -> None:
    """Put PEFT's LoRA beside linear layers; what is trained of the encoder is that alone.

    targets: the last parts of their names, such as "query"; none: every linear layer of the trained layers.

    Raises:
        EmbedcacheError: peft is missing; no linear layer has such a name.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise EmbedcacheError('--train lora needs peft: pip install "embedcache[peft]"') from None
    body, first = _body(trainee), _first(trainee)
    path, _ = layers_of(body)
    named = [(name, part) for name, part in body.named_modules() if name.startswith(f"{path}.")]
    linear = [name for name, part in named if isinstance(part, nn.Linear)]
    chosen = [name for name in linear if not targets or name.endswith(tuple(f".{target}" for target in targets))]
    if not chosen:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise EmbedcacheError(f"--targets {','.join(targets)}: no linear layer has such a name; there are {known}")
    alpha = 2.0 * rank if alpha is None else alpha
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen), body)  # type: ignore[arg-type]
    trainee.weights = {}
    for name in chosen:
        part: Any = body.get_submodule(name)
        stored = f"{renumbered(name, path, first)}.weight"
        trainee.weights[stored + LORA_A] = part.lora_A.default.weight
        trainee.weights[stored + LORA_B] = part.lora_B.default.weight
    trainee.kind, trainee.scale = "lora", alpha / rank
    _train_only(trainee)


def add_adapters(trainee: Trainee, rank: int) -> None:
    """Put bottlenecks behind both halves of every trained layer; they and the layers' LayerNorms are trained.

    Raises:
        EmbedcacheError: the family's parts are not known.
    """
    body, first = _body(trainee), _first(trainee)
    kind = body.config.model_type  # type: ignore[union-attr]
    family = with_own_layers(kind)
    if family is None:
        known = ", ".join(filter(with_own_layers, FAMILIES))
        raise EmbedcacheError(f"--train adapter is for {known}, not for {kind}: use --train lora")
    path, layers = layers_of(body)
    before, trainee.weights = trainee.weights, {}
    for number in range(len(layers)):
        for part in (family.names.attention[3], family.names.down):
            name = f"{path}.{number}.{part}"
            adapter = adapt(body, name, rank)
            stored = renumbered(name, path, first)
            trainee.weights |= {f"{stored}{ADAPTER}{key}": weight for key, weight in adapter.named_parameters()}
    norms = tuple(f".{norm}.{part}" for norm in (family.names.norm1, family.names.norm2) for part in ("weight", "bias"))
    trainee.weights |= {name: weight for name, weight in before.items() if name.endswith(norms)}
    trainee.kind = "adapter"
    _train_only(trainee)


def _body(trainee: Trainee) -> nn.Module:
    body = trainee.body.body
    assert body is not None  # only --train last on the first row alone has none
    return body


def _first(trainee: Trainee) -> int:
    return trainee.body.first if isinstance(trainee.body, Top) else 0


def _train_only(trainee: Trainee) -> None:
    trainee.body.requires_grad_(False)
    for weight in trainee.weights.values():
        weight.requires_grad_(True)
