"""Parts of one input, for batch schedulers: each job extracts its part into its own cache; ``merge`` joins them.

The rows are dealt out in turn, in stripes of 8 blocks (fewer rows for a small input). A part is an ordinary cache that
can be resumed, verified and searched; its attributes record which part of which input it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np

from embedcache.cache.file import Cache
from embedcache.cache.layout import BLOCK_ROWS, canonical_json
from embedcache.cache.strings import first_rows
from embedcache.errors import EmbedcacheError
from embedcache.extraction.read_input import Collected

STRIPE = 8 * BLOCK_ROWS  # rows; whole windows, so that a part makes the batches that one machine would


def stripe_rows(total: int, of: int) -> int:
    """The rows of a stripe, few enough that each of ``of`` parts of ``total`` rows gets one."""
    return max(1, min(STRIPE, total // of))


@dataclass(frozen=True)
class Shard:
    """Part ``number`` (from 1) of ``of`` parts."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, shard: str | Sequence[int]) -> Shard:
        """Read "2/8" or (2, 8).

        Raises:
            EmbedcacheError: it is anything else.
        """
        if isinstance(shard, str):
            found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
            shard = [int(part) for part in found.groups()] if found else []
        if len(shard) != 2 or not 1 <= shard[0] <= shard[1]:
            raise EmbedcacheError(f"shard {shard!r}: write I/N, part I of N parts, such as 1/8 to 8/8")
        return cls(*shard)

    def rows(self, total: int) -> np.ndarray:
        """The rows of ``total`` that belong to this part, int64, in order."""
        stripe = stripe_rows(total, self.of)
        starts = np.arange((self.number - 1) * stripe, total, self.of * stripe)
        rows = (starts[:, None] + np.arange(stripe)).reshape(-1)
        return rows[rows < total]


@dataclass(frozen=True)
class ShardOrigin:
    """What the attributes ``shard...`` of a cache record.

    Attributes:
        shard: which part it is.
        rows: of the whole table.
        table: the whole table's digest, see ``table_digest``.
    """

    shard: Shard
    rows: int
    table: str

    def attributes(self) -> dict[str, str | int]:
        return {"shard": str(self.shard), "shard_rows": self.rows, "shard_table": self.table}

    @classmethod
    def of(cls, cache: Cache) -> ShardOrigin:
        """Read it from a cache.

        Raises:
            EmbedcacheError: the cache is not a shard, or is damaged.
        """
        try:
            attrs = cache.layout.attrs
            part = cls(Shard.parse(str(attrs["shard"])), int(attrs["shard_rows"]), str(attrs["shard_table"]))
        except (KeyError, EmbedcacheError):
            raise EmbedcacheError(
                f"{cache.path} is not a shard: merge joins the files that extract --shard I/N made; name those"
            ) from None
        if not 0 <= part.rows < 1 << 40 or len(part.shard.rows(part.rows)) != cache.rows:
            raise EmbedcacheError(f"{cache.path} is damaged: shard {part.shard} of {part.rows:,} rows has {cache.rows}")
        return part


def table_digest(hashes: np.ndarray, labels: dict[str, tuple[np.ndarray, list[str]]]) -> str:
    """A digest of the texts of a whole table, their order and their labels.

    Args:
        hashes: uint8 [N, 16], of the texts.
        labels: (codes, classes) of each label column.
    """
    state = blake2b(digest_size=16)
    state.update(np.ascontiguousarray(hashes).data)
    for name, (codes, classes) in sorted(labels.items()):
        state.update(canonical_json([name, classes, str(codes.dtype)]).encode())
        for start in range(0, len(codes), STRIPE):
            state.update(np.ascontiguousarray(codes[start : start + STRIPE]).data)
    return state.hexdigest()


def take_part(table: Collected, shard: Shard, folder: Path) -> tuple[Collected, ShardOrigin, np.ndarray]:
    """Take the rows of one part.

    Args:
        table: the whole input.
        shard: the part.
        folder: where to put unnamed files.

    Returns:
        (the part's rows; which part it is; bool [n], whether another part has the text in an earlier row).

    Raises:
        EmbedcacheError: there are fewer rows than parts.
    """
    total = len(table.hashes)
    part = ShardOrigin(shard, total, table_digest(table.hashes, table.labels))
    if shard.of > total:
        raise EmbedcacheError(f"{total:,} rows are too few for {shard.of:,} shards: use fewer shards")
    rows = shard.rows(total)
    first = first_rows(table.hashes)[rows]
    return table.taken(rows, folder), part, first // stripe_rows(total, shard.of) % shard.of != shard.number - 1
