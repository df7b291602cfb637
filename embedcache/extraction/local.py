"""The encoders of this process, one per device, as workers of a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from embedcache.cache.fill import Filler, Window
from embedcache.cache.layout import Output
from embedcache.cache.state_writer import State, to_half
from embedcache.cache.stored_rows import to_store
from embedcache.encoder.token_vectors import KeepStates, states_layer
from embedcache.extraction.pipeline import Pipeline, Tell

if TYPE_CHECKING:
    from embedcache.encoder import Encoder, Tokens

# Blocks per window. Texts are sorted by length within a window, and a killed run loses the windows in progress. A GPU's
# batches need larger ones.
WINDOW_BLOCKS = {"cpu": 1, "cuda": 16}
CORES_PER_BLOCK = 4
COUNTED = 8192  # texts per call where tokens are only counted


class Encoded(NamedTuple):
    """The encoded texts of one window.

    Attributes:
        vectors: [n, D] for each output.
        truncated: bool [n], whether the text was truncated.
        counts: int32 [n, 2], see ``Tokens.counts``.
        states: the token states that were made, by row, see ``StateFill.finish``.
    """

    vectors: list[np.ndarray]
    truncated: np.ndarray
    counts: np.ndarray
    states: dict[int, State]


class TextGroup(NamedTuple):
    """Texts of a window that may share batches.

    Attributes:
        places: int64, their indices in ``Window.texts``.
        tokens: of these texts.
        new: whether their vectors are asked for, or only their token states.
    """

    places: np.ndarray
    tokens: Tokens
    new: bool


def tokenize(encoder: Encoder, window: Window, texts: Sequence[str]) -> list[TextGroup]:
    """Tokenize the texts of a window in up to four groups: new texts and others, guests (see ``Window``) and others."""
    new, groups = np.arange(len(texts)) < len(window.new), []
    for is_new, guest in ((True, False), (True, True), (False, False), (False, True)):
        places = np.flatnonzero((new == is_new) & (window.guests == guest))
        if len(places):
            groups.append(TextGroup(places, encoder.tokenize([texts[int(i)] for i in places]), is_new))
    return groups


@dataclass(frozen=True)
class Work:
    """What to make from the texts of each window.

    Attributes:
        outputs: which vectors the new texts get.
        layer: the layer whose output is kept as token states, counted from the embeddings; None: none is.
        store: the type of the vectors in the file.
        batch_tokens: the budget of a batch, in padded tokens; None: what suits the device.
    """

    outputs: Sequence[Output]
    layer: int | None
    store: str
    batch_tokens: int | None

    @classmethod
    def of(cls, filler: Filler, batch_tokens: int | None) -> Work:
        layer = None if filler.states is None else filler.states.layer
        return cls(filler.outputs, layer, filler.writer.cache.encoder["store"], batch_tokens)


def encode(
    encoder: Encoder,
    work: Work,
    window: Window,
    texts: Sequence[str],
    groups: Sequence[TextGroup],
    tell: Tell,
    put: Callable[[int, np.ndarray], State],
) -> Encoded:
    """Encode a window.

    Args:
        encoder: the encoder.
        work: what to make.
        window: the window.
        texts: its texts, in the order of ``window.texts``.
        groups: as ``tokenize`` returns them.
        tell: called with each batch's number of tokens and the rows of its texts.
        put: called with a row and its token states, float16 [t, D], as soon as they are computed, by several threads.
            It returns what ``Filler.finish`` must know about them.

    Raises:
        EmbedcacheError: a vector or a token state is not finite in the dtype of the file.
    """
    rows, n = window.texts, len(window.new)
    vectors = [np.empty((n, encoder.width(output)), np.float32) for output in work.outputs]
    found = Encoded(vectors, np.empty(n, bool), np.empty((n, 2), np.int32), {})
    keeper = _Keeper(rows, texts, np.isin(rows, window.states), put, found.states)
    for places, tokens, new in groups:
        # Even if a killed run has made some of the states, all new texts stay together, so that batches are the same.
        states = None
        if work.layer is not None and (not new or keeper.wanted[:n].any()):
            states = KeepStates(work.layer, partial(keeper.keep, places))
        told = partial(_told, tell, rows[places], tokens.lengths)
        outputs = work.outputs if new else []
        parts = encoder.encode_tokens(tokens, outputs, batch_tokens=work.batch_tokens, tell=told, states=states)
        if new:
            for whole, part in zip(found.vectors, parts, strict=True):
                whole[places] = part
            found.truncated[places], found.counts[places] = tokens.truncated, tokens.counts
    return found._replace(vectors=[to_store(one, work.store, window.new, texts) for one in found.vectors])


def _told(tell: Tell, rows: np.ndarray, lengths: np.ndarray, batch: np.ndarray) -> None:
    tell(int(lengths[batch].sum()), rows[batch])


@dataclass(frozen=True)
class _Keeper:
    """Hands out a window's token states, batch by batch, for the texts that are ``wanted`` (bool, one per text)."""

    rows: np.ndarray
    texts: Sequence[str]
    wanted: np.ndarray
    put: Callable[[int, np.ndarray], State]
    found: dict[int, State]

    def keep(self, places: np.ndarray, batch: np.ndarray, values: np.ndarray, offsets: np.ndarray) -> None:
        """A ``token_vectors.Keep``, after ``places``: int64, the indices in the window of the group's texts."""
        here = places[batch]
        half = to_half(values, offsets, self.rows[here], [self.texts[int(place)] for place in here])
        for i in np.flatnonzero(self.wanted[here]).tolist():
            row = int(self.rows[here[i]])
            self.found[row] = self.put(row, half[offsets[i] : offsets[i + 1]])


class LocalWorker:
    """Tokenizes and computes with one encoder."""

    def __init__(self, encoder: Encoder, filler: Filler, batch_tokens: int | None) -> None:
        self._encoder, self._filler, self._work = encoder, filler, Work.of(filler, batch_tokens)
        self._texts = filler.writer.cache.texts

    def prepare(self, window: Window, tell: Tell) -> tuple[list[str], list[TextGroup]]:
        texts = [self._texts[int(row)] for row in window.texts]
        return texts, tokenize(self._encoder, window, texts)

    def compute(self, window: Window, prepared: tuple[list[str], list[TextGroup]], tell: Tell) -> Encoded:
        return encode(self._encoder, self._work, window, *prepared, tell, self._put)

    def _put(self, row: int, values: np.ndarray) -> State:
        assert self._filler.states is not None
        return self._filler.states.put(row, values)


class LocalEncoders:
    """Encoders of one model. ``sees_padding``: whether only texts of equal length share a pass."""

    def __init__(self, encoders: Sequence[Encoder], batch_tokens: int | None = None) -> None:
        self._encoders, self._batch_tokens = encoders, batch_tokens
        self.sees_padding = encoders[0].sees_padding

    def width(self, output: Output) -> int:
        """The width of an output's vectors. Raises EmbedcacheError for a layer that the model does not have."""
        return self._encoders[0].width(output)

    def states_layer(self, last: int) -> int:
        """The layer whose output the ``last`` layers read. Raises EmbedcacheError where there are no such states."""
        return states_layer(self._encoders[0], last)

    def lengths(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens of each text are read, int64 [n]."""
        encoder, parts = self._encoders[0], range(0, len(texts), COUNTED)
        found = [encoder.tokenize(texts[start : start + COUNTED]).lengths for start in parts]
        return np.concatenate([np.empty(0, np.int64), *found])

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
