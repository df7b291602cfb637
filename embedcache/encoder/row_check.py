"""Test whether a row's vectors depend on the other rows of its batch, and whether its first token sees those after it.

Both tests encode short texts, whatever the architecture.

In most encoders the attention mask keeps a row apart from its padding. Some architectures mix neighbouring tokens
without regard to the mask (convolutions, Fourier transforms, embeddings joined with their neighbours'): there a short
text gets another vector next to a long one than alone. Rows of equal length need no padding, so they are safe.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError

Run = Callable[[Sequence[Sequence[int]], Sequence[tuple[str, int]]], list[np.ndarray]]
ROUNDING = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.02}  # relative to the largest number, in another batch size
SHORT, LONG = "a b", "a b " * 20


def sees_padding(
    run: Run,
    tokenize: Callable[[Sequence[str]], Any],
    layers: int,
    compute_dtype: str,
    name: str,
) -> bool:
    """Whether a short row's vectors change next to a long one.

    Args:
        run: of a runner.
        tokenize: texts to ``Tokens``.
        layers: the number of layers.
        compute_dtype: decides how much rounding alone may change.
        name: of the model, for messages.

    Raises:
        EmbedcacheError: they change even next to a row of equal length, so that no batch is safe.
    """
    short, long = tokenize([SHORT, LONG]).ids
    outputs = [("cls", layers), ("mean", layers)]

    def first(*rows: Sequence[int]) -> np.ndarray:
        return np.stack([vectors[0] for vectors in run(rows, outputs)])

    alone = first(short)
    room = ROUNDING[compute_dtype] * float(np.abs(alone).max())
    turned = list(short)[::-1]
    if np.abs(first(short, turned) - alone).max() > room:
        raise EmbedcacheError(f"{name}: a text's vector depends on the other texts in its batch: use another model")
    return len(long) > len(short) and bool(np.abs(first(short, long) - alone).max() > room)


def first_is_blind(run: Run, tokenize: Callable[[Sequence[str]], Any], layers: int) -> bool:
    """Whether the last layer's vector of the first token does not depend on the tokens after it, as in a causal model.

    The arguments are those of ``sees_padding``.
    """
    row = list(tokenize([LONG]).ids[0])
    found = [run([one], [("cls", layers)])[0] for one in (row, row[:1] * len(row))]
    return bool(np.abs(found[0] - found[1]).max() <= 1e-6 * np.abs(found[0]).max())
