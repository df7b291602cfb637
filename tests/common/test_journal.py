"""Saved work: torn ends, flipped bits, other keys, a full disk; and how a command goes on after it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from embedcache.common.journal import Journal
from embedcache.common.lock import locked
from embedcache.common.resume import all_parts
from embedcache.common.whole_file import open_output
from embedcache.errors import EmbedcacheError

PARTS = [b"one", b"", b"three" * 1000, bytes(range(256))]


def read(path: Path, key: str = "key") -> list[bytes]:
    with locked(path, str) as lock:
        return list(Journal(lock, key))


def write(path: Path) -> bytes:
    with locked(path, str) as lock:
        journal = Journal(lock, "key")
        for part in PARTS:
            journal.append(part)
    return path.read_bytes()


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    path = tmp_path / ".out.partial"
    write(path)
    assert read(path) == PARTS
    with locked(path, str) as lock:
        journal = Journal(lock, "key")
        assert (len(journal), journal.found, journal.is_other) == (4, 4, False)
        journal.append(b"five")
    assert read(path) == [*PARTS, b"five"]


def test_every_torn_end_loses_its_own_part_alone(tmp_path: Path) -> None:
    path = tmp_path / ".out.partial"
    whole = write(path)
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        found = read(path)
        assert found == PARTS[: len(found)] and (len(found) < len(PARTS))
        with locked(path, str) as lock:
            journal = Journal(lock, "key")
            for part in PARTS[len(found) :]:
                journal.append(part)
        assert path.read_bytes() == whole


def test_a_flipped_bit_ends_what_counts(tmp_path: Path) -> None:
    path = tmp_path / ".out.partial"
    whole = write(path)
    for place in range(0, len(whole), 29):
        spoilt = bytearray(whole)
        spoilt[place] ^= 4
        path.write_bytes(spoilt)
        found = read(path)
        assert found == PARTS[: len(found)] and len(found) < len(PARTS)


def test_work_of_another_key_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / ".out.partial"
    write(path)
    with locked(path, str) as lock:
        journal = Journal(lock, "other")
        assert journal.is_other and len(journal) == 0
    assert not path.exists() and read(path) == []


def test_a_full_disk_keeps_what_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / ".out.partial"
    write(path)

    def full(handle: int, data: bytes, place: int) -> int:
        raise OSError(28, "No space left on device")

    with locked(path, str) as lock:
        journal = Journal(lock, "key")
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(EmbedcacheError, match=r"No space left on device; make room"):
            journal.append(b"x")
    monkeypatch.undo()
    assert read(path) == PARTS


@dataclass
class Numbers:
    data: bytes

    def __len__(self) -> int:
        return len(self.data)

    def to_bytes(self) -> bytes:
        return self.data


def test_a_command_goes_on_where_it_was(tmp_path: Path) -> None:
    output, told = tmp_path / "out.bin", list[str]()

    def work(stop: int | None, key: str = "key") -> tuple[bytes, int]:
        def make(skip: int) -> Iterator[Numbers]:
            for start in range(skip, 100, 10):
                if start == stop:
                    raise KeyboardInterrupt
                yield Numbers(bytes(range(start, start + 10)))

        with open_output(output) as place:
            parts, resumed = all_parts(
                place, make, Numbers, key=lambda: key, total=100, what="numbers are made", tell=told.append
            )
            with place.binary() as file:
                file.writelines(part.data for part in parts)
        return output.read_bytes(), resumed

    with pytest.raises(KeyboardInterrupt) as raised:
        work(0)
    assert not str(raised.value) and list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt, match=r"30 of 100 numbers are made and saved beside .*out\.bin; the same"):
        work(30)
    with pytest.raises(KeyboardInterrupt, match="70 of 100"):
        work(70)
    assert [path.name for path in tmp_path.iterdir()] == [".out.bin.partial"]
    assert work(None) == (bytes(range(100)), 70)
    assert told == [f"{n} of 100 numbers are made already: continuing after them" for n in (30, 70)]
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]
    with pytest.raises(KeyboardInterrupt):
        work(50)
    assert work(None, "other") == (bytes(range(100)), 0)
    assert "belongs to another input, run or option: it is discarded" in told[-1]


def test_a_stream_keeps_nothing(tmp_path: Path) -> None:
    made = []

    def make(skip: int) -> Iterator[Numbers]:
        for part in (b"a", b"b"):
            made.append(part)
            yield Numbers(part)

    with open_output("/dev/null") as place:
        parts, resumed = all_parts(place, make, Numbers, key=lambda: "", total=2, what="", tell=print)
        assert made == [] and [part.data for part in parts] == made == [b"a", b"b"] and resumed == 0
