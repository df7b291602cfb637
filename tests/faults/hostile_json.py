"""Documents with one hostile value each: every place of a JSON document, and what may be put there."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

DEEP = json.loads("[" * 500 + "]" * 500)
VALUES: list[Any] = [
    None, True, -1, 0, 1.5, 1e38, 1e308, float("nan"), float("inf"), 10**30, 2**63, "", "1", "x" * 10_000, "object",
    "U9", "int4", "\ud800", "../../etc/passwd", "\x1b[2J", [], {}, [[]], [1, "a"], {"a": {"a": 1}}, DEEP, ["a", "a"],
]  # fmt: skip
Place = tuple[str | int, ...]


def places(document: Any, at: Place = ()) -> Iterator[Place]:
    """Every key and index, depth first; of long lists the first two items."""
    inner: Any = ()
    if isinstance(document, dict):
        inner = document.items()
    elif isinstance(document, list):
        inner = list(enumerate(document))[:2]
    for key, value in inner:
        yield (*at, key)
        yield from places(value, (*at, key))


def with_value(document: Any, place: Place, value: Any, remove: bool = False) -> Any:
    """A copy with another value there, or without it."""
    document = copy.deepcopy(document)
    node = document
    for key in place[:-1]:
        node = node[key]
    if remove:
        del node[place[-1]]
    else:
        node[place[-1]] = value
    return document


def dump(document: Any) -> bytes:
    """As an attacker writes it: NaN, infinity and half surrogate pairs included."""
    return json.dumps(document).encode()


def cases(document: Any, rng: random.Random, most: int | None) -> list[tuple[Place, Any, bool]]:
    """(place, value, remove): all of them, or so many drawn."""
    every: list[tuple[Place, Any, bool]] = [(place, value, False) for place in places(document) for value in VALUES]
    every += [(place, None, True) for place in places(document)]
    return every if most is None else rng.sample(every, min(most, len(every)))
