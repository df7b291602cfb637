"""Which code computes an encoder's forward pass: "native", "packed" or "plain"."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import torch

from embedcache.encoder.blueprint import Blueprint, read_blueprint
from embedcache.encoder.native import NativeEncoder, backend
from embedcache.encoder.packed import Packed
from embedcache.encoder.plain import Plain
from embedcache.errors import EmbedcacheError

KERNELS = ("native", "packed", "plain")


class Runner(Protocol):
    """One forward pass.

    Attributes:
        kernel: its name. invariant: whether a row's vectors are the same to the bit in any batch.
    """

    kernel: str
    invariant: bool

    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of n rows, at least one: float32 [n, D] for each (pooling, layer).

        Layers are 0, what enters the first layer, to the number of layers. Releases the GIL while it computes.
        """


def choose_runner(
    model: Any, plain: Plain, max_length: int, device: str, kernel: str | None
) -> tuple[Runner, int | None]:
    """The fastest runner for a model on its device, or the one asked for.

    Returns:
        (runner, token id or None): rows that hold this token only ``plain`` computes (see ``Blueprint.uncounted``).

    Raises:
        EmbedcacheError: ``kernel`` cannot run this model here.
    """
    if kernel not in (None, *KERNELS):
        raise EmbedcacheError(f"unknown kernel '{kernel}': use {', '.join(KERNELS)}")
    blueprint = None if kernel == "plain" else read_blueprint(model, max_length)
    if blueprint is not None:
        for runner in _runners(blueprint, max_length, device):
            if kernel in (None, runner.kernel):
                return runner, blueprint.uncounted
    if kernel in (None, "plain"):
        return plain, None
    raise EmbedcacheError(f"the kernel '{kernel}' cannot run this {model.config.model_type} encoder on {device}")


def _runners(blueprint: Blueprint, max_length: int, device: str) -> Iterator[Runner]:
    """Those that can compute a blueprint here, the fastest first."""
    dtype = str(blueprint.word.dtype).removeprefix("torch.")
    if device == "cpu" and backend(dtype):
        with suppress(EmbedcacheError):  # sizes that it does not do
            yield NativeEncoder(blueprint, max_length, dtype)
    yield Packed(blueprint)


def count_threads(runner: Runner, device: str) -> int:
    """How many batches to compute at once.

    A native batch takes one core; torch takes all cores for one batch. At a GPU two threads take turns: one queues its
    batch while the other waits for its vectors, so that the GPU has work all the time.
    """
    if device != "cpu":
        return 2 if runner.kernel == "packed" else 1
    if runner.kernel != "native":
        return 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, torch.get_num_threads())
