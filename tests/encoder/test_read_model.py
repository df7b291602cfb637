"""Every family is read completely, everything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from embedcache.encoder.families import FAMILIES
from embedcache.encoder.read_model import read_blueprint


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_read_without_copies(make_model: Callable[..., Any], family: str) -> None:
    model = make_model(family)
    blueprint = read_blueprint(model, 64)
    assert blueprint is not None
    known = FAMILIES[family]
    counted = known.behind is not None
    activation = "gelu_tanh" if family == "albert" else "gelu"
    assert (blueprint.heads, blueprint.activation, blueprint.uncounted) == (4, activation, 1 if counted else None)
    assert blueprint.word.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    assert blueprint.position.shape == (70 - 2 * counted, blueprint.word.shape[1])
    assert (blueprint.token_type is None) == (not known.types)
    assert (blueprint.projection is not None) == (known.projection is not None)
    assert len(blueprint.layers) == 3
    assert len(set(map(id, blueprint.layers))) == (1 if known.groups else 3)
    own = {weight.data_ptr() for weight in model.parameters()}
    for layer in blueprint.layers:
        for name in ("query", "key", "value", "output"):
            weight, bias = getattr(layer, name)
            assert (weight.shape, bias.shape) == ((32, 32), (32,))
            assert {weight.data_ptr(), bias.data_ptr()} <= own
        assert (layer.up[0].shape, layer.down[0].shape) == ((48, 32), (32, 48))


def test_mpnet_bias_is_that_of_the_model(make_model: Callable[..., Any]) -> None:
    model = make_model("mpnet")
    blueprint = read_blueprint(model, 68)
    assert blueprint is not None
    assert blueprint.relative is not None
    i, j = torch.meshgrid(torch.arange(68), torch.arange(68), indexing="ij")
    expected = model.encoder.compute_position_bias(torch.empty(1, 68, 1))[0]
    assert torch.equal(blueprint.relative[:, j - i + 67], expected)


@pytest.mark.parametrize("name", ["gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu"])
def test_activations(make_model: Callable[..., Any], name: str) -> None:
    blueprint = read_blueprint(make_model("bert", hidden_act=name), 64)
    assert blueprint is not None
    assert blueprint.activation == ("relu" if name == "relu" else "gelu_tanh")


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("albert", {"inner_group_num": 2}),
        ("deberta", {}),
        ("modernbert", {"pad_token_id": 0}),
        ("prelayernorm", {}),
        ("bert", {"hidden_act": "silu"}),
        ("bert", {"position_embedding_type": "relative_key"}),
        ("electra", {"position_embedding_type": "relative_key_query"}),
        ("bert", {"is_decoder": True, "add_cross_attention": True}),
        ("bert", {"max_position_embeddings": 63}),
        ("roberta", {"max_position_embeddings": 65}),
        ("electra", {"num_attention_heads": 5}),
    ],
)
def test_what_deviates_has_no_blueprint(make_model: Callable[..., Any], family: str, changes: dict[str, Any]) -> None:
    assert read_blueprint(make_model(family, **changes), 64) is None


def other_epsilon(model: Any) -> None:
    model.encoder.layer[1].output.LayerNorm.eps = 1e-3


def adapter(model: Any) -> None:
    model.encoder.layer[1].adapter = torch.nn.Linear(32, 32)


def other_linear(model: Any) -> None:
    model.encoder.layer[1].output.dense.__class__ = type("Quantized", (torch.nn.Linear,), {})


def no_bias(model: Any) -> None:
    model.encoder.layer[1].output.dense.bias = None


def shared_layers(model: Any) -> None:
    model.encoder.layer[1] = model.encoder.layer[0]


def two_dtypes(model: Any) -> None:
    model.encoder.layer[1].bfloat16()


def subclass(model: Any) -> None:
    model.__class__ = type("BertModel", (type(model),), {"__module__": "somewhere.else"})


@pytest.mark.parametrize("change", [other_epsilon, adapter, other_linear, no_bias, shared_layers, two_dtypes, subclass])
def test_what_was_changed_has_no_blueprint(make_model: Callable[..., Any], change: Callable[[Any], None]) -> None:
    model = make_model("bert")
    change(model)
    assert read_blueprint(model, 64) is None


def test_without_a_pooler(make_model: Callable[..., Any]) -> None:
    model = make_model("bert")
    model.pooler = None
    assert read_blueprint(model, 64) is not None
