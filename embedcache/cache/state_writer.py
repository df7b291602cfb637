"""Make and grow the files of token states, and write states into them in place.

The numbers' file is reserved first, then the index of what is to come takes its name at once, then text after text is
written and its checksum after it. So whenever a writer is killed, the index that is there is whole, and says which
texts count. More texts are added behind the others: nothing that is there is moved or copied.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.create import write_at, write_dataset
from embedcache.cache.hdf5_structure import HDF5_ERRORS
from embedcache.cache.map_file import file_id, remove_mapped
from embedcache.cache.state_files import (
    CHECKSUMS,
    FORMAT_VERSION,
    HASH,
    HEADER,
    KIND,
    SPANS,
    StateFiles,
    StatesAbout,
    end_of,
    index_path,
    index_seal,
    text_digest,
    values_path,
)
from embedcache.common.durable import fsync, lacks_room, reserve, take_name
from embedcache.common.open_files import open_file
from embedcache.errors import EmbedcacheError


def place_texts(lengths: np.ndarray, rows: np.ndarray, start: int, token_bytes: int) -> np.ndarray:
    """int64 [n]: where each of n new texts begins, in tokens, behind the ``start`` tokens that are there.

    One follows another, but the first text of each block of the cache begins a page: machines that write different
    blocks write different pages. lengths: int64 [n]. rows: int64 [n], the cache row of each, ascending.
    """
    step = lay.ALIGNMENT // math.gcd(lay.ALIGNMENT, token_bytes)
    begins, blocks = np.zeros(len(lengths), np.int64), rows // lay.BLOCK_ROWS
    for part in np.split(np.arange(len(lengths)), np.flatnonzero(np.diff(blocks)) + 1):
        if len(part):
            start = -(-start // step) * step
            begins[part] = start + np.cumsum(lengths[part]) - lengths[part]
            start += int(lengths[part].sum())
    return begins


def make_states(
    cache: Path, about: StatesAbout, hashes: np.ndarray, spans: np.ndarray, checksums: np.ndarray | None = None
) -> None:
    """Reserve the numbers' file, then write the index of M texts; what there is of both is kept where it agrees.

    hashes: uint8 [M, 16]. spans: int64 [M, 2]. checksums: uint8 [M, 16] of states that are there, zero for the others.

    Raises:
        EmbedcacheError: the disk is too full (says how much is needed) or cannot be written.
    """
    tokens = end_of(spans)
    index = index_path(cache)
    if not index.exists():  # what a killed run left of the numbers without an index is of no use
        values_path(cache).unlink(missing_ok=True)
    _reserve(values_path(cache), about, tokens)
    temporary = lay.sibling(index, "tmp")
    created = datetime.now(timezone.utc).isoformat(timespec="seconds")
    checksums = np.zeros((len(hashes), lay.DIGEST_BYTES), np.uint8) if checksums is None else checksums
    try:
        with h5py.File(
            temporary,
            "w",
            libver=("v110", "v110"),
            alignment_threshold=1,
            alignment_interval=lay.ALIGNMENT,
            locking=False,
        ) as file:
            attrs = {"format": lay.STATES_FORMAT, "format_version": FORMAT_VERSION, "created": created}
            attrs |= {"encoder": lay.canonical_json(about.encoder), "layers": about.layers, "layer": about.layer}
            attrs |= {"dim": about.dim, "seal": index_seal(about, created, hashes, spans)}
            for name, value in attrs.items():
                file.attrs[name] = value
            for name, array in ((HASH, hashes), (SPANS, spans.astype("<i8")), (CHECKSUMS, checksums)):
                write_dataset(file, name, array.dtype.str, array.shape)
                if array.size:
                    file[name][...] = array
        take_name(temporary, index)
    except HDF5_ERRORS as error:
        raise EmbedcacheError(f"cannot write {index}: {' '.join(str(error).split())}") from None
    finally:
        temporary.unlink(missing_ok=True)


def remove_states(cache: Path, error: BaseException | None = None) -> None:
    """Remove both files, the index first: without it the other one means nothing. error: that is being raised."""
    for path in (index_path(cache), values_path(cache)):
        if error is None:
            path.unlink(missing_ok=True)
        else:
            remove_mapped(path, error)


def check_space(cache: Path, states: int, needed: int) -> None:
    """Raises EmbedcacheError where ``needed`` bytes, ``states`` of them for token states, are not free."""
    free = shutil.disk_usage(cache.parent).free
    if free < needed:
        raise _no_space(cache, states, needed, free)


def _no_space(path: Path, states: int, needed: int, free: int) -> EmbedcacheError:
    return EmbedcacheError(
        f"not enough space for the token states in {path.parent}: {needed:,} bytes are needed, {states:,} of them for "
        f"the states, and {free:,} are free; make room, use a smaller --max-length, or leave --tokens out"
    )


def _reserve(path: Path, about: StatesAbout, tokens: int) -> None:
    """The numbers' file with room for so many tokens; its header tells NumPy so."""
    size = HEADER + tokens * about.token_bytes
    try:
        handle = open_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror}; check its permissions") from None
    try:
        before = os.fstat(handle).st_size
        try:
            reserved = reserve(handle, size)
        except OSError as error:
            if not lacks_room(error):
                raise EmbedcacheError(f"cannot write {path}: {error.strerror}") from None
            os.ftruncate(handle, before)
            free = shutil.disk_usage(path.parent).free
            raise _no_space(path, size - before, size - before, free) from None
        if not reserved:
            check_space(path, size - before, size - before)
            os.ftruncate(handle, max(size, before))
        write_at(handle, path, 0, np.frombuffer(_header(tokens, about.dim), np.uint8))
        fsync(handle)
    finally:
        without_room = not os.fstat(handle).st_size
        os.close(handle)
        if without_room:
            path.unlink()


def _header(tokens: int, dim: int) -> bytes:
    """Of a .npy file, version 1.0, as long as a page."""
    about = f"{{'descr': '{KIND.str}', 'fortran_order': False, 'shape': ({tokens}, {dim}), }}"
    start = b"\x93NUMPY\x01\x00" + (HEADER - 10).to_bytes(2, "little")
    return start + about.encode().ljust(HEADER - 11) + b"\n"


class StateWriter:
    """Writes the states of texts that the index has, in place. The caller holds the lock; threads may share it.

    Attributes:
        files: the same files, open for reading; they see what is written at once.
    """

    def __init__(self, cache: Path) -> None:
        self.files = StateFiles(cache)
        self._salt = self.files.about.salt
        self._index = open_file(self.files.path, os.O_RDWR)
        self._values = open_file(self.files.values_path, os.O_RDWR)

    def put(self, slot: int, values: np.ndarray) -> bytes:
        """Write the states of a text, float16 [t, D]; returns the checksum, with which it will count.

        Raises:
            EmbedcacheError: it cannot be written, or has another number of tokens than was reserved.
        """
        files = self.files
        begin, tokens = files.spans[slot].tolist()
        if values.shape != (tokens, files.about.dim) or values.dtype != KIND:
            raise EmbedcacheError(
                f"a text has {len(values)} tokens, and had {tokens} when its space was reserved in "
                f"{files.values_path}: its tokenizer does not give the same tokens each time"
            )
        flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        write_at(self._values, files.values_path, HEADER + begin * files.about.token_bytes, flat)
        return text_digest(self._salt, files.hashes[slot], values)

    def commit(self, slots: np.ndarray, digests: Sequence[bytes]) -> None:
        """Write the checksums of texts whose states are written; from here on they count. Neighbours in one write."""
        if not len(slots):
            return
        order = np.argsort(slots)
        found = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, lay.DIGEST_BYTES)[order]
        slots, start = slots[order], self.files.offset(CHECKSUMS)
        for run in np.split(np.arange(len(slots)), np.flatnonzero(np.diff(slots) != 1) + 1):
            place = start + int(slots[run[0]]) * lay.DIGEST_BYTES
            write_at(self._index, self.files.path, place, np.ascontiguousarray(found[run]).reshape(-1))

    @property
    def started(self) -> bool:
        """Whether any text counts already."""
        return not bool(self.files.absent.all())

    def check(self) -> None:
        """Notice that the index was removed or replaced while we write."""
        if file_id(self.files.path) != self.files.inode:
            raise EmbedcacheError(f"{self.files.path} was removed or replaced while it was written; run extract again")

    def sync(self) -> None:
        for handle in (self._values, self._index):
            fsync(handle)

    def close(self) -> None:
        """May be called twice."""
        handles, self._values, self._index = (self._values, self._index), -1, -1
        for handle in handles:
            if handle >= 0:
                os.close(handle)
        self.files.close()

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


State = bytes | np.ndarray  # the checksum of states that are written, or the states themselves, float16 [t, D]


class StateFill:
    """The token states that a pass makes.

    Attributes:
        writer: the files.
        slots: int64 [N], which text of the files each row of the table has.
        lacking: bool [N], the rows whose states must be made; of equal texts only the first row.
        damaged: texts whose states do not agree with their checksum; they are made again.
    """

    def __init__(self, writer: StateWriter, slots: np.ndarray, lacking: np.ndarray) -> None:
        self.writer, self.slots, self.lacking = writer, slots, lacking
        self.damaged = int(np.count_nonzero(~writer.files.absent[slots[lacking]]))

    @property
    def layer(self) -> int:
        """Whose output the states are, counted from the embeddings, 0."""
        return self.writer.files.about.layer

    def put(self, row: int, values: np.ndarray) -> bytes:
        """Write the states of a row's text, float16 [t, D]; returns the checksum, with which they will count."""
        return self.writer.put(int(self.slots[row]), values)

    def finish(self, states: Mapping[int, State]) -> None:
        """From here on these count, by row; what is not written yet is written first.

        Raises:
            EmbedcacheError: no space; the files were replaced.
        """
        digests = [one if isinstance(one, bytes) else self.put(row, one) for row, one in states.items()]
        self.writer.check()
        self.writer.commit(self.slots[np.fromiter(states, np.int64, len(states))], digests)


def to_half(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Token states as float16. values: float32 [t, D], those of ``texts[i]`` from ``offsets[i]`` on.

    Raises:
        EmbedcacheError: a number is not finite in it; names the row.
    """
    with np.errstate(over="ignore"):
        stored = values.astype(KIND)
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if not bad.size:
        return stored
    token = int(bad[0])
    i = int(np.searchsorted(offsets, token, "right")) - 1
    if np.isfinite(values[token]).all():
        most = np.abs(values[token]).max()
        problem = f"have values up to {most:.3g}, too large for float16; keep another layer's (--tokens), or none"
    else:
        problem = "are not finite as the encoder gives them; try --dtype float32"
    raise EmbedcacheError(f"the token states of row {int(rows[i]):,} ({texts[i][:40]!r}), counted from 0, {problem}")
