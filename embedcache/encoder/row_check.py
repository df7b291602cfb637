"""Whether a row's vectors depend on what stands beside it in a batch, and whether its first token sees the others.

Both are found by trying, for every architecture.

Attention masks keep most encoders' rows apart from padding. Some architectures mix neighbouring tokens and do not look
at the mask (convolutions, Fourier transforms, embeddings joined with their neighbours'): there a short text gets
another vector beside a long one than alone. Rows of equal length need no padding, and so do not see any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError

Run = Callable[[Sequence[Sequence[int]], Sequence[tuple[str, int]]], list[np.ndarray]]
ROUNDING = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}  # of the largest number, in another matrix product
SHORT, LONG = "a b", "a b " * 20


def sees_padding(
    run: Run,
    tokenize: Callable[[Sequence[str]], Any],
    layers: int,
    compute_dtype: str,
    name: str,
) -> bool:
    """Whether a short row's vectors are others beside a long one.

    Args:
        run: of a runner.
        tokenize: texts to ``Tokens``.
        layers: how many.
        compute_dtype: how much rounding alone may change.
        name: of the model, for messages.

    Raises:
        EmbedcacheError: they are others even beside a row of equal length, so that no batch is safe.
    """
    short, long = tokenize([SHORT, LONG]).ids
    outputs = [("cls", layers), ("mean", layers)]

    def first(*rows: Sequence[int]) -> np.ndarray:
        return np.stack([vectors[0] for vectors in run(rows, outputs)])

    alone = first(short)
    room = ROUNDING[compute_dtype] * float(np.abs(alone).max())
    turned = list(short)[::-1]
    if np.abs(first(short, turned) - alone).max() > room:
        raise EmbedcacheError(
            f"{name}: a text's vector depends on the other texts that are encoded with it: use another model"
        )
    return len(long) > len(short) and bool(np.abs(first(short, long) - alone).max() > room)


def first_is_blind(run: Run, tokenize: Callable[[Sequence[str]], Any], layers: int) -> bool:
    """Whether the first token's vector of the last layer is the same whatever stands behind it: a causal model.

    Args as those of ``sees_padding``.
    """
    row = list(tokenize([LONG]).ids[0])
    found = [run([one], [("cls", layers)])[0] for one in (row, row[:1] * len(row))]
    return bool(np.abs(found[0] - found[1]).max() <= 1e-6 * np.abs(found[0]).max())
