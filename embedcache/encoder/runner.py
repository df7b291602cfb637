"""Which code computes an encoder's forward pass: "native", "packed" or "plain"."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, Protocol

import numpy as np
import torch

from embedcache.encoder.at_once import cpu_threads
from embedcache.encoder.read_model import read_blueprint
from embedcache.encoder.read_rotary import read_rotary
from embedcache.encoder.runner_native import NativeEncoder, may_be_native
from embedcache.encoder.runner_packed import Packed
from embedcache.encoder.runner_plain import Plain
from embedcache.encoder.runner_rotary import RotaryEncoder
from embedcache.errors import EmbedcacheError, note

KERNELS = ("native", "packed", "plain")
# The cosine that the two codes of a rotary family must reach on one row: what rounding alone keeps above.
AGREE = {"float32": 0.9999, "bfloat16": 0.99}
TRIED_TOKENS = 24


class Runner(Protocol):
    """The code of the forward pass.

    Attributes:
        kernel: its name.
        invariant: whether a row's vectors are the same to the bit in any batch.
        batch_tokens: its default budget of a batch, in padded tokens; None: the device's default.
        causal: whether a token sees only itself and the tokens before it; unknown for ``plain``.
    """

    kernel: str
    invariant: bool
    causal: bool
    batch_tokens: int | None

    def run(self, ids: Sequence[Sequence[int]], outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        """Vectors of n rows, at least one: float32 [n, D] for each (pooling, layer).

        Layers count from 0, the input of the first layer, to the number of layers. The GIL is released while it
        computes.
        """


def weights_dtype(compute_dtype: str, device: str, kernel: str | None) -> str:
    """The dtype to load weights in: float32 for the native runner, which rounds the operands of its products itself."""
    return "float32" if may_be_native(compute_dtype, device, kernel) else compute_dtype


def choose_runner(
    model: Any,
    plain: Plain,
    max_length: int,
    device: str,
    kernel: str | None,
    compute_dtype: str,
    kept: Sequence[str] = (),
) -> tuple[Runner, int | None]:
    """Choose the fastest runner for a model on its device, or the one asked for.

    Unless it is the native runner, the model is converted from ``weights_dtype`` to ``compute_dtype``.

    Args:
        model: of transformers, on ``device``.
        plain: its plain runner.
        max_length: the most tokens of a row.
        device: "cpu", "cuda" or "cuda:N".
        kernel: the runner asked for; None: the fastest.
        compute_dtype: the dtype to compute in.
        kept: with int8, the products that stay in bfloat16.

    Returns:
        (runner, token id or None). Only ``plain`` can compute rows that hold this token (see ``Blueprint.uncounted``).

    Raises:
        EmbedcacheError: ``kernel`` cannot run this model here.
    """
    if kernel not in (None, *KERNELS):
        raise EmbedcacheError(f"unknown kernel '{kernel}': use {', '.join(KERNELS)}")
    blueprint = None if kernel == "plain" else read_blueprint(model, max_length)
    if blueprint and may_be_native(compute_dtype, device, kernel):
        with suppress(EmbedcacheError) if compute_dtype != "int8" else nullcontext():  # unsupported sizes
            return NativeEncoder(blueprint, max_length, compute_dtype, kept), blueprint.uncounted
    if compute_dtype == "int8":
        raise EmbedcacheError(
            f"this {model.config.model_type} encoder cannot be computed in int8, as its configuration or weights are "
            "not those of its family: use --dtype bfloat16 or float32"
        )
    rotary = None if blueprint or not may_be_native(compute_dtype, device, kernel) else read_rotary(model, max_length)
    if rotary:
        with suppress(EmbedcacheError):
            encoder = RotaryEncoder(rotary, compute_dtype)
            if _agree(encoder, plain, len(rotary.word), min(TRIED_TOKENS, max_length), compute_dtype):
                return encoder, None
            note(
                f"the native code for {model.config.model_type} gives other vectors than the installed transformers: "
                "transformers computes it"
            )
    model.to(getattr(torch, compute_dtype))
    blueprint = read_blueprint(model, max_length) if blueprint and blueprint.distances is None else None
    if blueprint and kernel in (None, "packed"):
        return Packed(blueprint), blueprint.uncounted
    if kernel in (None, "plain"):
        return plain, None
    raise EmbedcacheError(f"the kernel '{kernel}' cannot run this {model.config.model_type} encoder on {device}")


def _agree(encoder: RotaryEncoder, plain: Plain, vocabulary: int, length: int, compute_dtype: str) -> bool:
    """Whether both give a row of ``length`` tokens from all over the vocabulary the same vector, but for rounding.

    The row costs one pass of transformers. It would show a version of it that reads a family's settings in another way.
    """
    row = np.linspace(0, vocabulary - 1, length).astype(np.int32).tolist()
    outputs = [("mean", plain.layers)]
    (ours,), (theirs,) = (runner.run([row], outputs)[0].astype(np.float64) for runner in (encoder, plain))
    return bool(ours @ theirs >= AGREE[compute_dtype] * np.linalg.norm(ours) * np.linalg.norm(theirs))


def count_threads(runner: Runner, device: str) -> int:
    """The number of batches to compute at once.

    On a CPU a batch uses one core. On a GPU two threads take turns: one queues its batch while the other waits for its
    vectors, so that the GPU always has work.
    """
    if device == "cpu":
        return cpu_threads()
    return 2 if runner.kernel == "packed" else 1
