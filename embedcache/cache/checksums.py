"""Checksums of blocks of 1024 rows: what a block binds, and which blocks hold."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.file import Cache
from embedcache.cache.fingerprint import states_differences
from embedcache.cache.state_files import StateFiles, index_path
from embedcache.cache.token_states import find_slots
from embedcache.common.machine import usable_cores
from embedcache.errors import EmbedcacheError

STATES = "token states"  # what they are called beside the datasets


class Span(NamedTuple):
    """Rows ``start`` to ``stop`` (exclusive) of a dataset."""

    dataset: str
    start: int
    stop: int


@dataclass
class VerifyReport:
    """What ``verify`` found.

    Attributes:
        blocks: how many blocks were looked at, in all datasets.
        damaged: rows whose bytes differ from their checksum. The dataset ``attributes`` stands for all attributes.
        incomplete: rows that have no vectors yet, which is not damage.
        texts: how many texts' token states were looked at; those of damaged ones stand as the dataset "token states".
    """

    blocks: int
    damaged: list[Span] = field(default_factory=list)
    incomplete: list[Span] = field(default_factory=list)
    texts: int = 0

    @property
    def ok(self) -> bool:
        """Nothing is damaged."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        return {
            "blocks": self.blocks,
            "damaged": [span._asdict() for span in self.damaged],
            "incomplete": [span._asdict() for span in self.incomplete],
            "texts": self.texts,
            "ok": self.ok,
        }


def verify(cache: str | os.PathLike[str]) -> VerifyReport:
    """Recompute every checksum of a cache.

    Args:
        cache: The file.

    Returns:
        Which blocks are damaged, and which have no vectors yet.

    Raises:
        EmbedcacheError: the file cannot be opened at all (see ``open_cache``).
    """
    with Cache(Path(cache)) as opened:
        report = VerifyReport(opened.layout.blocks * len(opened.layout.checked))
        if not opened.sealed:
            report.damaged.append(Span("attributes", 0, opened.rows))
        for dataset in opened.layout.checked:
            # Looked at first: what is committed while this runs was not there. All but the vectors is written before
            # the file gets its name, so there absent means damaged.
            absent = opened.absent_blocks(dataset) & lay.comes_with_vectors(dataset)
            invalid = np.logical_not(valid_blocks(opened, dataset))
            report.incomplete += _spans(opened, dataset, absent) if lay.is_embedding(dataset) else []
            report.damaged += _spans(opened, dataset, invalid & ~absent)
        if index_path(opened.path).exists():
            _verify_states(opened, report)
    return report


def _verify_states(cache: Cache, report: VerifyReport) -> None:
    """The token states of a cache's rows, which lie in files of their own."""
    bad, absent = np.ones(cache.rows, bool), np.zeros(cache.rows, bool)
    try:
        files = StateFiles(cache.path)
        slots = find_slots(files, cache.hashes)
        report.texts = len(np.unique(slots[slots >= 0]))
        sound = np.append(files.sound(slots[slots >= 0]), False)[slots]
        if not files.sealed:  # where no text shows what has changed, all of it may have
            bad = ~sound if not sound.all() else bad
        elif not states_differences(files.about.encoder, cache.encoder):
            bad, absent = ~sound & (slots >= 0), slots < 0
    except EmbedcacheError:
        pass
    report.damaged += _row_spans(STATES, bad)
    report.incomplete += _row_spans(STATES, absent)


def digest(cache: Cache, path: str, block: int, salt: bytes | None = None) -> bytes:
    """The checksum of one block: BLAKE2b of a salt and the block's bytes.

    For vectors it also binds their scales, the hashes of their texts and the truncation flags, so that vectors never
    count for other texts, and the salt is the fingerprint of encoder, pooling and layer. Else the salt is the dataset's
    name.
    """
    parts = [lay.HASH, lay.TRUNCATED, *cache.vector_datasets(path)] if lay.is_embedding(path) else [path]
    spans = [lay.block_span(part, block, cache.rows, lambda group: cache.array(f"{group}/offsets")) for part in parts]
    arrays = [cache.array(part)[span] for part, span in zip(parts, spans, strict=True)]
    return digest_of(cache.salt(path) if salt is None else salt, *arrays)


def digest_of(salt: bytes, *arrays: np.ndarray) -> bytes:
    """BLAKE2b of a salt and the bytes of contiguous arrays: of vectors, their texts' hashes and flags come first."""
    state = blake2b(salt, digest_size=lay.DIGEST_BYTES)
    for array in arrays:
        state.update(array.data)
    return state.digest()


def digests(cache: Cache, path: str, first: int, last: int) -> np.ndarray:
    """[last - first, 16] uint8 checksums of what the blocks hold now; several threads."""
    salt = cache.salt(path)
    with ThreadPoolExecutor(min(8, usable_cores(), max(1, last - first))) as pool:
        each = pool.map if last - first > 1 else map
        found = b"".join(each(lambda block: digest(cache, path, block, salt), range(first, last)))
    return np.frombuffer(found, np.uint8).reshape(-1, lay.DIGEST_BYTES)


def valid_blocks(cache: Cache, path: str) -> np.ndarray:
    """[blocks] bool: the bytes agree with the checksum."""
    absent = cache.absent_blocks(path)
    if absent.all():
        return np.logical_not(absent)
    equal = digests(cache, path, 0, cache.layout.blocks) == cache.checksums(path)
    return np.asarray(equal.all(axis=1))


def damaged_blocks(cache: Cache, path: str) -> np.ndarray:
    """[blocks] bool: there is a checksum, and the bytes do not agree with it."""
    return ~valid_blocks(cache, path) & ~cache.absent_blocks(path)


def count_damaged(cache: Cache) -> int:
    return sum(int(damaged_blocks(cache, path).sum()) for path in cache.layout.checked)


def _spans(cache: Cache, dataset: str, blocks: np.ndarray) -> list[Span]:
    """Neighbouring blocks as one span of rows."""
    return _row_spans(dataset, np.repeat(blocks, lay.BLOCK_ROWS)[: cache.rows])


def _row_spans(dataset: str, rows: np.ndarray) -> list[Span]:
    """Neighbouring rows, bool [N], as one span."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rows, [False]]).astype(np.int8))).tolist()
    return [Span(dataset, start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
