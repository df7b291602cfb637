"""Join the token states of all shards: copy those of each text to where one extract would have put them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedcache.cache.file import Cache
from embedcache.cache.state_files import StateFiles, StatesAbout, index_path, open_states
from embedcache.cache.strings import first_rows
from embedcache.errors import EmbedcacheError
from embedcache.extraction.shards import ShardOrigin
from embedcache.extraction.token_states import StatesPlan, filling, open_there, plan_texts

COPIED = 256  # texts per commit
Parts = Sequence[tuple[ShardOrigin, Cache]]


@dataclass
class MergePlan:
    """What to copy.

    Attributes:
        plan: the files to make.
        parts: the shards' files.
        source: int64 [N], the index in ``parts`` of the file with a row's states; -1 for a row that is not the first
            with its text, or that no shard has.
        slot: int64 [N], the place in that file; -1 as in ``source``.
    """

    plan: StatesPlan
    parts: list[StateFiles]
    source: np.ndarray
    slot: np.ndarray


def plan_merge(cache: Path, hashes: np.ndarray, parts: Parts, overwrite: bool) -> MergePlan | None:
    """Plan the copying of the shards' token states; None where they have none.

    Args:
        cache: the path of the whole cache.
        hashes: uint8 [N, 16], of its rows.
        parts: the shards.
        overwrite: whether other states of that cache may be replaced.

    Raises:
        EmbedcacheError: the shards do not all have states of the same layer; a shard's states are damaged; the cache
            has other states and ``overwrite`` is off.
    """
    without = [one for _, one in parts if not index_path(one.path).exists()]
    if len(without) == len(parts):
        return None
    if without:
        raise EmbedcacheError(
            f"{without[0].path} has no token states, but other shards have: extract all shards alike, with --tokens K"
        )
    files = [open_states(one.path, one.encoder) for _, one in parts]
    about = files[0].about
    for one in files[1:]:
        if not _alike(one.about, about):
            raise EmbedcacheError(
                f"{files[0].path} and {one.path} hold the states of different layers, for the last {about.layers} and "
                f"the last {one.about.layers}: extract all shards alike"
            )
    there = open_there(cache, about.layers)
    replaces = there is not None and not _alike(there.about, about)
    if there is not None and replaces:
        if not overwrite:
            raise EmbedcacheError(f"{there.path} exists and holds something else; pass --overwrite to replace it")
        there = None
    first = first_rows(hashes)
    source, slot = np.full(len(hashes), -1, np.int64), np.full(len(hashes), -1, np.int64)
    tokens = np.zeros(len(hashes), np.int64)
    for k, ((part, _), one) in enumerate(zip(parts, files, strict=True)):
        rows = part.shard.rows(len(hashes))
        rows = rows[first[rows] == rows]  # the shard of a text's first row made the states, in that row's batch
        found = first_rows(one.hashes, hashes[rows])[len(one.hashes) :]
        rows, found = rows[found < len(one.hashes)], found[found < len(one.hashes)]
        source[rows], slot[rows], tokens[rows] = k, found, one.spans[found, 1]
    wanted = np.flatnonzero(source >= 0)
    plan = plan_texts(cache, hashes, first, wanted, there, about, lambda rows: tokens[rows], replaces)
    return MergePlan(plan, files, source, slot)


def _alike(one: StatesAbout, other: StatesAbout) -> bool:
    return (one.layers, one.dim, one.salt) == (other.layers, other.dim, other.salt)


def copy_states(merge: MergePlan) -> list[bool]:
    """Copy the states that the whole lacks. Returns for each shard whether the states of all its texts are sound."""
    whole = [True] * len(merge.parts)
    with filling(merge.plan) as fill:
        assert fill is not None
        rows = np.flatnonzero(fill.lacking)
        for start in range(0, len(rows), COPIED):
            copied = {}
            for row in rows[start : start + COPIED].tolist():
                part, slot = merge.parts[merge.source[row]], int(merge.slot[row])
                checksum = part.checksums[slot].tobytes()
                if any(checksum):
                    begin, tokens = part.spans[slot : slot + 1].T
                    if fill.put(row, part.read(begin, tokens)) == checksum:
                        copied[row] = checksum
                whole[merge.source[row]] &= row in copied
            fill.finish(copied)
    return whole
