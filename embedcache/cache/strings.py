"""Texts as one run of UTF-8 bytes and the offsets where each begins: made in batches, read lazily."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from embedcache.errors import EmbedcacheError


def to_utf8(texts: Sequence[str]) -> list[bytes]:
    """UTF-8 of each text; a lone surrogate (possible in JSON, not in UTF-8) becomes U+FFFD."""
    try:
        return [text.encode() for text in texts]
    except UnicodeEncodeError:
        return [well_formed(text).encode() for text in texts]


def well_formed(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


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
