"""What is trained: layers of an encoder, the pooling and a head, as one torch module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.encoder.after_pooling_torch import after_pooling
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.finetune.top import Top, WholeModel
from embedcache.heads.kinds import kind_of
from embedcache.heads.spec import weight_names

if TYPE_CHECKING:
    from embedcache.encoder import Encoder
    from embedcache.heads.head import TrainedHead


class Trainee(nn.Module):
    """Inputs to logits.

    Attributes:
        body: from states or token ids to token vectors. weights: what is trained of it, by its name in the encoder's
            model (LoRA's and adapters' tensors: by the name of the layer that they stand beside).
        kind, scale: how the weights are stored, see encoder/tuned.py.
        layers: numbers of the layers that are trained, from 1.
    """

    kind, scale = "tensors", 1.0

    def __init__(self, body: Top | WholeModel, encoder: Encoder, pooling: str, head: TrainedHead) -> None:
        super().__init__()
        prescribed = encoder.prescribed if pooling == MODEL else None
        self.body, self.start = body, head
        self.poolings: Sequence[str] = [pooling] if prescribed is None else prescribed.pooling
        self.after = nn.Sequential(*([] if prescribed is None else after_pooling(prescribed))).requires_grad_(False)
        modules = list(head.to_torch())
        self.head = nn.Sequential(*(modules[:-1] if kind_of(head.kind).has_classes else modules))
        self.weights: dict[str, nn.Parameter] = body.weights()
        self.layers: list[int] = []
        body.requires_grad_(False)
        for weight in self.weights.values():
            weight.requires_grad_(True)
        self.head.requires_grad_(True)

    def forward(self, x: Tensor, mask: Tensor, empty: Tensor | None = None) -> Tensor:
        """Inputs of a batch to logits float32 [n, C]. ``empty``: bool [n], rows without any token."""
        logits: Tensor = self.head(self.vectors(x, mask, empty))
        return logits

    def vectors(self, x: Tensor, mask: Tensor, empty: Tensor | None = None) -> Tensor:
        """The texts' vectors float32 [n, D']."""
        hidden = self.body(x, mask)
        mask = mask[:, : hidden.shape[1]]
        pooled = torch.cat([POOLINGS[name].pool(hidden, mask) for name in self.poolings], dim=1)
        if empty is not None:
            pooled = pooled.masked_fill(empty[:, None], 0)
        out: Tensor = self.after(pooled.float())
        return out

    def tensors(self) -> dict[str, np.ndarray]:
        """What is trained, float32 copies: the body's by their stored names, the head's as ``head/w1`` and so on."""
        found = {name: _array(weight) for name, weight in self.weights.items()}
        names = (f"head/{name}" for name in weight_names(self.start.spec.hidden))
        return found | {name: _array(weight) for name, weight in zip(names, self.head.parameters(), strict=True)}

    @torch.no_grad()
    def put(self, tensors: Any) -> None:
        """The inverse of ``tensors``."""
        names = (f"head/{name}" for name in weight_names(self.start.spec.hidden))
        own = {**self.weights, **dict(zip(names, self.head.parameters(), strict=True))}
        for name, weight in own.items():
            weight.copy_(torch.from_numpy(np.ascontiguousarray(tensors[name])))


def _array(weight: Tensor) -> np.ndarray:
    array: np.ndarray = weight.detach().float().cpu().numpy().copy()
    return array
