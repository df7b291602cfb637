"""The two files of a cache's token states, opened for reading: what a text's tokens are before the last layers.

``reviews.tokens.npy`` has the numbers, [T, D] float16, one text's tokens after another; ``reviews.tokens.hdf5`` says
which text lies where, by the text's hash, with a checksum for each. A text counts once its checksum is there. So
neither the order of a table nor its other columns concern these files, and more texts are added at the end.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import layout as lay
from embedcache.cache.fingerprint import states_differences, states_fingerprint
from embedcache.cache.hdf5_bytes import InvalidError
from embedcache.cache.hdf5_reader import SIGNATURE, Hdf5
from embedcache.cache.hdf5_structure import (
    DamagedCacheError,
    NotACacheError,
    Tree,
    read_dataset,
    read_integer,
    read_text,
)
from embedcache.cache.map_file import map_file
from embedcache.common.encoder_schema import parse_encoder
from embedcache.common.machine import usable_cores
from embedcache.common.open_files import pread_into
from embedcache.errors import EmbedcacheError

FORMAT_VERSION = 1
HASH, SPANS, CHECKSUMS = "texts/hash", "texts/spans", "texts/checksums"
HEADER = lay.ALIGNMENT  # bytes of the .npy file before the numbers
KIND = np.dtype("<f2")
MOST = 1 << 48  # tokens, or what a damaged number is
REPAIR = "run the same extract again to repair it"
TASKS = 256  # texts that a thread checks at a time


def index_path(cache: Path) -> Path:
    """reviews.h5 -> reviews.tokens.hdf5, beside the file itself where it is a link."""
    return Path(os.path.realpath(cache)).with_suffix(".tokens.hdf5")


def values_path(cache: Path) -> Path:
    """reviews.h5 -> reviews.tokens.npy"""
    return Path(os.path.realpath(cache)).with_suffix(".tokens.npy")


@dataclass(frozen=True)
class StatesAbout:
    """What the states are of.

    Attributes:
        encoder: ``source`` and ``identity``, as a cache has them. layers: K, the last layers that are not run.
        layer: whose output they are, counted from the embeddings, 0. dim: D.
    """

    encoder: dict[str, Any]
    layers: int
    layer: int
    dim: int

    @property
    def salt(self) -> bytes:
        """What a text's checksum binds besides the text and its states."""
        return states_fingerprint(self.encoder, self.layer)

    @property
    def token_bytes(self) -> int:
        return self.dim * KIND.itemsize


def end_of(spans: np.ndarray) -> int:
    """The tokens up to the end of the last of some texts. spans: int64 [M, 2], see ``StateFiles``."""
    return int(spans.sum(axis=1).max(initial=0))


def text_digest(salt: bytes, text: np.ndarray, values: np.ndarray) -> bytes:
    """The checksum of one text: of its hash, uint8 [16], and its states, float16 [t, D]."""
    state = blake2b(salt, digest_size=lay.DIGEST_BYTES)
    state.update(text.tobytes())
    state.update(len(values).to_bytes(8, "little"))
    state.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return state.digest()


class StateFiles:
    """Both files of a cache, as they are: texts may be missing or damaged. Close it, or let it go.

    Attributes:
        cache: whose they are. path: the index. values_path: the numbers. about: what they are of.
        created: when the index was made. seal: digest of all that it says, but for the checksums.
        hashes: uint8 [M, 16]. spans: int64 [M, 2], where each text's states begin and how many they are, in tokens.
        checksums: uint8 [M, 16], all zero where the text has no states yet.
        sealed: whether all but the checksums is as it was written. inode: which file the index is.
    """

    def __init__(self, cache: Path) -> None:
        """cache: the path of the cache.

        Raises:
            EmbedcacheError: there is no index, or it cannot be read.
        """
        self.cache, self.path, self.values_path = cache, index_path(cache), values_path(cache)
        found, self._map, self.inode = map_file(self.path, _read_index)
        self.about, self.created, self.seal, self._places = found
        self.hashes, self.spans, self.checksums = (self._array(name) for name in (HASH, SPANS, CHECKSUMS))
        self.sealed = self.seal == index_seal(self.about, self.created, self.hashes, self.spans)
        self._file = None
        with suppress(OSError):
            self._file = self.values_path.open("rb", buffering=0)

    def _array(self, name: str) -> np.ndarray:
        kind, shape, start = self._places[name]
        return self._map[start : start + int(np.prod(shape)) * np.dtype(kind).itemsize].view(kind).reshape(shape)

    def offset(self, name: str) -> int:
        """Where a dataset begins in the index, in bytes."""
        return self._places[name][2]

    @property
    def tokens(self) -> int:
        """T, the rows of the numbers' file."""
        return end_of(self.spans)

    @property
    def absent(self) -> np.ndarray:
        """bool [M], the texts that have no states yet."""
        return np.logical_not(self.checksums.any(axis=1))

    @property
    def whole(self) -> bool:
        """Whether the numbers' file is there, of the right kind and as long as the index says."""
        if self._file is None:
            return False
        try:
            self._file.seek(0)
            major, _ = np.lib.format.read_magic(self._file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[major]
            shape, columns_first, kind = read(self._file)
        except (ValueError, KeyError, OSError):
            return False
        right = kind == KIND and not columns_first and len(shape) == 2 and shape[1] == self.about.dim
        size = os.fstat(self._file.fileno()).st_size
        return right and self._file.tell() == HEADER and size >= HEADER + self.tokens * self.about.token_bytes

    def values(self) -> np.ndarray:
        """float16 [T, D], a read-only memory map."""
        shape = (self.tokens, self.about.dim)
        if not all(shape) or self._file is None:
            return np.empty(shape, KIND)
        return np.memmap(self._file, KIND, "r", offset=HEADER, shape=shape)

    def read(self, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float16 [sum of lengths, D]: the states of texts at these places, read by ``pread``, so nothing is mapped.

        Raises:
            EmbedcacheError: the file is shorter than that, or cannot be read.
        """
        assert self._file is not None
        out = np.empty((int(lengths.sum()), self.about.dim), KIND)
        view, size, done = out.reshape(-1).view(np.uint8).data, self.about.token_bytes, 0
        # Texts that lie one after another are read at once.
        cuts = np.flatnonzero(begins[1:] != begins[:-1] + lengths[:-1]) + 1
        for run in np.split(np.arange(len(begins)), cuts) if len(begins) else []:
            wanted, start = int(lengths[run].sum()) * size, HEADER + int(begins[run[0]]) * size
            while wanted:
                try:
                    read = pread_into(self._file.fileno(), view[done : done + wanted], start)
                except OSError as error:
                    raise EmbedcacheError(f"cannot read {self.values_path}: {error.strerror}") from None
                if not read:
                    raise DamagedCacheError(
                        f"{self.values_path} was cut short; run the same extract again to repair it"
                    )
                done, start, wanted = done + read, start + read, wanted - read
        return out

    def sound(self, slots: np.ndarray | None = None) -> np.ndarray:
        """bool [M]: the texts, or those of these numbers, whose states are there and agree with their checksum."""
        found = np.zeros(len(self.hashes), bool)
        present = np.flatnonzero(~self.absent)
        wanted = present if slots is None else np.intersect1d(present, slots)
        if not len(wanted) or not self.whole:
            return found
        salt = self.about.salt

        def check(some: np.ndarray) -> None:
            for slot in some.tolist():
                values = self.read(self.spans[slot : slot + 1, 0], self.spans[slot : slot + 1, 1])
                found[slot] = text_digest(salt, self.hashes[slot], values) == self.checksums[slot].tobytes()

        with ThreadPoolExecutor(min(8, usable_cores())) as pool:
            list(pool.map(check, np.split(wanted, np.arange(TASKS, len(wanted), TASKS))))
        return found

    def close(self) -> None:
        """Release the files and the arrays of the index; arrays that were handed out stay valid."""
        self._map = np.empty(0, np.uint8)
        self.hashes, self.spans, self.checksums = (
            self.hashes[:0].copy(),
            self.spans[:0].copy(),
            self.checksums[:0].copy(),
        )
        if self._file is not None:
            self._file.close()


def index_seal(about: StatesAbout, created: str, hashes: np.ndarray, spans: np.ndarray) -> str:
    """Digest of all that an index says, but for the checksums, which come later."""
    parts = [about.encoder, about.layers, about.layer, about.dim, created]
    state = blake2b(lay.canonical_json(parts).encode(), digest_size=lay.DIGEST_BYTES)
    for array in (hashes, spans):
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()


def open_states(cache: Path, encoder: dict[str, Any]) -> StateFiles:
    """The token states of a cache, certain to be those of its encoder.

    Raises:
        EmbedcacheError: there are none, they are another encoder's, or the files are damaged or not of each other.
    """
    if not index_path(cache).exists():
        raise EmbedcacheError(f"{cache} has no token states; run extract with --tokens K to keep those of K layers")
    files = StateFiles(cache)
    if not files.sealed:
        raise DamagedCacheError(f"{files.path} is damaged; {REPAIR}")
    if differ := states_differences(files.about.encoder, encoder):
        raise EmbedcacheError(
            f"{files.path} was made with another encoder than {cache}: {differ}; run extract with --tokens "
            f"{files.about.layers} --overwrite to make it again"
        )
    if not files.whole:
        raise DamagedCacheError(f"{files.values_path} is missing, cut short or not what {files.path} says; {REPAIR}")
    ends = np.flatnonzero(~files.absent)[[0, -1]] if not files.absent.all() else np.empty(0, np.int64)
    if not files.sound(ends)[ends].all():
        raise DamagedCacheError(f"{files.values_path} is damaged, or does not belong to {files.path}; {REPAIR}")
    return files


Places = dict[str, tuple[str, lay.Shape, int]]  # type, shape, offset in the file


def _read_index(path: Path, data: np.ndarray) -> tuple[StatesAbout, str, str, Places]:
    """What a file says: what the states are of, ``created``, ``seal``, and where its datasets lie."""
    if bytes(data[:8]) != SIGNATURE:
        raise NotACacheError(f"{path} is not an HDF5 file, so not an index of token states; move it away")
    try:
        file = Hdf5(data)
        root = file.root
        if read_text(file, root, "format") != lay.STATES_FORMAT:
            raise NotACacheError(f"{path} is not an index of token states; move it away")
        if (version := read_integer(root, "format_version")) > FORMAT_VERSION:
            raise NotACacheError(
                f"{path} has format version {version}, this embedcache reads {FORMAT_VERSION}; upgrade embedcache"
            )
        tree, places = Tree(file), Places()
        kinds: Sequence[tuple[str, str, int]] = ((HASH, "|u1", 16), (SPANS, "<i8", 2), (CHECKSUMS, "|u1", 16))
        for name, kind, width in kinds:
            rows = places[HASH][1][0] if places else None
            (found, shape), offset = read_dataset(tree.node(name), name, (kind,), (rows, width), data.size)
            places[name] = found, shape, offset
        layers, layer, dim = (read_integer(root, name) for name in ("layers", "layer", "dim"))
        encoder = parse_encoder(read_text(file, root, "encoder"))
        if encoder is None or not (0 < layers < 1 << 16 and 0 <= layer < 1 << 16 and 0 < dim < 1 << 24):
            raise InvalidError("its attributes are not what an index has")
        kind, shape, offset = places[SPANS]
        spans = data[offset : offset + shape[0] * 16].view(kind).reshape(shape)
        if spans.size and (spans.min() < 0 or spans.max() > MOST):
            raise InvalidError("a text lies outside of the file")
        about = StatesAbout(encoder, layers, layer, dim)
        return about, read_text(file, root, "created"), read_text(file, root, "seal"), places
    except InvalidError as error:
        raise DamagedCacheError(f"{path} is damaged: {error}; delete it and run the same extract again") from None
