"""Outputs of an encoder, (pooling, layer), and several of them side by side: ("cls+mean", -1), ("mean", "-1+-4")."""

from __future__ import annotations

import re
from collections.abc import Sequence

from embedcache.errors import EmbedcacheError

BESIDE = "+"
Layer = int | str  # -1 is the last; "-1+-4" are two, side by side
LAYERS = re.compile(r"-?\d{1,5}(\+-?\d{1,5})+")  # several


def parts_of(pooling: str, layer: Layer) -> list[tuple[str, int]]:
    """The outputs that are side by side, in their order: all poolings of the first layer, then of the next."""
    layers = [layer] if isinstance(layer, int) else [int(one) for one in layer.split(BESIDE)]
    return [(one, number) for number in layers for one in pooling.split(BESIDE)]


def is_several(pooling: str, layer: Layer) -> bool:
    return BESIDE in pooling or (isinstance(layer, str) and BESIDE in layer)


def read_layer(text: Layer) -> Layer:
    """A layer from an option: a number where it is one. Raises EmbedcacheError."""
    if isinstance(text, int):
        return text
    if LAYERS.fullmatch(text.strip()):
        return text.strip()
    try:
        return int(text)
    except ValueError:
        raise EmbedcacheError(
            f"--layers {text}: give whole numbers, like -1, or several side by side, like -1+-4"
        ) from None


def named_outputs(
    pooling: str | Sequence[str] | None, layer: Layer | Sequence[Layer]
) -> tuple[list[str] | None, list[Layer]]:
    """Poolings and layers that may be one, a list, or text like "cls,mean". Raises EmbedcacheError."""
    names = pooling.split(",") if isinstance(pooling, str) else pooling
    layers = [layer] if isinstance(layer, int) else layer.split(",") if isinstance(layer, str) else layer
    return None if names is None else list(names), [read_layer(one) for one in layers]


def poolings_in(poolings: Sequence[str]) -> list[str]:
    """Each pooling that is named, alone or beside others, once."""
    return list(dict.fromkeys(part for one in poolings for part in one.split(BESIDE)))
