"""Tuned tensors, laid over a transformers model."""

from __future__ import annotations

from typing import Any

import torch

from embedcache.encoder.bottleneck import insert_adapters
from embedcache.encoder.tuned import FILE, Tuned
from embedcache.errors import EmbedcacheError


class _Arrays:
    """Parameters as float32 arrays, one at a time."""

    def __init__(self, own: dict[str, Any]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> Any:
        return self._own[name].detach().float().cpu().numpy()


def apply_tuned(model: Any, tuned: Tuned | None, name: str) -> Any:
    """The transformers model with the tuned tensors in it, float32 rounded to the model's own dtype.

    Raises:
        EmbedcacheError: they do not fit the model.
    """
    if tuned is None:
        return model
    try:
        if tuned.header.kind == "adapter":
            insert_adapters(model, tuned.arrays())
            return model
        own = dict(model.named_parameters())
        new = tuned.over(_Arrays(own))
        with torch.no_grad():
            for key, array in new.items():
                if own[key].shape != array.shape:
                    raise ValueError(f"{key} has the shape {list(array.shape)}")
                own[key].copy_(torch.from_numpy(array))
    except (KeyError, ValueError) as error:
        raise EmbedcacheError(f"{name}: {FILE} does not fit its base ({error}): run finetune again") from None
    return model
