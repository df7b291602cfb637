"""Read the rotary blueprint of a model that transformers has loaded.

Reading is as strict as in ``read_model``: a model with any unknown part, setting or weight has no blueprint, and plain
transformers runs it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from embedcache.encoder.kinds import looks_both_ways
from embedcache.encoder.rotary_blueprint import ACTIVATIONS, RotaryBlueprint, RotaryLayer, Weights
from embedcache.encoder.rotary_families import ROTARY_FAMILIES, RotaryFamily

CLASSES = {f"transformers.models.{family.model}": family for family in ROTARY_FAMILIES.values()}
# What a family's model may consist of, in addition to the classes of its own module.
_PARTS = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Dropout, nn.Identity, nn.ModuleList, nn.Tanh, nn.ReLU, nn.SiLU)
# Settings that change the forward pass, and the values at which they do not.
_OFF = {
    "attn_logit_softcapping": None, "is_decoder": False, "add_cross_attention": False, "is_encoder_decoder": False,
    "quantization_config": None, "attention_chunk_size": None,
}  # fmt: skip


class UnknownError(Exception):
    """A part, a setting or a weight of the model is unknown."""


def read_rotary(model: Any, max_length: int) -> RotaryBlueprint | None:
    """The rotary blueprint of a transformers model for rows of up to ``max_length`` tokens; None where it has none.

    It holds the model's own tensors, or parts of them.
    """
    family = CLASSES.get(f"{type(model).__module__}.{type(model).__name__}")
    if family is None:
        return None
    try:
        return _Reader(family, model, max_length).read()
    except (UnknownError, AttributeError, KeyError, IndexError, TypeError):
        return None


def _expect(condition: bool) -> None:
    if not condition:
        raise UnknownError


class _Reader:
    """Finds a family's parts in its model. ``seen`` holds the names of the parameters that were read."""

    def __init__(self, family: RotaryFamily, model: Any, max_length: int) -> None:
        self.family, self.model, self.config, self.max_length = family, model, model.config, max_length
        self.modules: dict[str, Any] = dict(model.named_modules())
        self.seen: set[str] = set()
        self.norms: list[Any] = []
        self.angles: dict[str, tuple[Tensor, Tensor]] = {}

    def read(self) -> RotaryBlueprint:
        family, config = self.family, self.config
        _expect(all(getattr(config, name, off) in (None, off) for name, off in _OFF.items()))
        known = {type(self.model).__module__, "transformers.activations"}
        _expect(all(type(one) in _PARTS or type(one).__module__ in known for one in self.model.modules()))
        layers = [self._layer(i) for i in range(config.num_hidden_layers)]
        _expect(len(self.modules["layers"]) == len(layers) > 0)
        word = self.modules[family.word]
        _expect(word.max_norm is None)
        types = self.modules.get(family.types) if family.types else None
        blueprint = RotaryBlueprint(
            word=self._weight(family.word),
            word_scale=float(getattr(word, "embed_scale", 1.0)),
            token_type=None if types is None else self._weight(str(family.types))[0],
            norm=self._norm(family.norm) if family.norm else None,
            final_norm=self._norm(family.final_norm) if family.final_norm else None,
            layers=layers,
            heads=config.num_attention_heads,
            key_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            head=self._head(layers[0]),
            scale=float(getattr(self._attention(0), "scaling", self._head(layers[0]) ** -0.5)),
            epsilon=self._epsilon(),
            rms=not isinstance(self.norms[0], nn.LayerNorm),
            causal=self._causal(),
            activation=ACTIVATIONS[getattr(config, "hidden_act", None) or config.hidden_activation],
        )
        self._check(blueprint)
        return blueprint

    def _attention(self, i: int) -> Any:
        return self.modules[f"layers.{i}.{self.family.attention}"]

    def _head(self, layer: RotaryLayer) -> int:
        rows, heads = layer.linears["query"][0].shape[0], self.config.num_attention_heads
        _expect(rows % heads == 0)
        return int(rows // heads)

    def _causal(self) -> bool:
        """Whether the layers are causal. A setting that contradicts the layers makes the model unknown."""
        said = {bool(self._attention(i).is_causal) for i in range(self.config.num_hidden_layers)}
        _expect(len(said) == 1)
        causal = said.pop()
        _expect(not causal or not looks_both_ways(self.config.to_dict()))
        return causal

    def _epsilon(self) -> float:
        """The epsilon of all norms, which must agree and be of one class."""
        _expect(len({type(norm) for norm in self.norms}) == 1)
        epsilons = {float(getattr(norm, "variance_epsilon", getattr(norm, "eps", "nan"))) for norm in self.norms}
        _expect(len(epsilons) == 1)
        return epsilons.pop()

    def _layer(self, i: int) -> RotaryLayer:
        family, config, place = self.family, self.config, f"layers.{i}."
        linears: dict[str, Weights] = {}
        for name, module in family.linears.items():
            parts = {"qkv": ("query", "key", "value"), "gate_up": ("gate", "up")}.get(name, (name,))
            weight, bias = self._linear(place + module)
            biases = [None] * len(parts) if bias is None else bias.chunk(len(parts))
            linears |= zip(parts, zip(weight.chunk(len(parts)), biases, strict=True), strict=True)
        norms = {
            name: self._norm(place + module)
            for name, module in family.norms.items()
            if not isinstance(self.modules[place + module], nn.Identity)
        }
        kinds = getattr(config, "layer_types", None)
        kind = kinds[i] if kinds else "sliding_attention" if family.all_local else "full_attention"
        _expect(kind in ("full_attention", "sliding_attention"))
        reach = getattr(config, "sliding_window", None) if kind == "sliding_attention" or family.all_local else None
        _expect(reach is not None or kind == "full_attention" or family.all_local)
        cosine, sine = self._angles(kind)
        return RotaryLayer(linears, norms, None if reach is None else reach - family.window, cosine, sine)

    def _angles(self, kind: str) -> tuple[Tensor, Tensor]:
        """The cosines and sines of the angles, float32 [max_length, head / 2], as transformers computes them."""
        if kind not in self.angles:
            rotary = self.modules["rotary_emb"]
            several = isinstance(rotary.rope_type, dict)
            name = f"{kind}_" if several else ""
            _expect((rotary.rope_type[kind] if several else rotary.rope_type) == "default")
            _expect(getattr(rotary, f"{name}attention_scaling") == 1.0)
            frequencies = getattr(rotary, f"{name}inv_freq").float().cpu()
            angles = torch.arange(self.max_length).float()[:, None] * frequencies
            self.angles[kind] = angles.cos(), angles.sin()
        return self.angles[kind]

    def _weight(self, module: str) -> Tensor:
        self.seen.add(f"{module}.weight")
        weight: Tensor = self.modules[module].weight
        return weight.detach()

    def _linear(self, module: str) -> Weights:
        bias = self.modules[module].bias
        if bias is not None:
            self.seen.add(f"{module}.bias")
        return self._weight(module), None if bias is None else bias.detach()

    def _norm(self, module: str) -> Weights:
        one = self.modules[module]
        self.norms.append(one)
        weight, bias = self._weight(module), getattr(one, "bias", None)
        if bias is not None:
            self.seen.add(f"{module}.bias")
        return (1.0 + weight.float() if self.family.one_more else weight), None if bias is None else bias.detach()

    def _check(self, blueprint: RotaryBlueprint) -> None:
        """Check that all shapes fit, all weights have one dtype and device, and every weight was read."""
        width, head = blueprint.word.shape[1], blueprint.head
        inner = blueprint.layers[0].linears["down"][0].shape[1]
        queries, keys = blueprint.heads * head, blueprint.key_heads * head
        shapes = {
            "query": (queries, width), "key": (keys, width), "value": (keys, width), "output": (width, queries),
            "gate": (inner, width), "up": (inner, width), "down": (width, inner),
        }  # fmt: skip
        for layer in blueprint.layers:
            _expect({name: tuple(weight.shape) for name, (weight, _) in layer.linears.items()} == shapes)
            _expect(tuple(layer.cosine.shape) == (self.max_length, head // 2) and head % 2 == 0)
        # Where the configuration sets ``is_causal`` to false, transformers' masks have windows of another width.
        turned = getattr(self.config, "is_causal", True) is False
        _expect(not turned or all(layer.window is None for layer in blueprint.layers))
        own = {name: one for name, one in self.model.named_parameters() if not name.startswith("pooler.")}
        _expect(own.keys() == self.seen)
        _expect(len({(one.dtype, one.device) for one in own.values()}) == 1)
