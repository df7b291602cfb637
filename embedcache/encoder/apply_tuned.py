"""Put the tensors that finetune trained into a transformers model."""

from __future__ import annotations

from typing import Any

import torch

from embedcache.encoder.bottleneck import insert_adapters
from embedcache.encoder.tuned import FILE, Tuned
from embedcache.errors import EmbedcacheError


class _Arrays:
    """A model's parameters by name, converted to float32 arrays when they are read."""

    def __init__(self, own: dict[str, Any]) -> None:
        self._own = own

    def __getitem__(self, name: str) -> Any:
        return self._own[name].detach().float().cpu().numpy()


def apply_tuned(model: Any, tuned: Tuned | None, name: str) -> Any:
    """Put the tuned tensors into a transformers model, rounded from float32 to the model's own dtype.

    Args:
        model: the base, as transformers loaded it.
        tuned: the tensors; None: the model is returned unchanged.
        name: of the model, for messages.

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
