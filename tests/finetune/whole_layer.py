"""Layers as papers write them, in torch's autograd: keys, values and rows of every token, text by text.

The oracle of the engines, which fold keys and values of the last layer into one row's query. Any dtype; dropout by the
engines' streams.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from embedcache.finetune.blocks import Block, Ragged, Shape
from embedcache.heads import random_streams
from embedcache.heads.random_streams import ATTENTION, DOMAINS, FEED_FORWARD, SHARES
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task

ACTIVATIONS = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}


class Dropped:
    """A step's dropout: what each place keeps, already divided by the share that stays.

    lengths: of the batch's texts; longest: of all texts.
    """

    def __init__(self, block: Block | None, step: int, lengths: np.ndarray, shape: Shape, longest: int) -> None:
        self.block, self.step, self.lengths, self.shape, self.longest = block, step, lengths, shape, longest
        self._kept = functools.cache(self._draw)

    def _draw(self, domain: int, rows: int, units: int, share: float, dtype: torch.dtype) -> Tensor:
        assert self.block is not None
        kept = random_streams.dropout_kept(self.block.spec.seed, self.step, rows, units, share, domain)
        return torch.from_numpy(kept).to(dtype) / (1.0 - share)

    def of_hidden(self, dtype: torch.dtype) -> Tensor | float:
        """[texts, hidden units of the head]."""
        if self.block is None:
            return 1.0
        spec = self.block.spec
        return self._kept(random_streams.DROPOUT, len(self.lengths), spec.hidden, spec.dropout, dtype)

    def of_layer(self, text: int, above: int, dtype: torch.dtype) -> tuple[Tensor | float, ...]:
        """Of shares [heads, L or 1, L], attention's and feed-forward part's outputs [L or 1, D].

        above: layers above this one. 1: the last layer, where one row is asked.
        """
        if self.block is None:
            return 1.0, 1.0, 1.0
        alone = above == 0 and self.shape.query != "mean"
        lengths = np.ones_like(self.lengths) if alone else self.lengths
        rows, first, n = int(lengths.sum()), int(lengths[:text].sum()), int(lengths[text])
        heads, block = self.shape.heads, self.block
        kept = functools.partial(self._kept, dtype=dtype)
        shares = kept(SHARES + DOMAINS * above, rows * heads, self.longest, block.attention_dropout)
        others = (
            kept(domain + DOMAINS * above, rows, self.shape.dim, block.hidden_dropout)[first : first + n]
            for domain in (ATTENTION, FEED_FORWARD)
        )
        mine = shares.view(rows, heads, -1)[first : first + n, :, : self.lengths[text]]
        return mine.transpose(0, 1), *others


def layer(w: Mapping[str, Tensor], k: int, shape: Shape, x: Tensor, kept: tuple[Tensor | float, ...]) -> Tensor:
    """Layer k of every token: [L, D] to [L, D]."""

    def linear(name: str, x: Tensor, bias: bool = True) -> Tensor:
        return functional.linear(x, w[f"{k}.{name}"], w[f"{k}.{name}_bias"] if bias else None)

    def split(x: Tensor) -> Tensor:
        return x.view(len(x), shape.heads, -1).transpose(0, 1)

    def norm(name: str, x: Tensor) -> Tensor:
        return functional.layer_norm(x, (shape.dim,), w[f"{k}.{name}"], w[f"{k}.{name}_bias"], shape.epsilon)

    q, keys, v = split(linear("query", x)), split(linear("key", x, bias=False)), split(linear("value", x))
    scores = q @ keys.transpose(1, 2) / q.shape[-1] ** 0.5
    if shape.relative is not None:
        positions = (shape.relative.shape[1] + 1) // 2
        places = torch.arange(len(x))[None] - torch.arange(len(x))[:, None] + positions - 1
        scores = scores + torch.from_numpy(shape.relative).to(x.dtype)[:, places]
    of_shares, of_attention, of_feed = kept
    context = ((scores.softmax(-1) * of_shares) @ v).transpose(0, 1).reshape(len(x), -1)
    middle = norm("norm1", linear("output", context) * of_attention + x)
    inner = ACTIVATIONS[shape.activation](linear("up", middle))
    return norm("norm2", linear("down", inner) * of_feed + middle)


def vector(w: Mapping[str, Tensor], shape: Shape, x: Tensor, text: int, dropped: Dropped) -> Tensor:
    """[D], of a text's states [L, D]."""
    for k in range(shape.layers):
        x = layer(w, k, shape, x, dropped.of_layer(text, shape.layers - 1 - k, x.dtype))
    out = x.mean(0) if shape.query == "mean" else x[0 if shape.query == "first" else -1]
    return functional.normalize(out, dim=0) if shape.unit else out


def logits(w: Mapping[str, Tensor], shape: Shape, texts: list[Tensor], dropped: Dropped) -> Tensor:
    """[n, C]; a text without tokens has a vector of zeros."""
    none = torch.zeros(shape.dim, dtype=w["head2"].dtype)
    z = torch.stack([vector(w, shape, x, text, dropped) if len(x) else none for text, x in enumerate(texts)])
    if "head1" in w:
        z = functional.linear(z, w["head1"], w["head1_bias"]).relu() * dropped.of_hidden(z.dtype)
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
