"""Join the caches of all shards of one input: every row in its place, every vector copied, nothing encoded."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache.checksums import valid_blocks
from embedcache.cache.create import CacheContents, Writer, create, make_contents, matches, publish
from embedcache.cache.file import Cache, open_cache
from embedcache.cache.fill import Filler
from embedcache.cache.fingerprint import differences
from embedcache.cache.layout import BLOCK_ROWS, HASH, comes_with_vectors, sibling
from embedcache.cache.lock import writer_lock
from embedcache.cache.reuse import Donors, sound_blocks
from embedcache.cache.spool_file import UnnamedFile
from embedcache.cache.state_files import index_path
from embedcache.cache.state_writer import check_space
from embedcache.cache.strings import Strings, Text, first_rows
from embedcache.cache.token_states import describe_states
from embedcache.common.whole_file import refuse_stream
from embedcache.errors import EmbedcacheError
from embedcache.extraction.merge_states import copy_states, plan_merge
from embedcache.extraction.shards import ShardOrigin, stripe_rows, table_digest
from embedcache.extraction.token_states import remove_foreign
from embedcache.labelling.opened import carried_notes, unread_notes

RELABEL = "embedcache labels SHARD -o given.csv --only-changed, then relabel CACHE --with given.csv, does that"


@dataclass
class MergeReport:
    """What one merge did.

    Attributes:
        cache: the file.
        rows: of the whole input.
        shards: the number of parts.
        missing_rows: rows without a vector, or without token states, because no shard has them.
        complete: whether every row has all its vectors and states.
        unfinished: the files of the shards that lack vectors, or token states.
        seconds: that the whole call took.
        token_states: about them, as ``info`` shows it; None: the shards have none.
        notes: what becomes of labels that people gave.
    """

    cache: str
    rows: int
    shards: int
    missing_rows: int
    complete: bool
    unfinished: list[str] = field(default_factory=list)
    seconds: float = 0.0
    token_states: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def merge(
    shards: Sequence[str | os.PathLike[str]], cache: str | os.PathLike[str], *, overwrite: bool = False
) -> MergeReport:
    """Join the caches of ``extract(..., shard=(I, N))`` into the file that extract without a shard would have made.

    Unfinished shards leave rows without vectors; the report names their files. Finish them and merge again: vectors
    that the file already has stay.

    Args:
        shards: the caches of all parts, in any order.
        cache: the HDF5 file to make or to complete.
        overwrite: replace another file at ``cache``.

    Raises:
        EmbedcacheError: a shard is missing (the message names it); a file is not a shard, or belongs to another input
            or encoder; another file is at ``cache`` and ``overwrite`` is off.
    """
    started, target = time.perf_counter(), Path(os.path.realpath(cache))
    refuse_stream(os.fspath(cache), "a cache", "file")
    if not shards:
        raise EmbedcacheError("no shards to merge: name the caches that extract --shard I/N made")
    parts = [_open(Path(path)) for path in shards]
    for part, one in parts[1:]:
        _check_alike(parts[0], (part, one))
    _check_all_there([part for part, _ in parts])
    with writer_lock(target), ExitStack() as ends:
        sibling(target, "tmp").unlink(missing_ok=True)
        contents = _join(parts, target.parent)
        states = plan_merge(target, contents.arrays[HASH], parts, overwrite)
        if states is not None:
            ends.enter_context(writer_lock(index_path(target)))
        there = Cache(target) if target.exists() else None
        if there and not matches(there, contents) and not overwrite:
            raise EmbedcacheError(f"{target} exists and holds something else; pass --overwrite, or name another -o")
        work, makes = target, not there or not matches(there, contents)
        if states is not None:
            check_space(target, states.plan.needed, states.plan.needed + (contents.bytes if makes else 0))
        if makes:
            work = sibling(target, "new") if there else target
            create(work, contents, sibling(target, "tmp"))
        with Writer(work) as writer:
            whole = _copy_vectors(writer, parts)
            writer.sync()
            writer.check()
            missing = max(writer.cache.missing_rows(*output) for output in writer.cache.outputs)
        if states is not None:
            whole = list(map(and_, whole, copy_states(states)))
        if there:
            there.close()
        if work != target:
            publish(work, target)
        about = None
        if states is not None:
            with Cache(target) as merged:
                about = describe_states(target, merged.encoder, merged.hashes)
            missing = max(missing, about["missing_rows"] if about else 0)
        else:
            remove_foreign(target, parts[0][1].encoder)
    return MergeReport(
        cache=str(cache),
        rows=contents.layout.rows,
        shards=parts[0][0].shard.of,
        missing_rows=missing,
        complete=not missing,
        unfinished=[str(path) for path, sound in zip(shards, whole, strict=True) if missing and not sound],
        seconds=time.perf_counter() - started,
        token_states=about,
        notes=[*carried_notes(target), *unread_notes(shards, RELABEL)],
    )


def _open(path: Path) -> tuple[ShardOrigin, Cache]:
    cache = open_cache(path)
    part = ShardOrigin.of(cache)
    for dataset in cache.layout.checked:
        if not comes_with_vectors(dataset) and not valid_blocks(cache, dataset).all():
            raise EmbedcacheError(f"{path}: {dataset} is damaged; run its extract again to repair it")
    return part, cache


def _check_alike(first: tuple[ShardOrigin, Cache], other: tuple[ShardOrigin, Cache]) -> None:
    """Raise EmbedcacheError unless both are parts of one table, by one encoder, with the same columns."""
    (part, cache), (its_part, its) = first, other
    reason = ""
    if (part.shard.of, part.rows, part.table) != (its_part.shard.of, its_part.rows, its_part.table):
        what = f"shard {part.shard} of {part.rows:,} rows", f"shard {its_part.shard} of {its_part.rows:,} rows"
        reason = f"they are parts of different inputs ({' and '.join(what)}; texts or labels differ)"
    elif cache.fingerprint != its.fingerprint:
        reason = f"they were made with different encoders or settings: {differences(cache.encoder, its.encoder)}"
    elif set(cache.outputs) != set(its.outputs):
        reason = "they hold different poolings or layers"
    elif any(getattr(cache, one) != getattr(its, one) for one in ("column_names", "id_column", "text_column")):
        reason = "they hold different columns"
    if reason:
        raise EmbedcacheError(f"{cache.path} and {its.path} cannot be merged: {reason}; extract all shards alike")


def _check_all_there(parts: Sequence[ShardOrigin]) -> None:
    of = parts[0].shard.of
    missing = sorted(set(range(1, of + 1)) - {part.shard.number for part in parts})
    if missing:
        names = ", ".join(f"{number}/{of}" for number in missing[:20]) + (", ..." if missing[20:] else "")
        raise EmbedcacheError(
            f"{len(missing):,} of {of:,} shards are missing: {names}; make each with the same extract and "
            f"--shard {missing[0]}/{of} and so on, then name all files"
        )


def _join(parts: Sequence[tuple[ShardOrigin, Cache]], folder: Path) -> CacheContents:
    """The whole table again, as a cache without vectors."""
    by_number = {part.shard.number: (part, cache) for part, cache in reversed(parts)}
    caches = [by_number[number][1] for number in sorted(by_number)]
    rows = [by_number[number][0].shard.rows(parts[0][0].rows) for number in sorted(by_number)]
    one, total = caches[0], parts[0][0].rows

    def whole(arrays: Sequence[np.ndarray]) -> np.ndarray:
        joined = np.empty((total, *arrays[0].shape[1:]), arrays[0].dtype)
        for place, array in zip(rows, arrays, strict=True):
            joined[place] = array
        return joined

    hashes = whole([cache.hashes for cache in caches])
    labels = {name: (whole([c.labels(name)[0] for c in caches]), one.labels(name)[1]) for name in one.label_names}
    if table_digest(hashes, labels) != parts[0][0].table:
        raise EmbedcacheError("the shards do not add up to the input that they name; extract all of them again")
    contents = make_contents(
        hashes,
        _join_texts([cache.texts for cache in caches], total, folder),
        labels,
        {name: _join_texts([cache.column(name) for cache in caches], total, folder) for name in one.column_names},
        one.encoder,
        {output: one.width(output) for output in one.outputs},
        one.id_column,
        text_column=one.text_column,
        counted=all(cache.layout.counted for cache in caches),
        positions=one.layout.positions,
    )
    return contents


def _join_texts(parts: Sequence[Strings], total: int, folder: Path) -> Text:
    """Join the parts' texts, a stripe from each part in turn."""
    file, lengths = UnnamedFile(folder, "the texts"), np.empty(total, np.int64)
    rows = stripe_rows(total, len(parts))
    for stripe in range(-(-total // rows)):
        part, start = parts[stripe % len(parts)], stripe // len(parts) * rows
        offsets = part.offsets[start : start + rows + 1]
        file.write(part.data[offsets[0] : offsets[-1]].data)
        lengths[stripe * rows : (stripe + 1) * rows] = np.diff(offsets)
    return file.finish(), np.concatenate([[0], np.cumsum(lengths)])


def _copy_vectors(writer: Writer, parts: Sequence[tuple[ShardOrigin, Cache]]) -> list[bool]:
    """Copy each block whose texts all have a vector. A text in several rows has the vector of its first row.

    Returns:
        For every part, whether all its blocks are sound.
    """
    total, cache = writer.cache.rows, writer.cache
    donors, whole = {}, [True] * len(parts)
    for output in cache.outputs:
        source, row = np.full(total, -1, np.int32), np.zeros(total, np.int64)
        for k, (part, one) in reversed([*enumerate(parts, 1)]):
            mine = part.shard.rows(total)
            blocks = sound_blocks(one, output)
            whole[k - 1] &= bool(blocks.all())
            sound = np.repeat(blocks, BLOCK_ROWS)[: one.rows]
            source[mine[sound]], row[mine[sound]] = k, np.flatnonzero(sound)
        own = np.flatnonzero(np.repeat(sound_blocks(cache, output), BLOCK_ROWS)[:total])
        source[own], row[own] = 0, own
        donors[output] = Donors([cache, *(one for _, one in parts)], output, source, row)
    filler = Filler(writer, first_rows(cache.hashes), donors=donors)
    for window in filler.windows(1):
        if not len(window.new) and filler.ready(window):
            filler.finish(window)
    return whole
