"""The labels journal: what is acknowledged is there, once, whatever happens to writers and to the file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from hashlib import blake2b
from pathlib import Path

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.labelling import LabelEntry, LabelJournal
from tests.labelling.append_labels import entry
from tests.labelling.conftest import hash_of, said

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def journal(tmp_path: Path) -> LabelJournal:
    return LabelJournal.beside(tmp_path / "reviews.h5")


def writer(path: Path, who: str, first: int, last: int) -> subprocess.Popen:
    line = [sys.executable, "-m", "tests.labelling.append_labels", str(path), who, str(first), str(last)]
    return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_what_is_written_is_read(journal, tmp_path):
    assert journal.path == tmp_path / "reviews.h5.labels.jsonl" and not journal.exists
    assert journal.read() == [] and not journal.exists
    first = said("a", "rötten 🍅", before="fresh", queue="likely error", comment='a "quote"\nand a line')
    lists = said("b", ("x", "y"), column="topics", who="bob")
    number = said("c", 3.5, column="stars")
    none = said("d", None, before="fresh")
    skip = LabelEntry(row_hash=hash_of("e"), column="label", action="skip", who="ada")
    written = journal.append([first, lists]) + journal.append([number, none, skip])
    assert [one.number for one in written] == [1, 2, 3, 4, 5]
    assert all(one.time.endswith("+00:00") for one in written)
    again = LabelJournal(journal.path)
    assert again.read() == written == journal.read() and len(again) == 5
    assert again.read(after=3) == written[3:] and again.read(after=1, upto=2) == [written[1]]
    assert [one.after for one in written] == ["rötten 🍅", ("x", "y"), 3.5, None, None]
    assert written[0].comment == 'a "quote"\nand a line'


def test_other_programs_can_read_and_check_it(journal):
    """By docs/labelling.md alone: JSON Lines, and a checksum over the bytes before it."""
    journal.append([said("a", "rotten", before="fresh"), said("b", ["x"], column="topics")])
    header, *lines = journal.path.read_bytes().splitlines()
    assert json.loads(header) == {"format": "embedcache labels", "version": 1}
    assert [json.loads(line)["after"] for line in lines] == ["rotten", ["x"]]
    for line in lines:
        start, _, rest = line.rpartition(b',"sum":')
        assert json.loads(b"[" + rest[:-1] + b"]") == [blake2b(start, digest_size=8).hexdigest()]


def test_a_request_that_is_sent_again_is_written_once(journal):
    one = said("a", "fresh")
    (first,) = journal.append([one])
    assert journal.append([one, said("b", "fresh"), one])[0] == first
    assert LabelJournal(journal.path).append([one]) == [first]
    assert len(journal.read()) == 2
    with pytest.raises(EmbedcacheError, match="is that of another label, entry 1"):
        journal.append([said("a", "rotten", id=one.id)])
    assert len(journal.read()) == 2


def test_an_undo_names_an_entry(journal):
    (one,) = journal.append([said("a", "fresh", before="rotten")])
    (undo,) = journal.append([one.undo("bob")])
    assert (undo.undoes, undo.after, undo.who, undo.number) == (one.id, "rotten", "bob", 2)
    with pytest.raises(EmbedcacheError, match="no entry with the id 'nowhere'"):
        journal.append([said("a", None, action="undo", undoes="nowhere")])
    with pytest.raises(EmbedcacheError, match="another row or column"):
        journal.append([said("b", None, action="undo", undoes=one.id)])
    assert len(journal.read()) == 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"row_hash": "xyz"}, "row_hash"),
        ({"column": ""}, "column"),
        ({"after": "n/a"}, "'n/a' is not a label"),
        ({"after": " "}, "is not a label"),
        ({"after": ("x", "x")}, "one label twice"),
        ({"after": ("x", 1)}, "after"),
        ({"after": True}, "after"),
        ({"after": {"x": 1}}, "after"),
        ({"after": float("nan")}, "not a finite number"),
        ({"after": float("inf")}, "not a finite number"),
        ({"after": "a\0b"}, "NUL"),
        ({"after": "\ud800"}, "surrogate"),
        ({"comment": "x" * 200_000}, "longer than"),
        ({"action": "erase"}, "action"),
        ({"action": "undo"}, "undoes"),
        ({"undoes": "x"}, "undoes"),
        ({"time": "yesterday"}, "ISO 8601"),
        ({"id": ""}, "id"),
    ],
)
def test_what_cannot_be_a_label_is_refused(journal, change, why):
    entries = [said("a", "fresh"), LabelEntry(**{"row_hash": hash_of("b"), "column": "label", "after": "x", **change})]
    with pytest.raises(EmbedcacheError, match=f"cannot be written: .*{why}"):
        journal.append(entries)
    assert journal.read() == []


def test_a_line_cut_off_anywhere(journal):
    """Readers do not see it, the next writer removes it; a line that lacks its end alone is whole."""
    kept = journal.append([said("a", "fresh"), said("b", "fresh")])
    whole = journal.path.read_bytes()
    start = whole.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        journal.path.write_bytes(whole[:cut])
        there = kept if cut == len(whole) - 1 else kept[:1]
        fresh = LabelJournal(journal.path)
        assert fresh.read() == there and fresh.damaged == []
        (new,) = fresh.append([said("c", "rotten", id="new")])
        assert new.number == len(there) + 1
        assert LabelJournal(journal.path).read() == fresh.read() == [*there, new]


def test_a_first_line_cut_off_anywhere(journal):
    journal.append([said("a", "fresh")])
    header = journal.path.read_bytes().split(b"\n")[0] + b"\n"
    for cut in range(len(header) + 1):
        journal.path.write_bytes(header[:cut])
        fresh = LabelJournal(journal.path)
        assert fresh.read() == []
        fresh.append([said("b", "fresh")])
        assert len(LabelJournal(journal.path).read()) == 1


def test_a_damaged_line_is_named_and_skipped(journal):
    """Every byte of a line in the middle, changed: never silently another label."""
    written = journal.append([said("a", "fresh"), said("b", "fresh", who="bob"), said("c", "fresh")])
    lines = journal.path.read_bytes().split(b"\n")
    middle = lines[2]
    for place in range(len(middle)):
        changed = bytes([*middle[:place], middle[place] ^ 1, *middle[place + 1 :]])
        journal.path.write_bytes(b"\n".join([*lines[:2], changed, *lines[3:]]))
        fresh = LabelJournal(journal.path)
        found = fresh.read()
        assert [one.number for one in found if one in written] == [1, 3] or b"\n" in changed
        assert found == [one for one in found if one in written]
        assert fresh.damaged[0].line == 3
    assert "line 3 of reviews.h5.labels.jsonl is damaged and skipped: " in fresh.notes()[0]


def test_a_line_that_is_there_twice_counts_once(journal):
    journal.append([said("a", "fresh")])
    with journal.path.open("ab") as file:
        file.write(journal.path.read_bytes().split(b"\n")[1] + b"\n")
    fresh = LabelJournal(journal.path)
    assert len(fresh.read()) == 1 and "its id is that of entry 1" in fresh.notes()[0]


@pytest.mark.parametrize(
    "first",
    [
        b"text,label\n",
        b'{"format":"embedcache labels"}\n',
        b'{"format":"something","version":1}\n',
        b"\0" * 50 + b"\n",
        b"[" * 10_000 + b"\n",
        b"no end of a line",
    ],
)
def test_a_file_that_is_no_journal_stays_as_it_is(journal, first):
    data = first + b"and more"
    journal.path.write_bytes(data)
    for work in (journal.read, lambda: journal.append([said("a", "fresh")])):
        with pytest.raises(EmbedcacheError, match="is not a labels journal, or its first line is damaged"):
            work()
    assert journal.path.read_bytes() == data


def test_a_later_version_is_refused(journal):
    journal.path.write_bytes(b'{"format":"embedcache labels","version":2}\n')
    with pytest.raises(EmbedcacheError, match=r"of version 2.*update embedcache"):
        journal.append([said("a", "fresh")])


def test_a_journal_that_was_replaced_is_read_anew(journal, tmp_path):
    journal.append([said("a", "fresh"), said("b", "fresh")])
    other = LabelJournal(tmp_path / "other.labels.jsonl")
    other.append([said("c", "rotten")])
    other.path.replace(journal.path)
    assert [one.row_hash for one in journal.read()] == [hash_of("c")]
    journal.path.unlink()
    assert journal.read() == []
    assert journal.append([said("d", "rotten")])[0].number == 1


def test_the_digest_is_of_the_lines_up_to_an_entry(journal):
    journal.append([said("a", "fresh")])
    one = journal.digest()
    journal.append([said("b", "fresh")])
    assert journal.digest() != one == journal.digest(1) == LabelJournal(journal.path).digest(1)
    ended = journal.path.read_bytes()
    journal.path.write_bytes(ended[:-1])  # an editor took the end of the last line
    assert LabelJournal(journal.path).digest() == journal.digest(2)
    lines = ended.split(b"\n")
    assert journal.digest() == blake2b(b"\n".join(lines[1:]), digest_size=16).hexdigest()


def test_threads_share_one(journal):
    def work(who: str) -> None:
        for number in range(20):
            journal.append([entry(who, number)])

    threads = [threading.Thread(target=work, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = LabelJournal(journal.path).read()
    assert sorted(one.id for one in found) == sorted(f"{who}-{number}" for who in "abcd" for number in range(20))
    assert [one.number for one in found] == list(range(1, 81))


def test_processes_append_at_once(journal):
    """Each one's labels are all there, once, in its order."""
    both = [writer(journal.path, who, 0, 100) for who in ("ada", "bob")]
    said_there = [process.communicate(timeout=120)[0].split() for process in both]
    found = journal.read()
    assert len(found) == 200 and journal.damaged == []
    for who, acknowledged in zip(("ada", "bob"), said_there, strict=True):
        assert [one.id for one in found if one.who == who] == acknowledged == [f"{who}-{n}" for n in range(100)]


def kill_and_continue(journal: LabelJournal, kills: int, seed: int) -> None:
    """A writer is killed so many times; each time it goes on with the label that nobody acknowledged."""
    rng, acknowledged, done = random.Random(seed), [], 0
    for _ in range(kills):
        process = writer(journal.path, "ada", done, 10**6)
        assert process.stdout is not None
        acknowledged += [process.stdout.readline().strip() for _ in range(rng.randrange(1, 30))]
        process.kill()
        process.wait()
        acknowledged += process.stdout.read().split()
        if rng.random() < 0.3:  # what a kill in the middle of a write leaves
            with journal.path.open("ab") as file:
                file.write(b'{"time":"2026-11-28T01:40:00')
        done = len(acknowledged)
        ids = [one.id for one in LabelJournal(journal.path).read()]
        assert ids[:done] == acknowledged == [f"ada-{n}" for n in range(done)]
        assert len(ids) in (done, done + 1)
    journal.append([entry("ada", done)])
    assert [one.id for one in journal.read()] == [f"ada-{n}" for n in range(done + 1)] and journal.damaged == []


def test_kills_lose_and_double_nothing(journal):
    kill_and_continue(journal, 5, 0)


@pytest.mark.slow
def test_a_hundred_kills_lose_and_double_nothing(journal):
    kill_and_continue(journal, 100, 1)


def test_a_full_disk_is_said_and_leaves_nothing_half(journal, monkeypatch):
    (first,) = journal.append([said("a", "fresh")])
    before, real = journal.path.read_bytes(), os.pwrite

    def full(handle: int, data: bytes, place: int) -> int:
        if place > len(before):
            raise OSError(28, "No space left on device")
        return real(handle, bytes(data)[:10], place)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(EmbedcacheError, match="No space left on device; the label was not written; make room"):
        journal.append([said("b", "fresh")])
    monkeypatch.undo()
    assert journal.path.read_bytes() == before
    assert journal.append([said("b", "fresh")])[0].number == 2 and journal.read()[0] == first


def test_no_label_is_acknowledged_that_was_not_flushed(journal, monkeypatch):
    journal.append([said("a", "fresh")])
    before = journal.path.read_bytes()

    def broken(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(EmbedcacheError, match="Input/output error; the label was not written"):
        journal.append([said("b", "fresh")])
    monkeypatch.undo()
    assert journal.path.read_bytes() == before


def test_no_folder_no_file(tmp_path):
    with pytest.raises(EmbedcacheError, match="no such folder"):
        LabelJournal(tmp_path / "nowhere" / "x.labels.jsonl").append([said("a", "fresh")])
    (tmp_path / "folder").mkdir()
    with pytest.raises(EmbedcacheError, match="cannot write"):
        LabelJournal(tmp_path / "folder").append([said("a", "fresh")])
    with pytest.raises(EmbedcacheError, match="cannot read"):
        LabelJournal(tmp_path / "folder").read()
