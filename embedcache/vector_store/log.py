"""New texts and vectors, behind one another in one file: what is there never moves.

    "embedcache log 1\\n" | fingerprint, 32 hex digits | "\\n" | parts
    a part: MARK | rows, text bytes: uint32 each | BLAKE2b, 16 bytes | hashes [n, 16] | ends of texts uint64 [n] |
            texts | vectors [n, D]

The checksum binds the fingerprint of the encoder, both counts and all that follows. A part that a kill cut off does not
agree with its checksum: readers leave it alone, the next writer cuts it off. Behind one that was damaged later, parts
are found again by their mark.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedcache.cache.create import write_at
from embedcache.cache.strings import HASH_BYTES
from embedcache.common.durable import fsync, take_name
from embedcache.common.open_files import pread
from embedcache.errors import EmbedcacheError

START, MARK = b"embedcache log 1\n", b"\xecpart\r\n\x1a"
DIGEST_BYTES = 16
HEAD = len(MARK) + 8 + DIGEST_BYTES


class LogPart(NamedTuple):
    """n rows: hashes uint8 [n, 16], texts as bytes and ends int64 [n], vectors [n, D]."""

    hashes: np.ndarray
    data: np.ndarray
    ends: np.ndarray
    vectors: np.ndarray


class Log:
    """One file. Appending is the caller's turn alone, who holds a lock; reading is anybody's at any time."""

    def __init__(self, path: Path, fingerprint: str, dim: int, dtype: str) -> None:
        self.path, self._dim, self._dtype = path, dim, np.dtype(dtype)
        self._start = START + fingerprint.encode() + b"\n"

    def create(self) -> None:
        """An empty one in the place of what is there. Raises OSError."""
        new = self.path.with_name(self.path.name + ".tmp")
        new.write_bytes(self._start)
        take_name(new, self.path)

    def read(self, handle: int, first: int) -> tuple[list[LogPart], int]:
        """The parts from byte ``first`` on (0: the beginning) of the open file, and where the last of them ends.

        Raises:
            EmbedcacheError: it is not the log of this encoder.
        """
        if not first:
            if pread(handle, len(self._start), 0) != self._start:
                raise EmbedcacheError(f"{self.path} is no log of this encoder, or is damaged: delete it")
            first = len(self._start)
        size = os.fstat(handle).st_size - first
        data = pread(handle, size, first) if size > 0 else b""
        while len(data) < size and (more := pread(handle, size - len(data), first + len(data))):
            data += more
        found, end = [], 0
        for part, stop in self._parts(data):
            found.append(part)
            end = stop
        return found, first + end

    def append(self, handle: int, end: int, part: LogPart) -> int:
        """Write a part at byte ``end``, to the disk. Returns where it ends. Raises EmbedcacheError: no space."""
        os.ftruncate(handle, end)  # what a killed writer left
        counts = struct.pack("<II", len(part.hashes), len(part.data))
        body = b"".join(
            [
                part.hashes.tobytes(),
                part.ends.astype("<u8").tobytes(),
                part.data.tobytes(),
                np.ascontiguousarray(part.vectors, self._dtype).tobytes(),
            ]
        )
        whole = MARK + counts + self._digest(counts, body) + body
        write_at(handle, self.path, end, np.frombuffer(whole, np.uint8))
        fsync(handle)
        return end + len(whole)

    def _digest(self, counts: bytes, body: bytes | memoryview) -> bytes:
        state = blake2b(self._start, digest_size=DIGEST_BYTES)
        state.update(counts)
        state.update(body)
        return state.digest()

    def _parts(self, data: bytes) -> Iterator[tuple[LogPart, int]]:
        """(part, where it ends) of every part that agrees with its checksum."""
        view, place = memoryview(data), data.find(MARK)
        while place >= 0:
            part = self._part(view, place)
            if part is not None:
                yield part
            place = data.find(MARK, place + 1 if part is None else part[1])

    def _part(self, view: memoryview, place: int) -> tuple[LogPart, int] | None:
        counts = bytes(view[place + len(MARK) : place + len(MARK) + 8])
        if len(counts) < 8:
            return None
        n, size = struct.unpack("<II", counts)
        start = place + HEAD
        sizes = [n * HASH_BYTES, n * 8, size, n * self._dim * self._dtype.itemsize]
        stop = start + sum(sizes)
        if stop > len(view) or self._digest(counts, view[start:stop]) != view[start - DIGEST_BYTES : start]:
            return None
        places = np.cumsum([start, *sizes]).tolist()
        hashes, ends, texts, vectors = (view[a:b] for a, b in pairwise(places))
        return LogPart(
            np.frombuffer(hashes, np.uint8).reshape(n, HASH_BYTES),
            np.frombuffer(texts, np.uint8),
            np.frombuffer(ends, "<u8").astype(np.int64),
            np.frombuffer(vectors, self._dtype).reshape(n, self._dim),
        ), stop
