"""The last layer's attention for the first token alone, exact.

Where only the CLS row of a layer's output is stored, query, output projection and feed-forward are computed for n rows
instead of T tokens. Keys and values are never formed: with one query per row, head h's score of token t is

    q_h . (Wk_h x_t + bk_h) = (Wk_h^T q_h) . x_t + const

so the key's weights fold into the query and the constant cancels in the softmax; the value's weights come after the
mean: sum p_t (Wv_h x_t + bv_h) = Wv_h (sum p_t x_t) + bv_h. What is left are 4 D flops for each token and head, where
keys and values took 4 D^2 for each token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from embedcache.encoder.blueprint import Layer


class Group(NamedTuple):
    """Rows of equal length that follow one another: ``rows`` of them, from row ``row`` and token ``token`` on."""

    row: int
    token: int
    rows: int
    length: int

    def of(self, tokens: Tensor) -> Tensor:
        """The group's part of [T, ...], as [rows, length, ...], not copied."""
        return tokens[self.token : self.token + self.rows * self.length].unflatten(0, (self.rows, self.length))


def first_token_context(
    x: Tensor, first: Tensor, groups: list[Group], layer: Layer, heads: int, relative: Tensor | None
) -> Tensor:
    """What the first tokens attend to, before the output projection.

    Args:
        x: [T, D], the tokens of all rows.
        first: [n, D], the first tokens among them.
        groups: all rows in order.
        layer: its weights.
        heads: how many.
        relative: MPNet's bias by distance, float32 [heads, 2 * M - 1], or None.

    Returns:
        float32 [n, D]. All but the query is computed in float32: folded in bfloat16, the scores would be less exact
        than the plain layer's, and it is little work.
    """
    n, width = first.shape
    by_head = (heads, width // heads, width)
    query = functional.linear(first.to(layer.query[0].dtype), *layer.query).float().view(n, heads, -1).transpose(0, 1)
    folded = torch.bmm(query, layer.key[0].float().view(by_head)).transpose(0, 1) * (width // heads) ** -0.5
    mixed = torch.cat([_mix(folded[g.row : g.row + g.rows], g.of(x).float(), relative) for g in groups])
    context = torch.bmm(mixed.transpose(0, 1), layer.value[0].float().view(by_head).transpose(1, 2))
    return context.transpose(0, 1).reshape(n, width) + layer.value[1]


def _mix(folded: Tensor, x: Tensor, relative: Tensor | None) -> Tensor:
    """x [rows, length, D] averaged by each head's attention: [rows, heads, D], as ``folded``."""
    scores = torch.bmm(folded, x.transpose(1, 2))
    if relative is not None:
        middle = relative.shape[1] // 2
        scores = scores + relative[:, middle : middle + x.shape[1]]
    return torch.bmm(scores.softmax(-1), x)
