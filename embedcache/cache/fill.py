"""Fill the missing blocks of a file: vectors that exist somewhere are copied, the others asked of an encoder.

The work is cut into windows of neighbouring blocks. What has to be encoded for a window depends on nothing that a kill
or another window changes, so windows can be encoded ahead, in any order and anywhere; they are finished in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import valid_blocks
from embedcache.cache.create import Writer
from embedcache.cache.file import Cache
from embedcache.cache.layout import BLOCK_ROWS, Output
from embedcache.cache.reuse import Donors, find_donors, sound_blocks
from embedcache.cache.state_writer import State, StateFill
from embedcache.cache.stored_rows import no_rows
from embedcache.cache.tokens import counts_of


@dataclass(frozen=True)
class Window:
    """Blocks that are filled and committed together.

    Attributes:
        start, stop: the blocks, the last one exclusive.
        missing: for every output the rows of its missing blocks, in order.
        new: int64, the texts that must be encoded for them: each once, by its first row, in order.
        guests: bool, those of ``texts`` that must not be in a batch with the others.
        states: int64, the texts whose token states must be made, as ``new``.
    """

    start: int
    stop: int
    missing: dict[Output, np.ndarray]
    new: np.ndarray
    guests: np.ndarray
    states: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def texts(self) -> np.ndarray:
        """int64, all that goes through the encoder: ``new``, then those of ``states`` that have their vectors."""
        return np.concatenate([self.new, np.setdiff1d(self.states, self.new)])


class Filler:
    """The plan for one file: which blocks are missing, which texts must be encoded for them.

    Attributes:
        lacking: bool [N], the rows whose texts have no vector; of equal texts only the first row.
        states: where token states go, and which texts have none; None where they are not kept.
        damaged: blocks whose bytes do not agree with their checksum; they are filled like missing ones.
    """

    def __init__(
        self,
        writer: Writer,
        first: np.ndarray,
        others: Sequence[Cache] = (),
        donors: dict[Output, Donors] | None = None,
        guests: np.ndarray | None = None,
        states: StateFill | None = None,
    ) -> None:
        """first: [N] for each row the first with the same text. others: caches of the same encoder to copy from.

        donors: instead, what can be copied from where, if that is known; the first cache of each is the file itself.
        guests: bool [N], rows whose texts go into batches of their own; none by default.
        """
        self.writer, self.first, self.states = writer, first, states
        self._guests = np.zeros(len(first), bool) if guests is None else guests
        cache = writer.cache
        self.outputs = cache.outputs
        vectors = {output: valid_blocks(cache, path) for output, path in cache.output_paths.items()}
        absent = {output: cache.absent_blocks(path) for output, path in cache.output_paths.items()}
        self.damaged = sum(int((~vectors[output] & ~absent[output]).sum()) for output in self.outputs)
        counted = np.ones(cache.layout.blocks, bool)
        if cache.layout.counted:
            counted = valid_blocks(cache, lay.TOKENS)
            self.damaged += int((~counted & ~cache.absent_blocks(lay.TOKENS)).sum())
        # A block of vectors counts if its bytes and its texts' token counts agree with their checksums: (blocks,) bool.
        self.valid = {output: valid & counted for output, valid in vectors.items()}
        self.donors = donors or self._find_donors([cache, *others])
        self.lacking = np.zeros(len(first), bool)
        for output, valid in self.valid.items():
            missing = np.repeat(~valid, BLOCK_ROWS)[: len(first)]  # (N,) bool, from (blocks,)
            self.lacking |= missing & (self.donors[output].source < 0)
        # The first row of a text that lies in a sound block is a donor, so all others lie in a block that is missing.
        self.lacking &= first == np.arange(len(first))

    @property
    def encoded(self) -> np.ndarray:
        """bool [N], the rows whose texts go through the encoder; of equal texts only the first row."""
        return self.lacking if self.states is None else self.lacking | self.states.lacking

    def _find_donors(self, caches: list[Cache]) -> dict[Output, Donors]:
        """Where the vector of each text already is; with nothing missing, nothing is looked for."""
        found, own = {}, caches[0]
        for output, valid in self.valid.items():
            known = [] if valid.all() else caches
            sound = [valid if cache is own else sound_blocks(cache, output) for cache in known]
            found[output] = find_donors(own.hashes, list(zip(known, sound, strict=True)), output)
        return found

    def windows(self, size: int) -> Iterator[Window]:
        """Every run of ``size`` blocks, counted from the first, in which something is missing."""
        for start in range(0, self.writer.cache.layout.blocks, size):
            stop = min(start + size, self.writer.cache.layout.blocks)
            missing = {output: self._rows(start, valid[start:stop]) for output, valid in self.valid.items()}
            row, end = start * BLOCK_ROWS, stop * BLOCK_ROWS
            states = np.empty(0, np.int64)
            if self.states is not None:
                states = row + np.flatnonzero(self.states.lacking[row:end])
            if any(map(len, missing.values())) or len(states):
                new = row + np.flatnonzero(self.lacking[row:end])
                window = Window(start, stop, missing, new, np.empty(0, bool), states)
                yield replace(window, guests=self._guests[window.texts])

    def ready(self, window: Window) -> bool:
        """Whether all that needs no encoder can be copied now: no text waits for an earlier window."""
        return all(
            (np.isin(texts, window.new) | (self.donors[output].source[texts] >= 0)).all()
            for output, texts in ((output, self.first[rows]) for output, rows in window.missing.items())
        )

    def finish(
        self,
        window: Window,
        found: Sequence[np.ndarray] = (),
        cut: np.ndarray | None = None,
        counts: np.ndarray | None = None,
        states: Mapping[int, State] | None = None,
    ) -> None:
        """Write a window and commit it: bytes first, then the checksums of all its blocks in one write.

        Windows are finished in order: a text may have its vector from an earlier one.

        Args:
            window: as ``windows`` gave it.
            found: for each output the vectors of ``window.new``, [n, D], as ``to_store`` gives them; none for none.
            cut: bool [n], which of them were truncated.
            counts: int32 [n, 2], their tokens, as ``Tokens.counts``.
            states: by the rows of ``window.states``, see ``StateFill.finish``.

        Raises:
            EmbedcacheError: no space; the file was replaced.
        """
        cache = self.writer.cache
        found = found or [no_rows(cache.encoder["store"], cache.width(one)) for one in self.outputs]
        cut = np.empty(0, bool) if cut is None else cut
        # 1. The bytes of every output's missing blocks, and of their texts' token counts.
        for output, vectors in zip(self.outputs, found, strict=True):
            self._write(output, window, vectors.astype(cache.encoder["store"], copy=False), cut)
        self.write_counts(window, counts)
        # 2. If the file is still ours, the checksums: the counts' before the vectors', so that no block counts without.
        self.writer.check()
        self.finish_states(states)
        self.commit_counts(window)
        # 3. From here on the new vectors are donors for later windows.
        for output, rows in window.missing.items():
            if len(rows):
                self.writer.commit(cache.output_paths[output], window.start, window.stop)
            self.donors[output].add(0, window.new)

    def finish_states(self, states: Mapping[int, State] | None) -> None:
        """Before the vectors' checksums, so that a killed run makes the same batches again."""
        if self.states is not None and states:
            self.states.finish(states)

    def _write(self, output: Output, window: Window, found: np.ndarray, cut: np.ndarray) -> None:
        """Vectors and flags of whole missing blocks."""
        rows = window.missing[output]
        vectors, truncated = self.assemble(output, window, found, cut)
        for start in range(0, len(rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            self.writer.put_vectors(self.writer.cache.output_paths[output], int(rows[start]), vectors[part])
            self.writer.put(lay.TRUNCATED, int(rows[start]), truncated[part])

    def write_counts(self, window: Window, counts: np.ndarray | None) -> None:
        """The tokens of the texts in all missing blocks: new ones, or as the file or a donor has them."""
        cache = self.writer.cache
        if not cache.layout.counted:
            return
        # 1. What the file itself has of these texts, outside of the missing blocks.
        rows = np.unique(np.concatenate([*window.missing.values()]))  # (n,) int64, ascending
        if not len(rows):
            return
        same_text = self.first[rows]  # (n,): the first row with each one's text
        known = counts_of(cache, same_text)  # (n, 2) int32, -1 for not known
        known[np.isin(same_text, rows)] = -1  # what the missing blocks hold is not sound
        # 2. What other caches have of the rest.
        for donors in self.donors.values():
            source = np.where(known[:, 0] < 0, donors.source[same_text], -1)
            for k in np.unique(source[source >= 0]):
                if isinstance(donor := donors.caches[k], Cache):
                    here = source == k
                    known[here] = counts_of(donor, donors.row[same_text[here]])
        # 3. What was encoded just now, over all else.
        if counts is not None and len(window.new):
            place = np.minimum(np.searchsorted(window.new, same_text), len(window.new) - 1)  # (n,) in window.new
            new = window.new[place] == same_text
            known[new] = counts[place[new]]
        # 4. To their places, a run of adjacent rows at a time.
        for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1):
            self.writer.put(lay.TOKENS, int(rows[run[0]]), known[run])

    def commit_counts(self, window: Window) -> None:
        """Before the vectors' checksums: a block of vectors that counts has its counts."""
        if self.writer.cache.layout.counted and any(map(len, window.missing.values())):
            self.writer.commit(lay.TOKENS, window.start, window.stop)

    def assemble(
        self, output: Output, window: Window, found: np.ndarray, cut: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors [n, D] and flags uint8 [n] of the rows of missing blocks, each a new one or its donor's."""
        same_text = self.first[window.missing[output]]
        vectors = np.zeros((len(same_text), found.shape[1]), found.dtype)  # (rows, D)
        truncated = np.zeros(len(same_text), np.uint8)
        self.donors[output].gather(same_text, vectors, truncated)
        fresh, place = self.fresh(output, window)
        vectors[fresh], truncated[fresh] = found[place], cut[place]
        return vectors, truncated

    def fresh(self, output: Output, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Which rows of the missing blocks (by index) get a new vector, and which of ``window.new`` that is."""
        same_text = self.first[window.missing[output]]
        if not len(window.new):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        place = np.minimum(np.searchsorted(window.new, same_text), len(window.new) - 1)
        # A vector that exists is kept: asked for beside others it may come out a rounding apart.
        fresh = np.flatnonzero((window.new[place] == same_text) & (self.donors[output].source[same_text] < 0))
        return fresh, place[fresh]

    def _rows(self, start: int, valid: np.ndarray) -> np.ndarray:
        """All rows of the blocks from ``start`` on that are not valid (bool), in order."""
        rows = ((start + np.flatnonzero(~valid))[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).reshape(-1)
        return rows[rows < self.writer.cache.rows]
