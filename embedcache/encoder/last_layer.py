"""The last layer's attention for the first token only, exact.

Where only the CLS row of a layer's output is stored, query, output projection and feed-forward are computed for n rows
instead of T tokens. Keys and values are never formed:

1. With one query per row, head h's score of token t is q_h . (Wk_h x_t + bk_h) = (Wk_h^T q_h) . x_t + const. So the
   key's weights fold into the query, and the constant cancels in the softmax.
2. The value's weights come after the mean: sum p_t (Wv_h x_t + bv_h) = Wv_h (sum p_t x_t) + bv_h.

This costs 4 D flops per token and head; keys and values would cost 4 D^2 per token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from embedcache.encoder.blueprint import Layer


class Group(NamedTuple):
    """Consecutive rows of equal length: ``rows`` of them, starting at row ``row`` and token ``token``."""

    row: int
    token: int
    rows: int
    length: int

    def of(self, tokens: Tensor) -> Tensor:
        """The group's part of [T, ...] as a view [rows, length, ...]."""
        return tokens[self.token : self.token + self.rows * self.length].unflatten(0, (self.rows, self.length))


def first_token_context(
    x: Tensor, first: Tensor, groups: list[Group], layer: Layer, heads: int, relative: Tensor | None
) -> Tensor:
    """The attention context of each row's first token, before the output projection.

    Args:
        x: [T, D], the tokens of all rows.
        first: [n, D], the first tokens among them.
        groups: all rows in order.
        layer: its weights.
        heads: the number of heads.
        relative: MPNet's bias by distance, float32 [heads, 2 * M - 1], or None.

    Returns:
        float32 [n, D]. Everything but the query is computed in float32: with weights folded in bfloat16 the scores
        would be less exact than the plain layer's, and the work is small.
    """
    n, width = first.shape
    by_head = (heads, width // heads, width)
    query = functional.linear(first.to(layer.query[0].dtype), *layer.query).float().view(n, heads, -1).transpose(0, 1)
    folded = torch.bmm(query, layer.key[0].float().view(by_head)).transpose(0, 1) * (width // heads) ** -0.5
    mixed = torch.cat([_mix(folded[g.row : g.row + g.rows], g.of(x).float(), relative) for g in groups])
    context = torch.bmm(mixed.transpose(0, 1), layer.value[0].float().view(by_head).transpose(1, 2))
    return context.transpose(0, 1).reshape(n, width) + layer.value[1]


def _mix(folded: Tensor, x: Tensor, relative: Tensor | None) -> Tensor:
    """Average x [rows, length, D] by each head's attention: [rows, heads, D], the shape of ``folded``."""
    scores = torch.bmm(folded, x.transpose(1, 2))
    if relative is not None:
        middle = relative.shape[1] // 2
        scores = scores + relative[:, middle : middle + x.shape[1]]
    return torch.bmm(scores.softmax(-1), x)
