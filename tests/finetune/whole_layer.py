"""The last layer as papers write it, in torch's autograd: keys, values and rows of every token, text by text.

The oracle of the engines that fold keys and values into one row's query. Any dtype; dropout by the engines' streams.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedcache.finetune.blocks import Block, Ragged, Shape
from embedcache.heads import random_streams
from embedcache.heads.random_streams import ATTENTION, FEED_FORWARD, SHARES
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


class Dropped:
    """A step's dropout: what each place keeps, already divided by the share that stays."""

    def __init__(self, block: Block | None, step: int, rows: int, shape: Shape, longest: int) -> None:
        self.block, self.step, self.rows, self.shape, self.longest = block, step, rows, shape, longest

    def of(self, domain: int, dtype: torch.dtype) -> Tensor | float:
        """[rows, units]; of the shares [rows, heads, longest]."""
        if self.block is None:
            return 1.0
        block, spec = self.block, self.block.spec
        rows, units, share = {
            SHARES: (self.rows * self.shape.heads, self.longest, block.attention_dropout),
            random_streams.DROPOUT: (self.rows, spec.hidden, spec.dropout),
        }.get(domain, (self.rows, self.shape.dim, block.hidden_dropout))
        kept = random_streams.dropout_kept(spec.seed, self.step, rows, units, share, domain)
        scaled = torch.from_numpy(kept).to(dtype) / (1.0 - share)
        return scaled.view(self.rows, self.shape.heads, -1) if domain == SHARES else scaled


def vectors(w: Mapping[str, Tensor], shape: Shape, texts: list[Tensor], dropped: Dropped) -> Tensor:
    """[n, D]: the asked row of each text's states [L, D], computed as all of them are."""
    dtype = w["query"].dtype
    of_shares = dropped.of(SHARES, dtype)
    asked = []
    for number, x in enumerate(texts):
        at = 0 if shape.query == "first" else len(x) - 1
        split = lambda y: y.view(len(y), shape.heads, -1).transpose(0, 1)  # noqa: E731
        q = split(functional.linear(x, w["query"], w["query_bias"]))
        k = split(functional.linear(x, w["key"]))
        v = split(functional.linear(x, w["value"], w["value_bias"]))
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if shape.relative is not None:
            positions = (shape.relative.shape[1] + 1) // 2
            places = torch.arange(len(x))[None] - torch.arange(len(x))[:, None] + positions - 1
            scores = scores + torch.from_numpy(shape.relative).to(dtype)[:, places]
        shares = scores.softmax(-1)
        if isinstance(of_shares, Tensor):
            shares = shares * of_shares[number, :, None, : len(x)]
        asked.append(torch.cat(((shares @ v).transpose(0, 1).reshape(len(x), -1)[at], x[at])))
    context, first = torch.stack(asked).split(shape.dim, dim=1)
    size = (shape.dim,)
    y = functional.linear(context, w["output"], w["output_bias"]) * dropped.of(ATTENTION, dtype)
    middle = functional.layer_norm(y + first, size, w["norm1"], w["norm1_bias"], shape.epsilon)
    inner = ACTIVATIONS[shape.activation](functional.linear(middle, w["up"], w["up_bias"]))
    z = functional.linear(inner, w["down"], w["down_bias"]) * dropped.of(FEED_FORWARD, dtype)
    return functional.layer_norm(z + middle, size, w["norm2"], w["norm2_bias"], shape.epsilon)


def logits(w: Mapping[str, Tensor], shape: Shape, texts: list[Tensor], dropped: Dropped) -> Tensor:
    """[n, C]; a text without tokens has a vector of zeros."""
    there = [number for number, x in enumerate(texts) if len(x)]
    z = torch.zeros(len(texts), shape.dim, dtype=w["query"].dtype)
    z[there] = vectors(w, shape, [x if len(x) else torch.zeros(1, shape.dim, dtype=z.dtype) for x in texts], dropped)[
        there
    ]
    if "head1" in w:
        kept = dropped.of(random_streams.DROPOUT, z.dtype)
        z = functional.linear(z, w["head1"], w["head1_bias"]).relu() * kept
    return functional.linear(z, w["head2"], w["head2_bias"])


def loss_of(spec: HeadSpec, task: Task, weight: np.ndarray | None, z: Tensor, y: np.ndarray) -> Tensor:
    """As torch has them; the focal loss as Lin et al. do."""
    w = None if weight is None else torch.from_numpy(weight).to(z.dtype)
    if task.kind == "regression":
        return functional.mse_loss(z, torch.from_numpy(y).to(z.dtype))
    if task.kind == "multilabel":
        t = torch.from_numpy(y).to(z.dtype) * (1.0 - spec.label_smoothing) + spec.label_smoothing / 2
        return functional.binary_cross_entropy_with_logits(z, t, pos_weight=w)
    target = torch.from_numpy(y.astype(np.int64))
    if spec.loss == "nll":
        return functional.cross_entropy(z, target, weight=w, label_smoothing=spec.label_smoothing)
    log_p = z.log_softmax(-1).gather(1, target[:, None])[:, 0]
    of_row = torch.ones_like(log_p) if w is None else w[target]
    return (-of_row * (1.0 - log_p.exp()) ** spec.focal_gamma * log_p).sum() / of_row.sum()


def texts_of(states: Ragged, rows: np.ndarray, dtype: torch.dtype) -> list[Tensor]:
    some = (states.values[states.begins[row] :][: states.lengths[row]] for row in rows)
    return [torch.from_numpy(one.astype(np.float32)).to(dtype) for one in some]
