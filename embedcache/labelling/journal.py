"""The labels journal: a file beside the cache to which labels are appended, and which nothing ever changes.

    {"format":"embedcache labels","version":1}
    {"time":...,"who":"ada","action":"label","column":"label","before":"fresh","after":"rotten",...,"sum":"..."}

A line is an entry; its number is its place behind the first line, from 1. Readers take no lock. A writer holds the lock
of the file, cuts off what a killed writer left behind the last whole line, appends, and flushes the disk before it says
that the labels are there. docs/labelling.md has the format for other programs.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import msgspec

from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.durable import fsync, sync
from embedcache.common.open_files import lock_file, open_file, pread, pwrite, unlock_file
from embedcache.errors import EmbedcacheError
from embedcache.labelling.entry import MOST_LINE, LabelEntry, checked, entry_of, line_of

FORMAT, VERSION = "embedcache labels", 1
HEADER = b'{"format":"embedcache labels","version":1}\n'
SUFFIX = ".labels.jsonl"
DIGEST_BYTES = 16


class Damage(NamedTuple):
    """A line that is skipped: its number in the file, from 1, and what is wrong with it."""

    line: int
    reason: str


class _First(msgspec.Struct):
    format: str
    version: int


class LabelJournal:
    """The journal at ``path``, which need not be there yet. Threads may share one, processes have each their own.

    Attributes:
        path: the file.
        damaged: the lines that were skipped, as far as the file has been read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._mutex = threading.Lock()
        self._forget()

    @classmethod
    def beside(cls, cache: str | os.PathLike[str]) -> LabelJournal:
        """The journal of a cache: ``reviews.h5.labels.jsonl``."""
        path = Path(cache)
        return cls(path.with_name(path.name + SUFFIX))

    def __repr__(self) -> str:
        return f"LabelJournal({str(self.path)!r})"

    @property
    def exists(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    def __len__(self) -> int:
        """How many entries there are, as far as the file has been read; damaged lines have a place, too."""
        return len(self._places) + (self._tail is not None)

    def read(self, after: int = 0, upto: int | None = None) -> list[LabelEntry]:
        """The entries with a number above ``after``, up to the number ``upto``; [] where there is no file.

        Only what has been added since the last call is read from the disk.

        Raises:
            EmbedcacheError: the file cannot be read, or is not a labels journal.
        """
        with self._mutex:
            try:
                handle = open_file(self.path, os.O_RDONLY)
            except FileNotFoundError:
                self._forget()
                return []
            except OSError as error:
                raise self._cannot("read", error) from None
            try:
                self._catch_up(handle)
            except OSError as error:
                raise self._cannot("read", error) from None
            finally:
                os.close(handle)
            found = [*self._places, *([] if self._tail is None else [self._tail])]
            return [entry for entry in found[after:upto] if entry is not None]

    def append(self, entries: Sequence[LabelEntry]) -> list[LabelEntry]:
        """Write entries; when this returns they are on the disk.

        An entry whose id is there already is not written again. The file is made with the first entry.

        Returns:
            The entries as they are in the journal, with numbers and times, in the order given.

        Raises:
            EmbedcacheError: an entry cannot be written, its id is that of another label, or an undo names no entry of
                the journal; the file is not a labels journal, or cannot be written. Then none is in the journal.
        """
        new = [checked(entry) for entry in entries]
        with self._mutex, self._locked() as handle:
            try:
                self._catch_up(handle)
                self._end_tail(handle)
                lines, found = self._lines(new)
                self._write(handle, b"".join(lines))
            except OSError as error:
                raise self._cannot("write", error) from None
            self._catch_up(handle)
        return found

    def digest(self, upto: int | None = None) -> str:
        """Hex digest of the lines of the first ``upto`` entries, None: of all. Raises as ``read``."""
        self.read()
        with self._mutex:
            if upto is None or upto >= len(self):
                digest = self._digest.copy()
                if self._tail is not None:
                    digest.update(self._tail_line + b"\n")
                return digest.hexdigest()
            digest = blake2b(digest_size=DIGEST_BYTES)
            with self.path.open("rb") as file:
                file.readline()
                for _ in range(upto):
                    digest.update(file.readline())
            return digest.hexdigest()

    def notes(self) -> list[str]:
        """A sentence on each line that was skipped."""
        return [f"line {one.line:,} of {self.path.name} is damaged and skipped: {one.reason}" for one in self.damaged]

    def _forget(self) -> None:
        self._inode: tuple[int, int] | None = None
        self._end = 0  # bytes, behind the last whole line
        self._places: list[LabelEntry | None] = []  # None: a damaged line
        self._ids: dict[str, LabelEntry] = {}
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._tail: LabelEntry | None = None  # a last line that lacks nothing but its end, as some editors leave it
        self._tail_line = b""
        self.damaged: list[Damage] = []

    def _catch_up(self, handle: int) -> None:
        """Read what is new. Raises EmbedcacheError where it is not a labels journal, OSError."""
        status = os.fstat(handle)
        inode = (status.st_dev, status.st_ino)
        if inode != self._inode or status.st_size < self._end:
            self._forget()
            self._inode = inode
        data = _read(handle, self._end, status.st_size)
        whole, _, rest = data.rpartition(b"\n")
        lines = whole.split(b"\n") if b"\n" in data else []
        if lines and not self._end:
            self._check_header(lines.pop(0))
        elif not self._end and not HEADER.startswith(rest):
            self._check_header(rest)
        for line in lines:
            self._add(line)
        self._end += len(data) - len(rest)
        self._tail, self._tail_line = None, rest
        if rest and self._end:
            with suppress(SchemaError):
                self._tail = entry_of(rest, len(self._places) + 1)

    def _add(self, line: bytes) -> None:
        self._digest.update(line + b"\n")
        number = len(self._places) + 1
        try:
            if len(line) > MOST_LINE:
                raise SchemaError(f"it is longer than {MOST_LINE:,} bytes")
            entry = entry_of(line, number)
            if entry.id in self._ids:
                raise SchemaError(f"its id is that of entry {self._ids[entry.id].number:,}")
        except SchemaError as error:
            self._places.append(None)
            self.damaged.append(Damage(number + 1, str(error)))
            return
        self._places.append(entry)
        self._ids[entry.id] = entry

    def _check_header(self, line: bytes) -> None:
        try:
            found = conform(parse_json(line), _First)
            if found.format != FORMAT:
                raise SchemaError(f"format is {found.format[:40]!r}")
        except SchemaError as error:
            raise EmbedcacheError(
                f"{self.path} is not a labels journal, or its first line is damaged ({error}): that line must be "
                f"{HEADER.decode().strip()}; if the file is something else, move it away"
            ) from None
        if found.version != VERSION:
            raise EmbedcacheError(
                f"{self.path} is a labels journal of version {found.version}, which this version of embedcache cannot "
                "read: update embedcache"
            )

    def _lines(self, new: Sequence[LabelEntry]) -> tuple[list[bytes], list[LabelEntry]]:
        """The lines to write, and for each new entry how it is in the journal."""
        lines: list[bytes] = []
        found: list[LabelEntry] = []
        known = dict(self._ids)
        for entry in new:
            before = known.get(entry.id)
            if before is None:
                if entry.undoes is not None:
                    self._check_undo(entry, known.get(entry.undoes))
                before = replace(entry, number=len(self._places) + len(lines) + 1)
                lines.append(line_of(before) + b"\n")
                known[entry.id] = before
            elif not entry.same_request(before):
                raise EmbedcacheError(
                    f"the id {entry.id!r} is that of another label, entry {before.number:,} of {self.path.name}: give "
                    "each label an id of its own"
                )
            found.append(before)
        return lines, found

    def _check_undo(self, entry: LabelEntry, target: LabelEntry | None) -> None:
        if target is None:
            raise EmbedcacheError(f"{self.path.name} has no entry with the id {entry.undoes!r}: nothing was undone")
        if (target.row_hash, target.column) != (entry.row_hash, entry.column):
            raise EmbedcacheError(
                f"entry {target.number:,} of {self.path.name} is of another row or column than this undo of it"
            )

    def _write(self, handle: int, data: bytes) -> None:
        """At the end; where it fails, nothing of it stays. Raises OSError."""
        end, first = self._end, b"" if self._end else HEADER
        try:
            view, place = memoryview(first + data), end
            while view:
                written = pwrite(handle, view, place)
                view, place = view[written:], place + written
            fsync(handle)  # also without data: who wrote the labels of these ids may not have come so far
            if first:
                sync(self.path.parent)
        except OSError:
            with suppress(OSError):
                os.ftruncate(handle, end)
            raise

    def _end_tail(self, handle: int) -> None:
        """Cut off what a killed writer left behind the last whole line; a line that lacks only its end is given it."""
        if self._tail is not None:
            pwrite(handle, b"\n", self._end + len(self._tail_line))
            self._catch_up(handle)
        elif self._tail_line:
            os.ftruncate(handle, self._end)
            self._tail_line = b""

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open and locked: one writer at a time, others wait."""
        handle = -1
        while handle < 0:
            try:
                handle = open_file(self.path, os.O_RDWR | os.O_CREAT)
                lock_file(handle, wait=True)
                if not _is_at(handle, self.path):  # moved away while this waited
                    os.close(handle)
                    handle = -1
            except FileNotFoundError:
                raise EmbedcacheError(f"no such folder: {self.path.parent}; the label was not written") from None
            except OSError as error:
                if handle < 0:
                    raise self._cannot("write", error) from None
                os.close(handle)
                raise EmbedcacheError(
                    f"the file system of {self.path.parent} refuses locks ({error.strerror}), so labels of two people "
                    "could mix: keep the cache and its labels on a local disk"
                ) from None
        try:
            yield handle
        finally:
            unlock_file(handle)  # a fork may have it open, too
            os.close(handle)

    def _cannot(self, what: str, error: OSError) -> EmbedcacheError:
        self._forget()
        advice = "the label was not written; make room, or make the file and its folder yours to write"
        advice = advice if what == "write" else "make the file yours to read"
        return EmbedcacheError(f"cannot {what} {self.path}: {error.strerror or error}; {advice}")


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read(handle: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop:
        part = pread(handle, min(stop - start, 1 << 24), start)
        if not part:
            break
        parts.append(part)
        start += len(part)
    return b"".join(parts)
