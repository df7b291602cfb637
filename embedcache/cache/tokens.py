"""How many tokens each text has, and how many of them the encoder does not know: kept beside the vectors."""

from __future__ import annotations

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.file import Cache
from embedcache.common.reading import Reading, most_unknown, read_of


def counts_of(cache: Cache, rows: np.ndarray | None = None) -> np.ndarray:
    """int32 [n, 2] of rows (None: of all): tokens of the whole text, unknown ones among those read; -1: not known."""
    wanted = np.arange(cache.rows) if rows is None else rows
    if not cache.layout.counted:
        return np.full((len(wanted), 2), -1, np.int32)
    counts = cache.array(lay.TOKENS)[wanted]
    counts[cache.absent_blocks(lay.TOKENS)[wanted // lay.BLOCK_ROWS]] = -1
    return counts


def reading_of(cache: Cache) -> Reading:
    """What the encoder reads of the cache's texts, and what it does not."""
    counts = counts_of(cache)
    texts = (cache.texts[row] for row in most_unknown(counts).tolist())
    identity, cut = cache.encoder["identity"], int(np.count_nonzero(cache.truncated))
    length, chunk = int(identity.get("max_length", 0)), identity.get("chunk") is True
    return read_of(counts, cut, length, cache.layout.positions, texts, chunk)
