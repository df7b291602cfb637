"""The top layers fed with stored states, against plain transformers with the layers below frozen."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder import Encoder
from embedcache.encoder.families import FAMILIES, with_own_layers
from embedcache.errors import EmbedcacheError
from embedcache.finetune.beside import add_adapters, add_lora
from embedcache.finetune.config import Way
from embedcache.finetune.inputs import TokenIds
from embedcache.finetune.loop import LoopOptions, Training, train_together
from embedcache.finetune.top import Top, WholeModel, check_top, layers_of, set_dropout
from embedcache.finetune.trainee import Trainee
from embedcache.heads.task import Task, View
from tests.conftest import make_reviews
from tests.encoder.rotary_kinds import CASES, make_rotary, some_rows
from tests.finetune.plain_transformers import (
    cached_losses,
    largest_gradient_error,
    last_layer_both_ways,
    make_config,
    make_head,
    plain_losses,
)
from tests.finetune.token_caches import StatesInMemory, hidden_states

N, EPOCHS, BATCH = 40, 2, 8
TEXTS = [text for text, _ in make_reviews(N)]
Y = (np.arange(N) % 2).astype(np.int32)


@pytest.fixture(scope="module")
def encoders(tiny_models: dict[str, Path]) -> dict[str, Encoder]:
    class Loaded(dict[str, Encoder]):
        def __missing__(self, family: str) -> Encoder:
            self[family] = Encoder.load(tiny_models[family], dtype="float32", max_length=100, kernel="plain")
            return self[family]

    return Loaded()


OTHERS = [family for family in filter(with_own_layers, FAMILIES) if family != "bert"]
EVERY = ["bert", *(pytest.param(family, marks=pytest.mark.slow) for family in OTHERS)]
SLOW = [pytest.param(keep, pooling, marks=pytest.mark.slow) for keep, pooling in ((1, "cls"), (2, "mean"))]


@pytest.mark.parametrize("family", EVERY)
@pytest.mark.parametrize(("keep", "pooling"), [(2, "cls"), *SLOW])
def test_losses_are_those_of_plain_transformers(encoders, tmp_path, family, keep, pooling) -> None:
    encoder = encoders[family]
    config, head = make_config(f"top:{keep}", pooling, batch_size=BATCH, epochs=EPOCHS), make_head(encoder.dim)
    layer = encoder.layers - keep
    states = StatesInMemory(hidden_states(encoder, TEXTS, layer), keep, layer)
    losses = cached_losses(encoder, states, Y, config, head, tmp_path / "c")
    expected = plain_losses(encoder, TEXTS, Y, config, head)
    assert len(losses) == EPOCHS * N // BATCH and np.ptp(losses) > 0.1
    np.testing.assert_allclose(losses, expected, rtol=2e-5)


@pytest.mark.parametrize("way", ["full", *(pytest.param(way, marks=pytest.mark.slow) for way in ("lora", "adapter"))])
def test_steps_in_parts_and_checkpointed_layers_learn_the_same(encoders, tmp_path, way) -> None:
    """A step of 32 rows as four of 8, with weighted classes; and with what the layers compute not kept."""
    encoder = encoders["bert"]
    config = replace(make_config(way, "mean", batch_size=BATCH, epochs=EPOCHS), batch_size=32)
    inputs = TokenIds(encoder.tokenize(TEXTS).rows, encoder.pad_id)
    weight = np.array([0.5, 3.0], np.float32)
    found: list[dict[str, torch.Tensor]] = []
    losses: list[Any] = []
    for parts, checkpointing in ((1, False), (4, False), (1, True)):
        torch.manual_seed(0)
        trainee = Trainee(WholeModel(encoder.model, checkpointing), encoder, "mean", make_head(encoder.dim))
        if way != "full":
            (add_lora(trainee, 2, None, ()) if way == "lora" else add_adapters(trainee, 2))
        set_dropout(trainee.body, 0.0)
        view = View(np.zeros((N, 1), np.float32), Y, np.arange(N))
        options = LoopOptions(0, "loss", "cpu", False, tmp_path / "c", False, lambda rows: None, parts)
        training = Training(trainee, inputs, Task(view, None, 2, weight), config, "id", options)
        training.step(np.argsort(Y, kind="stable")[:32])  # its gradients, clipped, stay until the next one
        found.append({name: weight.grad.clone() for name, weight in trainee.named_parameters() if weight.requires_grad})
        train_together([training])
        losses.append(training.state.progress.history["train_loss"])
    largest = max(float(grad.abs().max()) for grad in found[0].values())
    assert len(found[0]) == len(trainee.weights) + 2 and largest > 1e-3
    for grads, curve in zip(found[1:], losses[1:], strict=True):
        assert all(torch.allclose(grads[name], found[0][name], rtol=1e-5, atol=1e-6 * largest) for name in grads)
        np.testing.assert_allclose(curve, losses[0], rtol=2e-6)


@pytest.mark.parametrize("family", EVERY)
def test_the_first_row_has_the_gradients_of_the_whole_layer(encoders, family) -> None:
    encoder = encoders[family]
    outs, grads = last_layer_both_ways(encoder, TEXTS[:7])
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-5)
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) == 16
    assert largest_gradient_error(*grads) <= 1e-5
    unused = [name for name, grad in grads[0].items() if grad is None]
    assert unused == [f"{layers_of(encoder.model)[0]}.1.{FAMILIES[family].names.attention[1]}.bias"]


def test_dropout_of_the_first_row_counts_the_values_bias(encoders) -> None:
    """On the average over many masks, a linear value path gives the output without dropout: here its bias alone."""
    from embedcache.finetune.first_row import FirstRow

    encoder = encoders["bert"]
    layer = copy.deepcopy(layers_of(encoder.model)[1][-1])
    row = FirstRow(layer, FAMILIES["bert"], encoder.model.config).train()
    x, mask = torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    row.p = 0.5
    torch.manual_seed(0)
    first = row(x, mask)
    torch.manual_seed(0)
    assert torch.equal(first, row(x, mask)) and not torch.equal(first, row(x, mask))
    assert torch.equal(row.eval()(x, mask), row(x, mask))


@pytest.mark.slow
def test_what_all_layers_share_stays_as_it_is(encoders) -> None:
    model = encoders["mpnet"].model
    shared = [name for name, _ in model.named_parameters() if "relative_attention_bias" in name]
    assert shared and not set(shared) & set(Top(model, 2, False, 100).weights())


def test_a_top_that_is_not_the_models_is_refused(encoders) -> None:
    encoder = encoders["bert"]
    ids, mask = encoder.pad(encoder.tokenize(TEXTS[:3]).rows)
    top = Top(encoder.model, 1, False, 100)
    with torch.no_grad():
        for weight in top.weights().values():
            weight.mul_(1.5)
    with pytest.raises(EmbedcacheError, match="other vectors"):
        check_top(encoder.model, top, ids, mask.bool())


@pytest.mark.parametrize("text", ["", "top", "top:0", "top:x", "lora:", "last:2", "full:2", "adapter:full", "all"])
def test_ways_that_are_none(text: str) -> None:
    with pytest.raises(EmbedcacheError, match="--train"):
        Way.parse(text)


def test_ways() -> None:
    texts = ("last", "top:3", "lora", "adapter", "full", "lora:last", "adapter:top:2")
    ways = [(way.method, way.depth) for way in map(Way.parse, texts)]
    assert ways == [
        ("tensors", 1), ("tensors", 3), ("lora", None), ("adapter", None), ("tensors", None), ("lora", 1),
        ("adapter", 2),
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_models_with_rotary_positions_and_causal_ones(kind: str) -> None:
    """check_top itself compares with the whole model, padding and all."""
    model, rows = make_rotary(kind), some_rows([40, 7, 23])
    there = np.arange(40) < np.array([[40], [7], [23]])
    ids = np.zeros((3, 40), np.int64)
    ids[there] = np.concatenate(rows)
    for keep in range(1, model.config.num_hidden_layers + 1):
        top = Top(model, keep, False, 40)
        check_top(model, top, torch.from_numpy(ids), torch.from_numpy(there))
        own = dict(model.named_parameters())
        assert all(torch.equal(own[name], weight) for name, weight in top.weights().items()) and top.weights()
