"""The oracle of the cached top layers: plain transformers from token ids, everything below them frozen."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.encoder import Encoder
from embedcache.finetune.config import Config, Way
from embedcache.finetune.inputs import States, TokenIds, epoch_batches
from embedcache.finetune.loop import CLIP, LoopOptions, Training, train_together
from embedcache.finetune.top import Top, first_alone, layers_of, set_dropout
from embedcache.finetune.trainee import Trainee
from embedcache.heads.engine_torch import lr_factor
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View

CLASSES = 2


def make_head(dim: int, hidden: int = 0) -> TrainedHead:
    rng = np.random.default_rng(3)
    shapes = {"w1": (hidden, dim), "b1": (hidden,), "w2": (CLASSES, hidden or dim), "b2": (CLASSES,)}
    names = shapes if hidden else ("w2", "b2")
    weights = {name: rng.normal(scale=0.1, size=shapes[name]).astype(np.float32) for name in names}
    return TrainedHead(HeadSpec(hidden=hidden), weights)


def make_config(way: str, pooling: str, *, batch_size: int, epochs: int, lr: float = 1e-3) -> Config:
    spec = HeadSpec(hidden=0, lr=lr, schedule="linear", warmup=0.1, weight_decay=0.01)
    return Config(Way.parse(way), pooling, spec, 3 * lr, batch_size, epochs, None, 0.0)


def make_training(trainee: Trainee, inputs: Any, y: np.ndarray, config: Config, checkpoint: Path) -> Training:
    set_dropout(trainee.body, 0.0)
    view = View(np.zeros((len(y), 1), np.float32), y, np.arange(len(y)))
    options = LoopOptions(0, "loss", "cpu", False, checkpoint, False, lambda rows: None)
    return Training(trainee, inputs, Task(view, None, CLASSES), config, "id", options)


def cached_losses(
    encoder: Encoder, states: Any, y: np.ndarray, config: Config, head: TrainedHead, checkpoint: Path
) -> list[float]:
    """The loss of every step, trained from states (as TokenStates gives them) by the project's own loop."""
    keep = config.way.depth
    assert keep is not None
    longest = int(states.lengths.max())
    top = Top(encoder.model, keep, first_alone(encoder.model, config.pooling), longest)
    assert (top.row is not None) == (config.pooling == "cls")
    trainee = Trainee(top, encoder, config.pooling, head)
    training = make_training(trainee, States(states, states.lengths), y, config, checkpoint)
    losses: list[float] = []
    step = training.step

    def keep_loss(rows: np.ndarray, *batch: Any) -> float:
        losses.append(step(rows, *batch))
        return losses[-1]

    training.step = keep_loss  # type: ignore[method-assign]
    train_together([training])
    return losses


def plain_losses(
    encoder: Encoder, texts: Sequence[str], y: np.ndarray, config: Config, head: TrainedHead
) -> list[float]:
    """The same losses from token ids, everything below the last layers and all that they share frozen."""
    keep, n = config.way.depth, len(texts)
    assert keep is not None
    model, path = copy.deepcopy(encoder.model), layers_of(encoder.model)[0]
    model.requires_grad_(False).train()
    set_dropout(model, 0.0)
    layers = model.get_submodule(path)[-keep:].requires_grad_(True)
    linear = nn.Linear(encoder.dim, CLASSES)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weights["w2"]))
        linear.bias.copy_(torch.from_numpy(head.weights["b2"]))
    groups = [
        {"params": [p for p in part.parameters() if (p.dim() > 1) == big], "lr": lr, "top": lr, "weight_decay": decay}
        for part, lr in ((layers, config.spec.lr), (linear, config.head_lr))
        for big, decay in ((True, 0.01), (False, 0.0))
    ]
    adamw = torch.optim.AdamW(groups)
    ids = TokenIds(encoder.tokenize(texts).rows, 0)
    losses: list[float] = []
    steps = -(-n // config.batch_size)
    for epoch in range(config.epochs):
        for batch in epoch_batches(ids.lengths, np.arange(n), config.batch_size, 0, epoch):
            x, mask = encoder.pad(encoder.tokenize([texts[i] for i in batch]).rows)
            hidden = model(input_ids=x, attention_mask=mask).last_hidden_state
            weight = mask[..., None].float()
            pooled = hidden[:, 0] if config.pooling == "cls" else (hidden * weight).sum(1) / weight.sum(1)
            loss = nn.functional.cross_entropy(linear(pooled), torch.from_numpy(y[batch]).long())
            for group in adamw.param_groups:
                group["lr"] = group["top"] * lr_factor(config.spec, len(losses), config.epochs * steps)
            adamw.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], CLIP)
            adamw.step()
            losses.append(float(loss.detach()))
    return losses


Gradients = dict[str, Tensor | None]


def last_layer_both_ways(encoder: Encoder, texts: Sequence[str]) -> tuple[list[Tensor], list[Gradients]]:
    """The last layer for the first token alone, and whole, in autograd: (outputs [n, D], gradients) of each."""
    ids, mask = encoder.pad(encoder.tokenize(texts).rows)
    with torch.no_grad():
        states = encoder.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-2]
    target = torch.randn(len(texts), encoder.dim, generator=torch.Generator().manual_seed(1))
    outs: list[Tensor] = []
    grads: list[Gradients] = []
    for alone in (True, False):
        top = Top(encoder.model, 1, alone, ids.shape[1]).train()
        set_dropout(top, 0.0)
        for weight in top.weights().values():
            weight.requires_grad_(True)
        out = top(states, mask.bool())[:, 0]
        ((out - target) ** 2).sum().backward()
        outs.append(out.detach())
        grads.append({name: weight.grad for name, weight in top.weights().items()})
    return outs, grads


def largest_gradient_error(mine: Gradients, theirs: Gradients) -> float:
    """Over all weights, as a share of the largest gradient; one that is None counts as zeros."""
    largest, error = 0.0, 0.0
    for name, grad in theirs.items():
        assert grad is not None
        one = mine[name]
        largest = max(largest, float(grad.abs().max()))
        error = max(error, float((grad if one is None else one - grad).abs().max()))
    return error / largest
