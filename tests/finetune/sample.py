"""Layers, states and tasks of random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.finetune.blocks import Block, Ragged, Shape, tensor_shapes
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View

LENGTHS = [5, 1, 17, 9, 30, 2, 0, 8, 12, 33, 3, 7]
RELATIVE = np.random.default_rng(1).normal(size=(4, 2 * 40 - 1)).astype(np.float32)


def make_weights(shape: Shape, hidden: int, classes: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A layer's as a trained one's: LayerNorms near 1, matrices of some 1 / sqrt(fan in)."""
    found = {}
    for name, size in tensor_shapes(shape, hidden, classes).items():
        spread = 0.2 if len(size) == 1 else 1.3 * size[1] ** -0.5
        found[name] = (rng.normal(size=size) * spread + name.endswith(("norm1", "norm2"))).astype(np.float32)
    return found


def make_states(rng: np.random.Generator, lengths: list[int], dim: int, dtype: type) -> Ragged:
    """Texts lie one after another, with a gap of one token between them."""
    begins = np.cumsum([0, *(n + 1 for n in lengths[:-1])])
    return Ragged(rng.normal(size=(sum(lengths) + len(lengths), dim)).astype(dtype), begins, np.array(lengths))


def make_task(rng: np.random.Generator, n: int, classes: int, kind: str, n_val: int = 0) -> Task:
    """Its rows are those of states of n rows, the last n_val of them for validation."""
    y: np.ndarray = rng.integers(0, classes, n).astype(np.int32)
    if kind != "classification":
        y = (rng.integers(0, 2, (n, classes)) if kind == "multilabel" else rng.normal(size=(n, classes))).astype(
            np.float32
        )
    y = np.asfortranarray(y)  # as columns of a table lie
    x = np.empty((n, 0), np.float32)  # engines of last layers look at states
    order = rng.permutation(n)
    val = View(x, y, order[n - n_val :]) if n_val else None
    return Task(View(x, y, order[: n - n_val]), val, classes, kind=kind)


def problem(shape: Shape, kind: str = "classification", hidden: int = 0, n_val: int = 0, **settings: Any) -> tuple:
    rng = np.random.default_rng(3)
    spec = {name: settings.pop(name) for name in list(settings) if name in HeadSpec.__dataclass_fields__}
    lengths = settings.pop("lengths", LENGTHS)
    states = make_states(rng, lengths, shape.dim, settings.pop("dtype", np.float16))
    task = make_task(rng, len(lengths), 3, kind, n_val)
    block = Block(HeadSpec(hidden=hidden, **spec), 0, make_weights(shape, hidden, 3, rng), **settings)
    return states, shape, task, block
