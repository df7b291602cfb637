"""The encoders of this process, one per device, as workers of a pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedcache.cache.fill import Filler, Window, to_store
from embedcache.cache.layout import Output
from embedcache.extraction.pipeline import Pipeline, Tell

if TYPE_CHECKING:
    from embedcache.encoder import Encoder, Tokens

# Blocks per window. Texts are sorted by length within a window, and a killed run loses the windows in progress. A GPU's
# batches need larger ones.
WINDOW_BLOCKS = {"cpu": 1, "cuda": 16}
CORES_PER_BLOCK = 4


class Encoded(NamedTuple):
    """The encoded texts of one window.

    Attributes:
        vectors: [n, D] for each output.
        truncated: bool [n], whether the text was truncated.
        counts: int32 [n, 2], see ``Tokens.counts``.
    """

    vectors: list[np.ndarray]
    truncated: np.ndarray
    counts: np.ndarray


Batches = list[tuple[np.ndarray, "Tokens"]]  # (indices, tokens) of texts that may share batches


def tokenize(encoder: Encoder, texts: Sequence[str], guests: np.ndarray) -> Batches:
    """Tokenize the texts of a window, in one group, or in two where some are guests (bool [n], see ``Window``)."""
    groups = [np.flatnonzero(group) for group in (~guests, guests) if group.any()]
    return [(group, encoder.tokenize([texts[int(i)] for i in group])) for group in groups]


def encode(
    encoder: Encoder, batches: Batches, outputs: Sequence[Output], batch_tokens: int | None, tell: Tell
) -> Encoded:
    """Encode a window. ``tell`` is called with each batch's number of tokens and the indices of its texts."""
    n = sum(len(group) for group, _ in batches)
    vectors = [np.empty((n, encoder.width(output)), np.float32) for output in outputs]
    found = Encoded(vectors, np.empty(n, bool), np.empty((n, 2), np.int32))
    for group, tokens in batches:
        lengths = tokens.lengths

        def told(batch: np.ndarray, group: np.ndarray = group, lengths: np.ndarray = lengths) -> None:
            tell(int(lengths[batch].sum()), group[batch])

        parts = encoder.encode_tokens(tokens, outputs, batch_tokens=batch_tokens, tell=told)
        for whole, part in zip(found.vectors, parts, strict=True):
            whole[group] = part
        found.truncated[group], found.counts[group] = tokens.truncated, tokens.counts
    return found


class LocalWorker:
    """Tokenizes and computes with one encoder."""

    def __init__(self, encoder: Encoder, filler: Filler, batch_tokens: int | None) -> None:
        self._encoder, self._outputs, self._batch_tokens = encoder, filler.outputs, batch_tokens
        self._texts, self._store = filler.writer.cache.texts, filler.writer.cache.encoder["store"]

    def prepare(self, window: Window, tell: Tell) -> tuple[list[str], Batches]:
        texts = [self._texts[int(row)] for row in window.new]
        return texts, tokenize(self._encoder, texts, window.guests)

    def compute(self, window: Window, prepared: tuple[list[str], Batches], tell: Tell) -> Encoded:
        texts, batches = prepared

        def told(tokens: int, batch: np.ndarray) -> None:
            tell(tokens, window.new[batch])

        found = encode(self._encoder, batches, self._outputs, self._batch_tokens, told)
        return found._replace(vectors=[to_store(one, self._store, window.new, texts) for one in found.vectors])


class LocalEncoders:
    """Encoders of one model. ``sees_padding``: whether only texts of equal length share a pass."""

    def __init__(self, encoders: Sequence[Encoder], batch_tokens: int | None = None) -> None:
        self._encoders, self._batch_tokens = encoders, batch_tokens
        self.sees_padding = encoders[0].sees_padding

    def width(self, output: Output) -> int:
        """The width of an output's vectors. Raises EmbedcacheError for a layer that the model does not have."""
        return self._encoders[0].width(output)

    def fill(self, filler: Filler, tell: Tell) -> None:
        """Encode the texts that have no vectors in ``filler``, and write them."""
        workers = [LocalWorker(one, filler, self._batch_tokens) for one in self._encoders]

        def finish(window: Window, encoded: Encoded | None) -> None:
            filler.finish(window, *(encoded or ()))

        one = self._encoders[0]
        blocks = window_blocks(one.device, one.invariant, one.threads)
        Pipeline(filler.windows(blocks), workers, finish, tell).run()

    @property
    def tokenized_by(self) -> str:
        return self._encoders[0].tokenized_by

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


def window_blocks(device: str, invariant: bool, threads: int) -> int:
    """The number of blocks in a window.

    Where a vector depends on its batch the number is fixed, so that a resumed run makes the same batches. Otherwise it
    grows with the number of cores, so that all have work.
    """
    blocks = WINDOW_BLOCKS[device.partition(":")[0]]
    return max(blocks, threads // CORES_PER_BLOCK) if invariant else blocks
