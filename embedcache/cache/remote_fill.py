"""Fill windows of one file from other processes and machines: they write vectors, the owner all the rest.

A helper gets an order: which blocks, and the vectors that are copied from elsewhere. It writes whole blocks of vectors,
which nobody else writes, and brings back their checksums and flags, which the owner of the lock then writes. So two
machines never share a page of the file, and none has to read what another wrote: vectors that later windows need,
because they have the same text, come back as well, and are kept in an unnamed file.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import digest_of
from embedcache.cache.create import write_at
from embedcache.cache.file import Cache
from embedcache.cache.fill import Filler, Window
from embedcache.cache.layout import BLOCK_ROWS, DIGEST_BYTES, Output
from embedcache.cache.state_writer import State, StateFill
from embedcache.cache.stored_rows import no_rows, parted
from embedcache.common.durable import fsync
from embedcache.common.open_files import open_file


@dataclass(frozen=True)
class Blocks:
    """One output of an order.

    Attributes:
        rows: int64 [n], the rows to write, of whole blocks. fresh: the indices in it that get a new vector; place:
            which of the encoded texts that is. copied: [m, D] the vectors of all the others, in order.
        flags: uint8 [n], whether the text was cut, known for these others.
    """

    rows: np.ndarray
    fresh: np.ndarray
    place: np.ndarray
    copied: np.ndarray
    flags: np.ndarray


@dataclass(frozen=True)
class Order:
    """A window for a helper. ``wanted``: which of its encoded texts later windows need (indices)."""

    blocks: dict[Output, Blocks]
    wanted: np.ndarray


@dataclass(frozen=True)
class Written:
    """What a helper wrote: for each output flags [n] and checksums [blocks, 16]; and the vectors that are wanted.

    counts: int32 [n, 2], the tokens of the encoded texts, which the owner writes. states: see ``StateFill.finish``.
    """

    flags: dict[Output, np.ndarray]
    digests: dict[Output, np.ndarray]
    wanted: list[np.ndarray]
    wanted_flags: np.ndarray
    counts: np.ndarray
    states: dict[int, State] = field(default_factory=dict)


class Helper:
    """The other side: an open file, of which it writes blocks of vectors."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self._handle = open_file(cache.path, os.O_RDWR)

    def write(self, order: Order, found: Sequence[np.ndarray], cut: np.ndarray, counts: np.ndarray) -> Written:
        """Vectors of the encoded texts, [n, D] for each output in the type of the file, to their rows, and to disk.

        cut: bool [n], which were truncated. counts: int32 [n, 2], their tokens.

        Raises:
            EmbedcacheError: the file cannot be written.
        """
        flags, digests = {}, {}
        for (output, blocks), vectors in zip(order.blocks.items(), found, strict=True):
            rows = np.empty((len(blocks.rows), vectors.shape[1]), vectors.dtype)
            rows[np.setdiff1d(np.arange(len(rows)), blocks.fresh)] = blocks.copied
            rows[blocks.fresh] = vectors[blocks.place]
            flags[output] = blocks.flags.copy()
            flags[output][blocks.fresh] = cut[blocks.place]
            digests[output] = self._write(output, blocks.rows, rows, flags[output])
        fsync(self._handle)
        return Written(flags, digests, [one[order.wanted] for one in found], cut[order.wanted], counts)

    def _write(self, output: Output, rows: np.ndarray, vectors: np.ndarray, flags: np.ndarray) -> np.ndarray:
        path = self.cache.output_paths[output]
        salt, digests = self.cache.salt(path), []
        for start in range(0, len(rows), BLOCK_ROWS):
            part, first = vectors[start : start + BLOCK_ROWS], int(rows[start])
            hashes = self.cache.hashes[first : first + len(part)]
            written = parted(part, self.cache.encoder["store"])
            digests.append(digest_of(salt, hashes, flags[start : start + BLOCK_ROWS], *written))
            for dataset, array in zip(self.cache.vector_datasets(path), written, strict=True):
                offset = self.cache.offset(dataset) + first * array[0].nbytes
                write_at(self._handle, self.cache.path, offset, array.reshape(-1).view(np.uint8))
        return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)

    def close(self) -> None:
        os.close(self._handle)
        self.cache.close()


class Helpers:
    """The owner's side: gives orders for a filler's windows, and commits what was written."""

    def __init__(self, filler: Filler) -> None:
        self.filler = filler
        first, cache = filler.first, filler.writer.cache
        again = np.zeros(len(first), bool)
        again[first[first != np.arange(len(first))]] = True
        self._wanted = np.flatnonzero(again & filler.lacking)  # texts that stand in other rows, too
        self._kept = _Kept(cache, len(self._wanted), cache.path.parent)
        self._crossing: np.ndarray | None = None
        self._source = {output: len(donors.caches) for output, donors in filler.donors.items()}
        for donors in filler.donors.values():
            donors.caches.append(self._kept)  # type: ignore[arg-type]

    def order(self, window: Window) -> Order | None:
        """What a helper needs for it; None where it must be written by ``Filler.finish``, which waits for others."""
        filler, cache = self.filler, self.filler.writer.cache
        number = np.dtype(cache.encoder["store"]).itemsize
        aligned = all(BLOCK_ROWS * cache.width(output) * number % lay.ALIGNMENT == 0 for output in cache.outputs)
        if not aligned or not filler.ready(window):
            return None
        blocks = {}
        for output, rows in window.missing.items():
            fresh, place = filler.fresh(output, window)
            empty = no_rows(cache.encoder["store"], cache.width(output), len(window.new))
            vectors, flags = filler.assemble(output, window, empty, np.zeros(len(window.new), bool))
            blocks[output] = Blocks(rows, fresh, place, np.delete(vectors, fresh, axis=0), flags)
        return Order(blocks, np.flatnonzero(np.isin(window.new, self._wanted)))

    def slots(self, window: Window) -> np.ndarray | None:
        """int64, where a helper may write the states of ``window.states`` itself; None where it may not.

        It may where no page of theirs has states that another window makes.
        """
        states = self.filler.states
        if states is None:
            return None
        if self._crossing is None:
            self._crossing = _crossing(states)
        inside = np.isin(self._crossing, window.states)
        return states.slots[window.states] if (inside[:, 0] == inside[:, 1]).all() else None

    def finish(self, window: Window, order: Order, written: Written) -> None:
        """Commit what a helper wrote; in the order of the file, as ``Filler.finish``."""
        filler, writer = self.filler, self.filler.writer
        for output, blocks in order.blocks.items():
            for start in range(0, len(blocks.rows), BLOCK_ROWS):
                writer.put(lay.TRUNCATED, int(blocks.rows[start]), written.flags[output][start : start + BLOCK_ROWS])
        filler.write_counts(window, written.counts)
        writer.check()
        filler.finish_states(written.states)
        filler.commit_counts(window)
        rows = window.new[order.wanted]
        places = np.searchsorted(self._wanted, rows)
        self._kept.put(places, dict(zip(order.blocks, written.wanted, strict=True)), written.wanted_flags)
        for output, blocks in order.blocks.items():
            if len(blocks.rows):
                writer.put_checksums(
                    writer.cache.output_paths[output], np.unique(blocks.rows // BLOCK_ROWS), written.digests[output]
                )
            donors = filler.donors[output]
            unknown = donors.source[rows] < 0
            donors.row[rows[unknown]], donors.source[rows[unknown]] = places[unknown], self._source[output]


def _crossing(states: StateFill) -> np.ndarray:
    """int64 [n, 2], rows of different blocks whose states, neither of which is there yet, have a page in common."""
    rows = np.flatnonzero(states.lacking)
    spans = states.writer.files.spans[states.slots[rows]]
    rows, spans = rows[spans[:, 1] > 0], spans[spans[:, 1] > 0]
    order = np.argsort(spans[:, 0])
    rows, size = rows[order], states.writer.files.about.token_bytes
    begins, ends = spans[order, 0] * size, spans[order].sum(axis=1) * size
    same_page = (ends[:-1] - 1) // lay.ALIGNMENT == begins[1:] // lay.ALIGNMENT
    pairs = np.stack([rows[:-1], rows[1:]], axis=1)
    return pairs[same_page & (pairs[:, 0] // BLOCK_ROWS != pairs[:, 1] // BLOCK_ROWS)]


class _Kept:
    """Vectors of texts that stand in several rows, in an unnamed file; gives them as a cache does."""

    def __init__(self, cache: Cache, n: int, folder: Path) -> None:
        self.output_paths, self._kind = cache.output_paths, cache.encoder["store"]
        widths = {path: cache.width(output) for output, path in cache.output_paths.items()}
        self._widths = {path: no_rows(self._kind, width).shape[1] for path, width in widths.items()}
        self.truncated = np.zeros(n, np.uint8)
        self._files = {path: tempfile.TemporaryFile(dir=folder) for path in cache.output_paths.values()}  # noqa: SIM115

    def put(self, places: np.ndarray, vectors: dict[Output, np.ndarray], flags: np.ndarray) -> None:
        self.truncated[places] = flags
        for output, found in vectors.items():
            file = self._files[self.output_paths[output]]
            for place, vector in zip(places.tolist(), found, strict=True):
                file.seek(place * vector.nbytes)
                file.write(vector.data)
            file.flush()

    def stored_rows(self, path: str, rows: np.ndarray) -> np.ndarray:
        file, width = self._files[path], self._widths[path]
        count = os.fstat(file.fileno()).st_size // (width * np.dtype(self._kind).itemsize)
        return np.memmap(file, self._kind, "r", shape=(count, width))[rows]
