"""Fill the missing blocks of a file: vectors that exist somewhere are copied, the others asked of ``encode``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.create import Writer
from embedcache.cache.file import Cache
from embedcache.cache.layout import BLOCK_ROWS, Output
from embedcache.cache.reuse import find_donors, sound_blocks
from embedcache.errors import EmbedcacheError

# Rows to float32 [n, D] per output, and bool [n], whether the text was cut.
Encode = Callable[[np.ndarray], tuple[list[np.ndarray], np.ndarray]]


class Filler:
    """The plan for one file: which blocks are missing, which texts must be encoded for them.

    Attributes:
        todo: int64, the rows whose texts must be encoded, each text once, in order.
        truncated: rows whose text was cut, once ``run`` has ended.
        damaged: blocks whose bytes do not agree with their checksum; they are filled like missing ones.
    """

    def __init__(self, writer: Writer, first: np.ndarray, others: Sequence[Cache]) -> None:
        """first: [N] for each row the first with the same text. others: caches of the same encoder to copy from."""
        self.writer, self.first = writer, first
        cache = writer.cache
        self.outputs = cache.outputs
        self.valid = {output: sound_blocks(cache, output) for output in self.outputs}
        absent = {output: cache.absent_blocks(path) for output, path in cache.output_paths.items()}
        self.damaged = sum(int((~self.valid[output] & ~absent[output]).sum()) for output in self.outputs)
        missing = {output: self._rows(~valid) for output, valid in self.valid.items()}
        self.donors = {}
        for output in self.outputs:  # with nothing missing, nothing is looked for
            caches = [cache, *others] if any(map(len, missing.values())) else []
            sound = [self.valid[output] if one is cache else sound_blocks(one, output) for one in caches]
            self.donors[output] = find_donors(cache.hashes, list(zip(caches, sound, strict=True)), output)
        self.todo = self._without_vector(missing)

    def run(self, encode: Encode, window: int) -> None:
        """Fill window after window of so many blocks; a kill costs no more than the window in work.

        The texts to encode of one window depend on nothing that a kill changes, and the checksums of a window go out
        in one write, so a resumed run computes the same batches, to the bit, as an undisturbed one.
        """
        for start in range(0, self.writer.cache.layout.blocks, window):
            blocks = np.arange(start, min(start + window, self.writer.cache.layout.blocks))
            missing = {output: self._rows(blocks[~valid[blocks]]) for output, valid in self.valid.items()}
            if any(map(len, missing.values())):
                self._fill(blocks, missing, encode)
        self.truncated = int(np.count_nonzero(self.writer.cache.truncated))

    def _fill(self, blocks: np.ndarray, missing: dict[Output, np.ndarray], encode: Encode) -> None:
        cache = self.writer.cache
        new = self._without_vector(missing)
        found, cut = encode(new) if len(new) else ([np.empty((0, cache.dim))] * len(self.outputs), np.empty(0, bool))
        for output, vectors in zip(self.outputs, found, strict=True):
            self._write(output, missing[output], new, self._to_store(vectors, new), cut)
        self.writer.check()
        for output, rows in missing.items():
            if len(rows):
                self.writer.commit(cache.output_paths[output], int(blocks[0]), int(blocks[-1]) + 1)
            self.donors[output].add(0, new)

    def _write(self, output: Output, rows: np.ndarray, new: np.ndarray, found: np.ndarray, cut: np.ndarray) -> None:
        """Vectors and flags of whole missing blocks, each from the new ones or from its donor."""
        same_text = self.first[rows]
        vectors, truncated = np.zeros((len(rows), found.shape[1]), found.dtype), np.zeros(len(rows), np.uint8)
        self.donors[output].gather(same_text, vectors, truncated)
        if len(new):
            place = np.minimum(np.searchsorted(new, same_text), len(new) - 1)
            fresh = new[place] == same_text
            vectors[fresh], truncated[fresh] = found[place[fresh]], cut[place[fresh]]
        for start in range(0, len(rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            self.writer.put(self.writer.cache.output_paths[output], int(rows[start]), vectors[part])
            self.writer.put(lay.TRUNCATED, int(rows[start]), truncated[part])

    def _without_vector(self, missing: dict[Output, np.ndarray]) -> np.ndarray:
        """First rows of the texts of ``missing`` that no donor has for some output."""
        lacking = [
            texts[self.donors[output].source[texts] < 0]
            for output, texts in ((output, np.unique(self.first[rows])) for output, rows in missing.items())
        ]
        return np.unique(np.concatenate(lacking))

    def _rows(self, blocks: np.ndarray) -> np.ndarray:
        """All rows of some blocks, given by number or by mask, in order."""
        numbers = np.flatnonzero(blocks) if blocks.dtype == bool else blocks
        rows = (numbers[:, None] * BLOCK_ROWS + np.arange(BLOCK_ROWS)).reshape(-1)
        return rows[rows < self.writer.cache.rows]

    def _to_store(self, vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """In the type of the file.

        Raises:
            EmbedcacheError: a number is not finite in it; names the row.
        """
        kind = np.dtype(self.writer.cache.encoder["store"])
        with np.errstate(over="ignore"):
            stored = vectors.astype(kind)
        bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
        if not bad.size:
            return stored
        row, vector = int(rows[bad[0]]), vectors[bad[0]]
        text = self.writer.cache.texts[row][:40]
        if np.isfinite(vector).all():
            problem = f"has values up to {np.abs(vector).max():.3g}, too large for {kind}; run with --store float32"
        else:
            problem = "is not finite as the encoder gives it; try --dtype float32"
        raise EmbedcacheError(f"the vector of row {row:,} ({text!r}), counted from 0, {problem}")
