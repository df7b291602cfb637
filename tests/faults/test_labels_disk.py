"""The labels journal on real disks that are full, or may not be written."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from embedcache.errors import EmbedcacheError
from embedcache.labelling import LabelJournal
from tests.conftest import document, fails, write_csv
from tests.labelling.append_labels import entry
from tests.labelling.conftest import small_cache  # noqa: F401 - a fixture


@pytest.mark.parametrize("together", [1, 7])
def test_a_disk_that_fills_up(tmpfs, together):
    """What was acknowledged stays, the rest is said; with room again it goes on, and nothing is there twice."""
    with tmpfs("size=64k") as folder:
        journal, acknowledged = LabelJournal(folder / "c.h5.labels.jsonl"), []
        with pytest.raises(EmbedcacheError, match="No space left on device; the label was not written; make room"):
            for first in range(0, 10_000, together):
                journal.append([entry("ada", number) for number in range(first, first + together)])
                acknowledged += range(first, first + together)
        assert len(acknowledged) > 100
        assert [one.id for one in LabelJournal(journal.path).read()] == [f"ada-{n}" for n in acknowledged]
        subprocess.run(["mount", "-o", "remount,size=1m", str(folder)], check=True)
        again = range(len(acknowledged) - 3, len(acknowledged) + 5)
        journal.append([entry("ada", number) for number in again])
        fresh = LabelJournal(journal.path)
        assert [one.id for one in fresh.read()] == [f"ada-{n}" for n in range(again.stop)] and fresh.damaged == []


def test_no_room_for_the_first_label(tmpfs):
    with tmpfs("size=8k") as folder:
        (folder / "filler").write_bytes(b"x" * 8192)
        journal = LabelJournal(folder / "c.h5.labels.jsonl")
        with pytest.raises(EmbedcacheError, match="the label was not written"):
            journal.append([entry("ada", 1)])
        assert journal.read() == []
        (folder / "filler").unlink()
        assert journal.append([entry("ada", 1)])[0].number == 1


def test_a_journal_that_may_not_be_written_is_read(small_cache, tmpfs, tmp_path):  # noqa: F811
    table = write_csv(tmp_path / "t.csv", [("bad one", "fresh"), ("so so", "fresh")])
    with tmpfs("size=1m") as folder:
        cache = shutil.copy(small_cache, folder / "small.h5")
        document("relabel", cache, "--with", table, "--who", "ada")
        before = LabelJournal.beside(cache).path.read_bytes()
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        write_csv(table, [("bad one", "rotten")])
        assert "Read-only file system; the label was not written" in fails("relabel", cache, "--with", table)
        assert document("info", cache)["labels_from"]["labels"] == 2
        assert LabelJournal.beside(cache).path.read_bytes() == before
