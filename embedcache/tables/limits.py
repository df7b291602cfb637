"""How long a text may be, and how much of a file is in memory at a time.

A packed file of some MB may hold a line of many GB. Nothing is read to its end before its length is known to be
allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BufferedReader, RawIOBase
from itertools import islice
from typing import Any

from embedcache.errors import EmbedcacheError

MEGABYTE = 1_000_000
TEXT_MB = 64  # by default, of one text, and of one line of a text format
BATCH_BYTES = 64 * MEGABYTE  # of rows that are in memory together, where one row is not larger
BUFFER = 1 << 18
UNLIMITED = 1 << 62
_most: ContextVar[int] = ContextVar("most", default=TEXT_MB * MEGABYTE)


@contextmanager
def text_limit(megabytes: float) -> Iterator[None]:
    """Within it, one text of a table that is opened may have so many million bytes (64 without)."""
    before = _most.set(max(1, round(megabytes * MEGABYTE)))
    try:
        yield
    finally:
        _most.reset(before)


def most_bytes() -> int:
    """What one text may have."""
    return _most.get()


class TooLongError(Exception):
    """A line is longer than allowed; ``offset``: where in the unpacked file it begins, in bytes."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def bounded(file: Any, most: int) -> BufferedReader:
    """The binary file, whose reads raise TooLongError in a line of more than ``most`` bytes."""
    return BufferedReader(_Lines(file, most), BUFFER)


class _Lines(RawIOBase):
    def __init__(self, file: Any, most: int) -> None:
        self.file, self.most = file, most
        self.position = self.start = 0  # of the next byte, and of the line that it is in

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(len(buffer))
        end = data.rfind(b"\n")
        if end < 0:
            end = data.rfind(b"\r")  # as old Macs end lines
        if end >= 0:
            self.start = self.position + end + 1
        self.position += len(data)
        if self.position - self.start > self.most:
            raise TooLongError(self.start)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()


def batches_of(records: Iterable[Any], rows: int, size: Any = len) -> Iterator[list[Any]]:
    """Lists of at most ``rows`` records, cut where their sizes add up to BATCH_BYTES.

    They are taken a few at a time, twice as many as long as they are small.
    """
    records, total, step = iter(records), 0, 1
    batch: list[Any] = []
    while some := list(islice(records, min(step, rows - len(batch)))):
        these = sum(map(size, some))
        step = min(64, 2 * step) if these < BATCH_BYTES // 16 else max(1, step // 4)
        batch += some
        total += these
        if len(batch) == rows or total >= BATCH_BYTES:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def too_long(what: str, most: int, advice: str) -> EmbedcacheError:
    return EmbedcacheError(
        f"{what} has more than {most / MEGABYTE:g} MB: {advice}, or allow it with --max-text-mb {2 * most / MEGABYTE:g}"
    )
