"""The encoders of this process, one for each device, as workers of a pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embedcache.cache.fill import Filler, Window
from embedcache.cache.strings import Strings
from embedcache.pipeline import Pipeline, Tell

if TYPE_CHECKING:
    from embedcache.encoder import Encoder, Tokens

# Texts are sorted by length within a window, and a killed run repeats those in work. A GPU's batches need the larger.
WINDOW_BLOCKS = {"cpu": 1, "cuda": 8}
CORES_PER_BLOCK = 8


class Encoded(NamedTuple):
    """Vectors of the texts of one window, float [n, D] for each output, and bool [n], whether the text was cut."""

    vectors: Sequence[np.ndarray]
    truncated: np.ndarray


class LocalWorker:
    """Tokenises and computes with one encoder."""

    def __init__(
        self, encoder: Encoder, texts: Strings, outputs: Sequence[tuple[str, int]], batch_tokens: int | None
    ) -> None:
        self._encoder, self._texts, self._outputs, self._batch_tokens = encoder, texts, outputs, batch_tokens

    def prepare(self, window: Window) -> Tokens:
        return self._encoder.tokenize([self._texts[int(row)] for row in window.new])

    def compute(self, window: Window, prepared: Tokens, tell: Tell) -> Encoded:
        lengths = prepared.lengths
        vectors = self._encoder.encode_tokens(
            prepared,
            self._outputs,
            batch_tokens=self._batch_tokens,
            tell=lambda batch: tell(int(lengths[batch].sum()), window.new[batch]),
        )
        return Encoded(vectors, prepared.truncated)


class LocalEncoders:
    """Encoders of one model. ``dim``: D, the width of the vectors."""

    def __init__(self, encoders: Sequence[Encoder], batch_tokens: int | None = None) -> None:
        self._encoders, self._batch_tokens = encoders, batch_tokens
        self.dim = encoders[0].dim

    def check_layer(self, layer: int) -> None:
        """Raises EmbedcacheError for a layer that the model does not have."""
        self._encoders[0].layer_number(layer)

    def fill(self, filler: Filler, tell: Tell) -> None:
        """Encode and write all that ``filler`` lacks."""
        texts = filler.writer.cache.texts
        workers = [LocalWorker(one, texts, filler.outputs, self._batch_tokens) for one in self._encoders]

        def finish(window: Window, encoded: Encoded | None) -> None:
            filler.finish(window, *(encoded or ()))

        Pipeline(filler.windows(window_blocks(self._encoders[0])), workers, finish, tell).run()

    def close(self) -> None:
        """There is nothing to give back."""


def window_blocks(encoder: Any) -> int:
    """The blocks of one window.

    Where a vector depends on its batch it is a fixed number, so that a resumed run makes the same batches. Else a
    machine of many cores gets enough to share out.
    """
    blocks = WINDOW_BLOCKS[encoder.device.partition(":")[0]]
    if encoder.device == "cpu" and getattr(encoder, "invariant", False):
        return max(blocks, (os.cpu_count() or 1) // CORES_PER_BLOCK)
    return blocks
