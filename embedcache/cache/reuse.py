"""Vectors by content: which row of which file already holds the vector of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import valid_blocks
from embedcache.cache.file import Cache
from embedcache.cache.fingerprint import fingerprint
from embedcache.cache.layout import Output
from embedcache.cache.strings import first_rows


@dataclass
class Donors:
    """For every row of a new table, where the vector of its text lies, for one output.

    Attributes:
        source: int8 or wider [N], index into ``caches``, -1 for nowhere. row: int64 [N], the row there.
    """

    caches: list[Cache]
    output: Output
    source: np.ndarray
    row: np.ndarray

    def add(self, source: int, rows: np.ndarray) -> None:
        """From now on these rows are found in the new file itself, which is ``caches[source]``."""
        self.source[rows], self.row[rows] = source, rows

    def gather(self, rows: np.ndarray, vectors: np.ndarray, truncated: np.ndarray) -> None:
        """Copy what there is for ``rows`` into ``vectors`` [n, D], see ``stored_rows.py``, and ``truncated`` [n]."""
        sources = self.source[rows]
        for k in np.unique(sources[sources >= 0]):
            cache, here = self.caches[k], np.flatnonzero(sources == k)
            there = self.row[rows[here]]
            vectors[here] = cache.stored_rows(cache.output_paths[self.output], there)
            truncated[here] = cache.truncated[there]


def find_donors(hashes: np.ndarray, sources: Sequence[tuple[Cache, np.ndarray]], output: Output) -> Donors:
    """Look for the texts with these hashes [N, 16] in caches, first come first, each with its sound blocks (bool)."""
    caches = [cache for cache, _ in sources]
    rows = [np.flatnonzero(np.repeat(sound, lay.BLOCK_ROWS)[: cache.rows]) for cache, sound in sources]
    known = sum(map(len, rows))
    donors = Donors(caches, output, np.full(len(hashes), -1, np.int8), np.zeros(len(hashes), np.int64))
    if known:
        parts = [cache.hashes[found] for cache, found in zip(caches, rows, strict=True)]
        first = first_rows(*parts, hashes)[known:]
        here = first < known
        source = np.repeat(np.arange(len(caches), dtype=np.int8), list(map(len, rows)))
        donors.source[here] = source[first[here]]
        donors.row[here] = np.concatenate(rows)[first[here]]
    return donors


def proves_encoder(cache: Cache, encoder: dict[str, Any]) -> bool:
    """Whether a file with damaged attributes was made by ``encoder``: the checksums of its vectors bind that.

    If so the file is taken to say so.
    """
    cache.encoder, kept = encoder, cache.encoder
    if not any(valid_blocks(cache, path).any() for path in cache.output_paths.values()):
        cache.encoder = kept
    cache.fingerprint = fingerprint(cache.encoder)
    return cache.encoder is encoder


def sound_blocks(cache: Cache, output: Output) -> np.ndarray:
    """bool [blocks]: vectors that are there and agree with their checksum; none where the output is not stored.

    The token counts of a block, where they are kept, are a part of it.
    """
    path = cache.output_paths.get(output)
    if path is None:
        return np.zeros(cache.layout.blocks, bool)
    sound = valid_blocks(cache, path)
    return sound & valid_blocks(cache, lay.TOKENS) if cache.layout.counted else sound


def count_unknown(hashes: np.ndarray, others: np.ndarray) -> int:
    """How many of these hashes are not among the others."""
    if np.array_equal(hashes, others):
        return 0
    return int((first_rows(others, hashes)[len(others) :] >= len(others)).sum())
