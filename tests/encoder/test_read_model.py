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
    if known.positions:
        assert blueprint.position.shape == (70 - 2 * counted, blueprint.word.shape[1])
    else:
        assert blueprint.position is None
    assert (blueprint.token_type is None) == (not known.types or bool(known.distances))  # DeBERTa: a setting, 0
    assert (blueprint.distances is None) == (known.distances is None)
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


@pytest.mark.parametrize(("buckets", "most"), [(16, -1), (256, -1), (-1, -1), (-1, 40), (60, 36), (2, 70)])
def test_deberta_distances_are_those_of_the_model(make_model: Callable[..., Any], buckets: int, most: int) -> None:
    """What its own code adds to the scores, from the tables and the buckets."""
    model = make_model("deberta-v2", position_buckets=buckets, max_relative_positions=most)
    blueprint = read_blueprint(model, 68)
    assert blueprint is not None and blueprint.distances is not None
    distances = blueprint.distances
    own = model.encoder.layer[1].attention.self
    q, k = torch.randn(2, 4, 68, 8)
    expected = own.disentangled_attention_bias(q, k, None, model.encoder.get_rel_embedding(), 3)
    key, query = (table.view(-1, 4, 8).transpose(0, 1) for table in (distances.key[1], distances.query[1]))
    i, j = torch.meshgrid(torch.arange(68), torch.arange(68), indexing="ij")
    row = distances.bucket[j - i + 67].long()
    scores = (q @ key.mT)[:, i, row] + (k @ query.mT)[:, j, row]
    torch.testing.assert_close(scores / 24**0.5, expected, atol=1e-5, rtol=1e-5)
    assert (distances.bucket.diff() >= 0).all() and distances.bucket.dtype == torch.int32


@pytest.mark.parametrize(
    "changes",
    [
        {"relative_attention": False}, {"share_att_key": False}, {"pos_att_type": ["c2p"]},
        {"position_biased_input": True}, {"norm_rel_ebd": "none"}, {"conv_kernel_size": 3}, {"embedding_size": 16},
    ],
    ids=str,
)  # fmt: skip
def test_other_debertas_have_no_blueprint(make_model: Callable[..., Any], changes: dict[str, Any]) -> None:
    assert read_blueprint(make_model("deberta-v2", **changes), 64) is None


def test_settings_of_deberta_that_are_the_same(make_model: Callable[..., Any]) -> None:
    for changes in ({"pos_att_type": ["p2c", "c2p"]}, {"pos_att_type": "p2c|c2p"}, {"type_vocab_size": 2}):
        blueprint = read_blueprint(make_model("deberta-v2", **changes), 64)
        assert blueprint is not None and (blueprint.token_type is None) == ("type_vocab_size" not in changes)


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
