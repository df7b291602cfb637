"""Make a cache file: structure first, then space, then what is known before encoding. Write blocks in place.

HDF5 is used for the structure alone, once, and closed; every byte of data is written by offset, so a crash can never
leave HDF5 metadata half changed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.checksums import digests, valid_blocks
from embedcache.cache.file import Cache
from embedcache.cache.hdf5_structure import HDF5_ERRORS, nbytes
from embedcache.cache.layout import Layout, Output, block_path, quote
from embedcache.cache.map_file import file_id, forget
from embedcache.cache.stored_rows import parted
from embedcache.cache.strings import Text
from embedcache.common.durable import fsync, lacks_room, reserve, take_name
from embedcache.common.int8_rows import INT8
from embedcache.common.open_files import open_file, pwrite
from embedcache.errors import EmbedcacheError

CHUNK = 1 << 24  # bytes or elements moved at once


@dataclass
class CacheContents:
    """A cache without its vectors: the layout, and the arrays of every dataset that the input alone decides."""

    layout: Layout
    arrays: dict[str, np.ndarray]

    @property
    def bytes(self) -> int:
        """What the file takes, its structure aside."""
        return sum(nbytes(*what) for what in self.layout.with_checksums().values())


def make_contents(
    hashes: np.ndarray,
    texts: Text,
    labels: Mapping[str, tuple[np.ndarray, list[str]]],
    columns: Mapping[str, Text],
    encoder: Mapping[str, Any],
    outputs: Mapping[Output, int],
    id_column: str | None = None,
    *,
    text_column: str | None = None,
    counted: bool = False,
    positions: int | None = None,
) -> CacheContents:
    """Put the parts in their places; ``encoder["store"]`` is the type of the vectors to come.

    outputs: what vectors, and how wide each is.
    text_column: what the texts are called in the table, where that is not "text": later tables are read by it.
    labels: codes and classes as LabelCoder gives them, codes [N] of single labels or a matrix [N, C] of lists.
    counted: with room for the tokens of each text, of which the encoder reads ``positions`` at most.
    """
    attrs: dict[str, str | int] = {
        "format": lay.FORMAT,
        "format_version": lay.version_of(encoder["store"]),
        "encoder": lay.canonical_json(encoder),
    }
    if id_column is not None:
        attrs["id_column"] = id_column
    if text_column is not None:
        attrs["text_column"] = text_column
    arrays = {lay.HASH: hashes}
    for column, (codes, _) in sorted(labels.items()):
        arrays[f"{lay.LABELS}/{quote(column)}"] = codes.astype("<i4" if codes.ndim == 1 else "|i1", copy=False)
    for group, (data, offsets) in {
        lay.TEXT: texts,
        **{f"{lay.COLUMNS}/{quote(name)}": text for name, text in sorted(columns.items())},
    }.items():
        arrays[f"{group}/bytes"], arrays[f"{group}/offsets"] = data, offsets.astype("<i8", copy=False)
    datasets = {path: (array.dtype.str, tuple(map(int, array.shape))) for path, array in arrays.items()}
    datasets[lay.TRUNCATED] = ("|u1", (len(hashes),))
    if counted:
        datasets[lay.TOKENS] = ("<i4", (len(hashes), 2))
    kind = np.dtype(encoder["store"]).newbyteorder("<").str
    paths = lay.output_paths(list(outputs))
    datasets |= {path: (kind, (len(hashes), outputs[output])) for output, path in paths.items()}
    if encoder["store"] == INT8:
        datasets |= {lay.scales_path(path): ("<f4", (len(hashes),)) for path in paths.values()}
    classes = {name: list(names) for name, (_, names) in labels.items()}
    kinds = {name: lay.MULTILABEL for name, (codes, _) in labels.items() if codes.ndim == 2}
    return CacheContents(Layout(attrs, classes, datasets, kinds, positions), arrays)


def matches(cache: Cache, contents: CacheContents) -> bool:
    """Whether the file holds these contents, undamaged, so that only vectors can be missing.

    A file without token counts is not rewritten to get them.
    """
    wanted = contents.layout if cache.layout.counted else contents.layout.uncounted()
    return (
        cache.sealed
        and cache.layout == wanted
        and all(_equal(cache.array(path), array) for path, array in contents.arrays.items())
        and all(valid_blocks(cache, path).all() for path in contents.arrays)
    )


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    a, b = a.reshape(-1), b.reshape(-1)
    return all(np.array_equal(a[i : i + CHUNK], b[i : i + CHUNK]) for i in range(0, len(a), CHUNK))


def create(path: Path, contents: CacheContents, temporary: Path | None = None) -> None:
    """Write a new file with all its space reserved and everything but the vectors; on failure nothing is left.

    It is made under the name ``temporary`` in the same folder and gets its own when all is on the disk.

    Raises:
        EmbedcacheError: the disk is too full (says how much is needed) or cannot be written.
    """
    temporary = temporary or lay.sibling(path, "tmp")
    try:
        _check_space(path, contents.bytes)
        try:
            _write_structure(temporary, contents.layout)
        except HDF5_ERRORS as error:
            raise EmbedcacheError(f"cannot write {temporary}: {' '.join(str(error).split())}") from None
        with Writer(temporary) as writer:
            writer.reserve()
            for dataset, array in contents.arrays.items():
                writer.put(dataset, 0, array)
                forget(array)
            for dataset in contents.arrays:  # a block of text ends where the offsets say
                writer.commit(dataset, 0, contents.layout.blocks)
                forget(writer.cache.array(dataset))
            writer.sync()
        publish(temporary, path)
    finally:
        with suppress(OSError):  # Windows refuses to look for some names at all
            temporary.unlink(missing_ok=True)


def publish(source: Path, target: Path) -> None:
    """Give the finished file its name, at once and durably."""
    if target.exists():
        shutil.copymode(target, source)
    take_name(source, target)


def _write_structure(path: Path, layout: Layout) -> None:
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    string = h5py.string_dtype()
    with h5py.File(
        path,
        "w",
        libver=("v110", "v110"),  # checksums on all HDF5 metadata; readable since HDF5 1.10
        alignment_threshold=1,
        alignment_interval=lay.ALIGNMENT,
        locking=False,
    ) as file:
        for name, value in {**layout.attrs, "created": created, "seal": layout.seal(created)}.items():
            file.attrs[name] = value
        for name, (kind, shape) in layout.with_checksums().items():
            write_dataset(file, name, kind, shape)
        if layout.counted and layout.positions is not None:
            file[lay.TOKENS].attrs["positions"] = layout.positions
        for column, classes in layout.classes.items():
            names = np.array(classes, dtype=object)
            dataset = file[f"{lay.LABELS}/{quote(column)}"]
            dataset.attrs.create("classes", names, dtype=string)
            if column in layout.kinds:
                dataset.attrs["kind"] = layout.kinds[column]


def write_dataset(file: h5py.File, path: str, kind: str, shape: lay.Shape) -> None:
    """Contiguous, allocated now, never filled: HDF5 has nothing left to do afterwards."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    links.set_char_encoding(h5py.h5t.CSET_UTF8)
    type_id = h5py.h5t.py_create(np.dtype(kind), logical=True)
    space = h5py.h5s.create_simple(shape)
    h5py.h5d.create(file.id, path.encode(), type_id, space, dcpl=plist, lcpl=links)


def _check_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise _no_space(path, needed, free)


def _no_space(path: Path, needed: int, free: int) -> EmbedcacheError:
    return EmbedcacheError(
        f"not enough space for the cache in {path.parent}: {needed:,} bytes are needed, {free:,} are free; "
        "make room or name another output"
    )


def write_at(handle: int, path: Path, offset: int, data: np.ndarray) -> None:
    """All of a contiguous array, from byte ``offset`` on, to the open file ``path``.

    Raises:
        EmbedcacheError: it cannot be written.
    """
    view = data.data
    try:
        while view:
            written = pwrite(handle, view[:CHUNK], offset)
            view, offset = view[written:], offset + written
    except OSError as error:
        raise EmbedcacheError(
            f"cannot write {path}: {error.strerror}; what was written stays; run extract again to continue"
        ) from None


class Writer:
    """Writes data into an existing file, in place, by offset. The caller holds the lock.

    Attributes:
        cache: the same file, open for reading; it sees what is written at once.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache = Cache(path)
        self._handle = open_file(path, os.O_RDWR)

    def reserve(self) -> None:
        """Make sure that the disk has room for the whole file: not a fault after hours, but an error now."""
        size = os.fstat(self._handle).st_size
        try:
            reserved = reserve(self._handle, size)
        except OSError as error:
            if not lacks_room(error):
                raise
            raise _no_space(self.path, size, shutil.disk_usage(self.path.parent).free) from None
        if not reserved:
            _check_space(self.path, size)

    def put(self, dataset: str, start: int, array: np.ndarray) -> None:
        """Write whole rows (or elements), from row ``start`` on; the type is the dataset's."""
        if array.size == 0:
            return
        kind, shape = self.cache.layout.datasets[dataset]
        row = nbytes(kind, shape[1:])
        flat = np.ascontiguousarray(array, kind).reshape(-1).view(np.uint8)
        self._write(self.cache.offset(dataset) + start * row, flat)

    def put_vectors(self, dataset: str, start: int, rows: np.ndarray) -> None:
        """Write whole rows of vectors, as ``to_store`` gives them, from row ``start`` on."""
        written = parted(rows, self.cache.encoder["store"])
        for part, array in zip(self.cache.vector_datasets(dataset), written, strict=True):
            self.put(part, start, array)

    def commit(self, dataset: str, first: int, last: int) -> None:
        """Checksum the blocks ``first`` to ``last`` (exclusive) as they are now; from here on they count.

        The checksums of neighbouring blocks go out in one write.
        """
        found = digests(self.cache, dataset, first, last)
        if found.size:
            self._write(self.cache.offset(block_path(dataset)) + first * lay.DIGEST_BYTES, found.reshape(-1))

    def put_checksums(self, dataset: str, blocks: np.ndarray, found: np.ndarray) -> None:
        """Write the checksums [n, 16] of blocks whose bytes are written; from here on they count.

        Those of the blocks between the first and the last stay, and all go out in one write.
        """
        first, last = int(blocks[0]), int(blocks[-1]) + 1
        whole = self.cache.checksums(dataset)[first:last].copy()
        whole[blocks - first] = found
        self._write(self.cache.offset(block_path(dataset)) + first * lay.DIGEST_BYTES, whole.reshape(-1))

    @property
    def started(self) -> bool:
        """Whether any block of vectors counts already."""
        return any(not self.cache.absent_blocks(path).all() for path in self.cache.output_paths.values())

    def check(self) -> None:
        """Notice that the file was removed or replaced while we write."""
        if file_id(self.path) != self.cache.inode:
            raise EmbedcacheError(f"{self.path} was removed or replaced while it was written; run extract again")

    def sync(self) -> None:
        fsync(self._handle)

    def _write(self, offset: int, data: np.ndarray) -> None:
        write_at(self._handle, self.path, offset, data)

    def close(self) -> None:
        """May be called twice."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)
        self.cache.close()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
