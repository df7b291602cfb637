"""The vectors of files into a cache, block after block, so that a killed run continues where it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import digest_of, valid_blocks
from embedcache.cache.create import CacheContents, Writer
from embedcache.cache.file import Cache
from embedcache.cache.layout import BLOCK_ROWS
from embedcache.cache.map_file import forget
from embedcache.cache.stored_rows import parted, to_store
from embedcache.cache.strings import Strings
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.extraction.before import WorkFile
from embedcache.vectors.formats.base import VectorFile
from embedcache.vectors.read import checked

TOGETHER = 8 * BLOCK_ROWS  # rows that are written and committed together


def build(
    target: Path,
    same: Cache | None,
    contents: CacheContents,
    encoder: dict[str, object],
    files: Sequence[VectorFile],
    counts: Sequence[int],
    progress: Progress | None,
) -> int:
    """Continue the target or the file that a killed run left beside it, or start a new one; fill and publish it.

    Args:
        target: the cache.
        same: the cache that is there, of the same vectors' encoder.
        contents: all of the new one but its vectors.
        encoder: its description.
        files: the vectors.
        counts: the rows of each.
        progress: called with (done, total, done), in rows.

    Returns:
        How many damaged blocks were made again.

    Raises:
        EmbedcacheError: no space, the sources changed while they were read, or the cache was replaced.
    """
    work = WorkFile.find(target, same, contents, encoder)
    for array in contents.arrays.values():
        forget(array)
    repaired = work.create(contents, same)
    with Writer(work.path) as writer:
        repaired += _fill(writer, files, counts, progress)
        writer.sync()
        writer.check()
        work.check("import")
    work.publish(same)
    work.clear()
    return repaired


def _fill(writer: Writer, files: Sequence[VectorFile], counts: Sequence[int], progress: Progress | None) -> int:
    """Write the blocks that are missing or damaged. Returns how many were damaged."""
    cache, (path,) = writer.cache, writer.cache.output_paths.values()
    valid = valid_blocks(cache, path)
    damaged = int((~valid & ~cache.absent_blocks(path)).sum())
    if valid.all():
        return 0
    first = int(np.argmin(valid)) * BLOCK_ROWS
    store, texts = str(cache.encoder["store"]), cache.texts
    for start, rows in _windows(files, counts, first):
        stop = start + len(rows)
        stored = to_store(rows, store, np.arange(start, stop), Strings(texts.data, texts.offsets[start : stop + 1]))
        blocks = np.arange(start // BLOCK_ROWS, -(-stop // BLOCK_ROWS))
        blocks = blocks[~valid[blocks]]
        # 1. The bytes; their checksums are of what is in memory, so that the file's pages are never read.
        found = [_put(writer, path, int(block), stored, start) for block in blocks]
        # 2. If the file is still ours, the checksums: from here on the blocks count.
        writer.check()
        if found:
            writer.put_checksums(path, blocks, np.frombuffer(b"".join(found), np.uint8).reshape(-1, lay.DIGEST_BYTES))
        forget(cache.hashes)
        if progress:
            progress(stop, cache.rows, stop)
    return damaged


def _put(writer: Writer, path: str, block: int, stored: np.ndarray, start: int) -> bytes:
    """Write one block of the rows from ``start`` on. Returns its checksum."""
    cache, first = writer.cache, block * BLOCK_ROWS
    part = stored[first - start : first - start + BLOCK_ROWS]
    flags = np.zeros(len(part), np.uint8)
    writer.put_vectors(path, first, part)
    writer.put(lay.TRUNCATED, first, flags)
    hashes = cache.hashes[first : first + len(part)]
    return digest_of(cache.salt(path), hashes, flags, *parted(part, str(cache.encoder["store"])))


def _windows(files: Sequence[VectorFile], counts: Sequence[int], first: int) -> Iterator[tuple[int, np.ndarray]]:
    """(row, [n, D]) of whole blocks, from the row ``first`` on, some at a time."""
    held: list[np.ndarray] = []
    start, size = first, 0
    for part in _rows(files, counts, first):
        held.append(part)
        size += len(part)
        while size >= TOGETHER:
            rows = np.concatenate(held)
            yield start, rows[:TOGETHER]
            held, start, size = [rows[TOGETHER:]], start + TOGETHER, size - TOGETHER
    if size:
        yield start, np.concatenate(held)


def _rows(files: Sequence[VectorFile], counts: Sequence[int], first: int) -> Iterator[np.ndarray]:
    """Raises EmbedcacheError where a file has another number of rows than it had."""
    begin = 0
    for file, count in zip(files, counts, strict=True):
        if first < begin + count:
            seen = max(0, first - begin)
            for part in checked(file, seen):
                seen += len(part)
                yield part
            if seen != count:
                raise EmbedcacheError(f"{file.name} changed while it was read: run the same import again")
        begin += count
