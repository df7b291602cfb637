"""The last layer for the first token's row alone, trained: the algebra of encoder/last_layer.py with gradients.

One query a row: the key's weights fold into the query, the value's come after the mean over the tokens, and output
projection, feed-forward part and LayerNorms are computed for n rows instead of T tokens. The key's bias cancels in the
softmax; its gradient is 0, and it is not touched.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout

from embedcache.encoder.families import Family


class FirstRow(nn.Module):
    """A post-LayerNorm layer of a transformers model, of which the first token's output is computed.

    Attributes:
        layer: the model's own module, whose weights are trained. p: share that dropout drops while training.
        relative: MPNet's bias by distance from the first token, float32 [heads, longest], or None.
    """

    def __init__(self, layer: nn.Module, family: Family, config: Any, relative: Tensor | None = None) -> None:
        from transformers.activations import ACT2FN

        super().__init__()
        self.layer, self.p = layer, 0.0
        self.heads: int = getattr(config, family.keys.get("num_attention_heads", "num_attention_heads"))
        self._names = family.names
        self._activation: Any = ACT2FN[getattr(config, family.keys.get("hidden_act", "hidden_act"))]
        self.register_buffer("relative", relative, persistent=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x float32 [n, L, D], mask bool [n, L], False at padding; to [n, 1, D]."""
        names, part = self._names, self.layer.get_submodule
        query, key, value, output = (cast(nn.Linear, part(name)) for name in names.attention)
        n, length, width = x.shape
        by_head = (self.heads, -1, width)
        # 1. Each head's query [n, d], with the key's weights [d, D] in it: scores of x itself.
        q = query(x[:, 0]).view(n, self.heads, -1).transpose(0, 1)  # (heads, n, d)
        folded = torch.bmm(q, key.weight.view(by_head)).transpose(0, 1) * q.shape[-1] ** -0.5  # (n, heads, D)
        scores = torch.bmm(folded, x.transpose(1, 2))  # (n, heads, L)
        if self.relative is not None:
            scores = scores + cast(Tensor, self.relative)[:, :length]
        shares = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
        shares = dropout(shares, self.p, self.training)
        # 2. The mean of x by these shares, then the value's weights. With dropout the shares no longer add up to 1.
        mixed = torch.bmm(shares, x).transpose(0, 1)  # (heads, n, D)
        context = torch.bmm(mixed, value.weight.view(by_head).transpose(1, 2)).transpose(0, 1)  # (n, heads, d)
        context = context + shares.sum(-1, keepdim=True) * value.bias.view(self.heads, -1)
        # 3. The rest of the layer, for n rows.
        y = part(names.norm1)(dropout(output(context.flatten(1)), self.p, self.training) + x[:, 0])
        z = part(names.down)(self._activation(part(names.up)(y)))
        out: Tensor = part(names.norm2)(dropout(z, self.p, self.training) + y)
        return out[:, None]


def distances(model: Any, family: Family, first: int, last: int) -> Tensor | None:
    """MPNet's bias by distance [first, last) of key and query, float32 [heads, ...]; None of other families."""
    if family.relative is None:
        return None
    weight: Tensor = model.get_submodule(family.relative).weight.detach()
    bucket = model.encoder.relative_position_bucket(torch.arange(first, last, device=weight.device))
    return weight[bucket].T.float().contiguous()
