"""The vectors of all tokens that the last layers of an encoder read, handed out batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedcache.encoder.poolings import TOKEN_STATES
from embedcache.encoder.row_check import SHORT
from embedcache.encoder.token_rows import TokenRows, row_offsets, take_ragged
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.encoder.encoder import Encoder

# Called with the indices of a batch's texts, int64 [n], the vectors of their tokens, float32 [t, D], one text after
# another, and where each text begins, int64 [n + 1]. Several threads call it at the same time.
Keep = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


class KeepStates(NamedTuple):
    """Which layer's output to keep, counted from the embeddings, 0, and the function that takes it."""

    layer: int
    keep: Keep


def states_layer(encoder: Encoder, last: int) -> int:
    """The layer whose output the ``last`` layers of an encoder read, counted from the embeddings, 0.

    Raises:
        EmbedcacheError: the encoder has fewer layers, or a test row does not get one vector per token there.
    """
    if encoder.kernel == "static":
        raise _no_states(encoder, "it is a static model, a table of tokens' vectors, without layers")
    if not 1 <= last <= encoder.layers:
        raise EmbedcacheError(f"--tokens {last}: {encoder.source} has {encoder.layers} layers; keep 1 of them or more")
    if encoder.chunk:
        raise _no_states(encoder, "texts in chunks (--chunk) are several rows each")
    layer = encoder.layers - last
    if encoder.kernel != "plain":
        return layer
    row = encoder.tokenize([SHORT]).ids[0]
    try:
        (found,) = encoder.encode([row], [(TOKEN_STATES, layer)])
    except (IndexError, TypeError):  # an architecture's own code: the states of other layers, or none
        raise _no_states(encoder, "transformers does not show what the layers of this architecture read") from None
    if len(found) != len(row):
        raise _no_states(encoder, "its layers join tokens, so they do not read one vector per token")
    return layer


def _no_states(encoder: Encoder, why: str) -> EmbedcacheError:
    return EmbedcacheError(f"no token states of {encoder.source}: {why}; leave --tokens out")


def beside_empty(
    rows: TokenRows,
    outputs: Sequence[tuple[str, int]],
    widths: Sequence[int],
    forward: Callable[[TokenRows], list[np.ndarray]],
) -> list[np.ndarray]:
    """The vectors of all rows: zeros for those without tokens, ``forward`` of the others.

    Args:
        rows: n of them, some without tokens.
        outputs: (pooling, layer) pairs, layers counted from 0.
        widths: of each layer's vectors.
        forward: computes the vectors of some rows.
    """
    empty, rest = np.flatnonzero(rows.lengths == 0), np.flatnonzero(rows.lengths)
    sizes = [0 if name == TOKEN_STATES else len(empty) for name, _ in outputs]
    parts = [(empty, [np.zeros((n, widths[layer]), np.float32) for n, (_, layer) in zip(sizes, outputs, strict=True)])]
    parts += [(rest, forward(rows.take(rest)))] if len(rest) else []
    return rows_in_order(parts, outputs, rows.lengths)


def rows_in_order(
    parts: Sequence[tuple[np.ndarray, list[np.ndarray]]], outputs: Sequence[tuple[str, int]], lengths: np.ndarray
) -> list[np.ndarray]:
    """Join parts to one array per output.

    Args:
        parts: (places of the rows in the whole, an array per output) of each part.
        outputs: (pooling, layer) pairs.
        lengths: int64 [n], the tokens of each row of the whole.
    """
    order = np.concatenate([places for places, _ in parts])
    back, whole = np.argsort(order), []
    for (name, _), pieces in zip(outputs, zip(*(vectors for _, vectors in parts), strict=True), strict=True):
        together = np.concatenate(pieces)
        if name == TOKEN_STATES:
            whole.append(take_ragged(together, row_offsets(lengths[order]), back)[0])
        else:
            whole.append(together[back])
    return whole
