"""Texts as one run of UTF-8 bytes and the offsets where each begins: collected in batches, read lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import overload

import numpy as np

from embedcache.cache.spool_file import UnnamedFile
from embedcache.errors import EmbedcacheError

Text = tuple[np.ndarray, np.ndarray]  # UTF-8 bytes (uint8) and offsets (int64, n + 1)
HASH_BYTES = 16
PART_ROWS = 1 << 20


def slices(text: Text) -> list[memoryview]:
    """Each text's bytes; nothing is copied."""
    data, offsets = text[0].data, text[1].tolist()
    return [data[start:stop] for start, stop in pairwise(offsets)]


def hash_texts(raw: Sequence[bytes | memoryview]) -> np.ndarray:
    """[n, 16] uint8: the BLAKE2b hash that a text is known by."""
    digests = b"".join([blake2b(text, digest_size=HASH_BYTES).digest() for text in raw])
    return np.frombuffer(digests, np.uint8).reshape(-1, HASH_BYTES)


def blank_rows(text: Text) -> np.ndarray:
    """bool [n]: the texts that are empty or white space alone."""
    data, offsets = text
    blank = np.diff(offsets) == 0
    rows = np.flatnonzero(~blank)
    # Only a text that begins with white space, or with a byte of other than ASCII, can be white space alone.
    first = data[offsets[rows]]
    strings = Strings(data, offsets)
    for row in rows[(first <= ord(" ")) | np.isin(first, (0xC2, 0xE1, 0xE2, 0xE3))]:
        blank[row] = strings[int(row)].isspace()
    return blank


def first_rows(*tables: np.ndarray) -> np.ndarray:
    """int64 [n], for each row the first row with the same hash; tables of hashes are counted one after another."""
    starts = np.cumsum([0, *map(len, tables)])
    first = np.empty(starts[-1], np.int64)
    parts = min(len(first) // PART_ROWS + 1, 256)  # one after another: quicker, and memory holds one part's copies
    part = np.concatenate([table[:, 0] % parts for table in tables])
    halves = [np.ascontiguousarray(table).view(np.uint64) for table in tables]
    for number in range(parts):
        rows = np.flatnonzero(part == number)
        of_table = np.split(rows, np.searchsorted(rows, starts[1:-1]))
        found = [both[some - start] for both, some, start in zip(halves, of_table, starts[:-1], strict=True)]
        first[rows] = rows[_first_places(*np.concatenate(found).T)]
    return first


def _first_places(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """int64 [n], for each of n numbers in two halves (uint64) the first place where it stands."""
    n = len(high)
    order = np.argsort(high, kind="stable")
    new = np.append(True, np.diff(high[order]) != 0)[:n]
    if (np.diff(low[order])[~new[1:]] != 0).any():  # two texts agree in half of their hashes: never, by chance
        order = np.lexsort((low, high))
        new[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    group = np.cumsum(new) - 1
    first = np.empty(n, np.int64)
    first[order] = order[np.flatnonzero(new)][group]
    return first


SCAN = 1 << 20  # elements that are looked at together


class Spool:
    """Collects texts in unnamed files, so that memory holds none of it; they vanish with the process."""

    def __init__(self, folder: Path) -> None:
        self._bytes, self._offsets = UnnamedFile(folder, "the texts"), UnnamedFile(folder, "the texts")
        self._offsets.write(np.zeros(1, np.int64))
        self._size = 0

    def add(self, text: Text) -> None:
        data, offsets = text
        self._bytes.write(data)
        self._offsets.write(offsets[1:] + self._size)
        self._size += len(data)

    def finish(self) -> Text:
        """The bytes and offsets of everything that was added: maps of the files."""
        return self._bytes.finish(), self._offsets.finish().view(np.int64)


class Strings(Sequence[str]):
    """A read-only sequence of n texts over ``data`` (uint8) and ``offsets`` (int64, n + 1); nothing is copied.

    Raises:
        EmbedcacheError: when an element that is read is not UTF-8 (a damaged file).
    """

    def __init__(self, data: np.ndarray, offsets: np.ndarray, name: str = "text") -> None:
        self.data, self.offsets, self.name = data, offsets, name

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self._read(i) for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self._read(int(row) % len(self))

    def __iter__(self) -> Iterator[str]:
        return map(self._read, range(len(self)))

    def _read(self, row: int) -> str:
        raw = self.data[int(self.offsets[row]) : int(self.offsets[row + 1])].tobytes()
        try:
            return raw.decode()
        except UnicodeDecodeError:
            where = f"{self.name} of row {row}"
            raise EmbedcacheError(f"{where} is damaged: not UTF-8; run extract again to repair the cache") from None


def valid_offsets(offsets: np.ndarray, end: int) -> bool:
    """From 0 to ``end`` without a step back."""
    ordered = all((np.diff(offsets[i : i + SCAN + 1]) >= 0).all() for i in range(0, len(offsets), SCAN))
    return bool(offsets[0] == 0 and offsets[-1] == end and ordered)
