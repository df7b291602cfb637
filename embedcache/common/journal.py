"""What a long command has finished, kept beside its output until that is whole, so that the same command can continue.

    "embedcache journal 1\\n" | key, 32 bytes | parts: length, 8 bytes | BLAKE2b, 16 bytes | data

It is the hidden file ``.OUT.partial`` that is locked as long as a command writes OUT (whole_file.py). The checksum of a
part binds the key, its number and its data. What follows the first part that is not right, such as one that a kill cut
off, is dropped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import blake2b

from embedcache.common.lock import Lock
from embedcache.common.open_files import pread, pwrite
from embedcache.errors import EmbedcacheError

MAGIC = b"embedcache journal 1\n"
KEY_BYTES, DIGEST_BYTES = 32, 16
HEAD = 8 + DIGEST_BYTES


class Journal:
    """Finished parts of work, in their order.

    Attributes:
        found: how many parts an earlier command left.
        is_other: it left work of another key, which is dropped.
    """

    def __init__(self, lock: Lock, key: str) -> None:
        """``key`` identifies the work: its input, its tools, its options."""
        self._lock, self._key = lock, blake2b(key.encode(), digest_size=KEY_BYTES).digest()
        self._places: list[tuple[int, int]] = []  # of each part's data: offset, bytes
        self._start = MAGIC + self._key
        self._end = len(self._start)
        start = pread(lock.handle, self._end, 0)
        self.is_other = start.startswith(MAGIC) and start != self._start
        if start == self._start:
            self._scan()
        os.ftruncate(lock.handle, self._end if self._places else 0)
        self.found = len(self._places)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._places)

    def __iter__(self) -> Iterator[bytes]:
        """The data of every part."""
        return (pread(self._lock.handle, size, place) for place, size in self._places)

    def append(self, data: bytes) -> None:
        """One more part. Raises EmbedcacheError where the disk is full; the parts before it stay."""
        if not self._places:
            self._write(self._start, 0)
        self._write(len(data).to_bytes(8, "little") + self._digest(len(self._places), data) + data, self._end)
        self._places.append((self._end + HEAD, len(data)))
        self._end += HEAD + len(data)

    def _scan(self) -> None:
        size = os.fstat(self._lock.handle).st_size
        while self._end + HEAD <= size:
            head = pread(self._lock.handle, HEAD, self._end)
            length = int.from_bytes(head[:8], "little")
            if self._end + HEAD + length > size:
                return
            data = pread(self._lock.handle, length, self._end + HEAD)
            if len(data) != length or head[8:] != self._digest(len(self._places), data):
                return
            self._places.append((self._end + HEAD, length))
            self._end += HEAD + length

    def _digest(self, number: int, data: bytes) -> bytes:
        return blake2b(data, digest_size=DIGEST_BYTES, key=self._key, salt=number.to_bytes(16, "little")).digest()

    def _write(self, data: bytes, place: int) -> None:
        view = memoryview(data)
        try:
            while view:
                written = pwrite(self._lock.handle, view, place)
                view, place = view[written:], place + written
        except OSError as error:
            raise EmbedcacheError(
                f"cannot write {self._lock.path}: {error.strerror or error}; make room, then run the same command "
                "again: it continues after what is saved there"
            ) from None
