"""Rows of token ids of any length, one after another in one array, rather than a list or an object per row."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import overload

import numpy as np


class TokenRows(Sequence[Sequence[int]]):
    """n rows of token ids.

    Attributes:
        flat: int32 [T], the ids of all rows, one row after another.
        offsets: int64 [n + 1], where in ``flat`` each row begins, and T.
    """

    def __init__(self, flat: np.ndarray, offsets: np.ndarray) -> None:
        self.flat, self.offsets = flat, offsets

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> TokenRows:
        """Convert rows to this form."""
        if isinstance(rows, TokenRows):
            return rows
        offsets = row_offsets(np.fromiter(map(len, rows), np.int64, len(rows)))
        return cls(np.fromiter((token for row in rows for token in row), np.int32, int(offsets[-1])), offsets)

    @classmethod
    def joined(cls, parts: Sequence[TokenRows]) -> TokenRows:
        """The rows of all parts, in order."""
        lengths = np.concatenate([np.zeros(0, np.int64), *(part.lengths for part in parts)])
        flat = np.concatenate([np.zeros(0, np.int32), *(part.flat for part in parts)])
        return cls(flat, row_offsets(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, at: int) -> list[int]: ...

    @overload
    def __getitem__(self, at: slice) -> TokenRows: ...

    def __getitem__(self, at: int | slice) -> list[int] | TokenRows:
        if isinstance(at, slice):
            return self.take(np.arange(len(self))[at])
        place = range(len(self))[at]
        ids: list[int] = self.flat[self.offsets[place] : self.offsets[place + 1]].tolist()
        return ids

    @property
    def lengths(self) -> np.ndarray:
        """The length of each row, int64 [n]."""
        return np.diff(self.offsets)

    def take(self, places: np.ndarray) -> TokenRows:
        """The rows at ``places``, int64 [m], in that order."""
        return TokenRows(*take_ragged(self.flat, self.offsets, places))

    def replaced(self, places: np.ndarray, others: TokenRows) -> TokenRows:
        """The same rows, with those at ``places``, int64 [m], replaced by ``others``."""
        rest = np.setdiff1d(np.arange(len(self)), places)
        return scattered(len(self), [(rest, self.take(rest)), (places, others)])

    def count(self, token: int) -> np.ndarray:  # type: ignore[override]
        """How often a token id occurs in each row, int64 [n]."""
        before = row_offsets(self.flat == token)
        return before[self.offsets[1:]] - before[self.offsets[:-1]]

    def lists(self) -> list[list[int]]:
        """The rows as lists."""
        flat, offsets = self.flat.tolist(), self.offsets.tolist()
        return [flat[begin:end] for begin, end in pairwise(offsets)]


def row_offsets(lengths: np.ndarray) -> np.ndarray:
    """Where each of n consecutive rows of these lengths begins, and where the last one ends: int64 [n + 1]."""
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_ragged(flat: np.ndarray, offsets: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows at these places, int64 [m], of what lies one row after another in [T, ...]: [t, ...] and offsets."""
    lengths = np.diff(offsets)[places]
    taken = row_offsets(lengths)
    shift = np.repeat(offsets[:-1][places] - taken[:-1], lengths)
    return flat[np.arange(taken[-1]) + shift], taken


def scattered(n: int, parts: Sequence[tuple[np.ndarray, TokenRows]]) -> TokenRows:
    """Join parts to n rows. Each part is (places, rows), with places int64; together they hold every place once."""
    order = np.concatenate([np.zeros(0, np.int64), *(np.asarray(places, np.int64) for places, _ in parts)])
    back = np.empty(n, np.int64)
    back[order] = np.arange(n)
    return TokenRows.joined([rows for _, rows in parts]).take(back)
