"""The vectors of all tokens, as the last layers of an encoder read them: handed out batch by batch."""

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

# Called with a batch's texts (their indices, int64 [n]), their tokens' vectors, float32 [t, D], one text's after
# another, and where each text's begin, int64 [n + 1]. Several threads call it at once.
Keep = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


class KeepStates(NamedTuple):
    """Whom to hand the output of a layer, counted from the embeddings, 0."""

    layer: int
    keep: Keep


def states_layer(encoder: Encoder, last: int) -> int:
    """The layer, counted from the embeddings, 0, whose output the ``last`` layers of an encoder read.

    Raises:
        EmbedcacheError: it has not so many layers, or gives no vector for each token there, which is tried out.
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
        raise _no_states(encoder, "its layers join tokens, so that what they read is not a vector for each")
    return layer


def _no_states(encoder: Encoder, why: str) -> EmbedcacheError:
    return EmbedcacheError(f"no token states of {encoder.source}: {why}; leave --tokens out")


def beside_empty(
    rows: TokenRows,
    outputs: Sequence[tuple[str, int]],
    widths: Sequence[int],
    forward: Callable[[TokenRows], list[np.ndarray]],
) -> list[np.ndarray]:
    """The vectors of all rows, of which some have no token at all: zeros, and ``forward`` of the others."""
    empty, rest = np.flatnonzero(rows.lengths == 0), np.flatnonzero(rows.lengths)
    sizes = [0 if name == TOKEN_STATES else len(empty) for name, _ in outputs]
    parts = [(empty, [np.zeros((n, widths[layer]), np.float32) for n, (_, layer) in zip(sizes, outputs, strict=True)])]
    parts += [(rest, forward(rows.take(rest)))] if len(rest) else []
    return rows_in_order(parts, outputs, rows.lengths)


def rows_in_order(
    parts: Sequence[tuple[np.ndarray, list[np.ndarray]]], outputs: Sequence[tuple[str, int]], lengths: np.ndarray
) -> list[np.ndarray]:
    """The vectors of all rows, one array per output, out of parts, each with its rows' places in the whole.

    lengths: int64 [n], tokens of each row.
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
