"""Which label counts, and how labels lie over those of a cache."""

from __future__ import annotations

import random

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.labelling import LabelEntry, LabelJournal, Overlay, open_labelled
from tests.labelling.conftest import LABELS, STARS, TOPICS, hash_of, said


def names(path, overlay, column="label"):
    with open_cache(path, labels=overlay) as cache:
        return cache.labels(column).names


def test_the_last_label_counts_for_all_rows_of_a_text(small_cache):
    overlay = Overlay([said("good one", "rotten"), said("never seen", "odd"), said("good one", "so-so", who="bob")])
    assert names(small_cache, overlay) == ["so-so", "rotten", "rotten", "so-so", "odd", "fresh"]
    assert names(small_cache, None) == LABELS
    with open_cache(small_cache, labels=overlay) as cache:
        codes, classes = cache.labels("label")
        assert classes == ["fresh", "odd", "rotten", "so-so"] and codes.dtype == np.int32
        assert cache.own_labels("label").names == LABELS
        assert cache.labels("topics").names == TOPICS
        assert overlay.classes("label") == ["so-so", "odd"]


def test_a_label_can_be_taken_away(small_cache):
    assert names(small_cache, Overlay([said("bad one", None)])) == ["fresh", None, "rotten", "fresh", None, "fresh"]


def test_undo_and_undo_of_the_undo(small_cache):
    first, second = said("bad one", "fresh", id="1"), said("bad one", "odd", id="2", who="bob")
    undo = second.undo("bob", id="3")
    overlay = Overlay([first, second])
    assert names(small_cache, overlay)[1] == "odd"
    overlay.add([undo])
    assert names(small_cache, overlay)[1] == "fresh" and overlay.people == {"ada": 1}
    overlay.add([undo.undo("bob", id="4")])
    assert names(small_cache, overlay)[1] == "odd" and overlay.people == {"ada": 1, "bob": 1}
    overlay.add([first.undo("ada", id="5"), second.undo("bob", id="6")])
    assert names(small_cache, overlay) == LABELS and overlay.columns == []


def test_two_people_on_one_row(small_cache):
    overlay = Overlay([said("so so", "fresh"), said("so so", "rotten", who="bob"), said("bad one", "rotten")])
    (disputed,) = overlay.disagreements("label").values()
    assert {who: one.after for who, one in disputed.by.items()} == {"ada": "fresh", "bob": "rotten"}
    assert disputed.label == "rotten"
    overlay.add([said("so so", "rotten")])
    assert overlay.disagreements("label") == {}


def test_the_order_of_a_list_is_no_disagreement():
    overlay = Overlay([said("a", ("x", "y"), column="t"), said("a", ("y", "x"), column="t", who="bob")])
    assert overlay.disagreements("t") == {}


def test_lists(small_cache):
    given = {"so so": ["sound", "cast"], "bad one": [], "good one": None, "never seen": ("plot",)}
    overlay = Overlay([said(text, labels, column="topics") for text, labels in given.items()])
    assert names(small_cache, overlay, "topics") == [None, [], ["cast", "sound"], None, ["plot"], ["sound"]]
    with open_cache(small_cache, labels=overlay) as cache:
        codes, classes = cache.labels("topics")
        assert classes == ["cast", "plot", "sound"] and codes.dtype == np.int8 and cache.holds_lists("topics")


def test_a_label_that_does_not_fit_its_column_changes_nothing_and_is_said(small_cache):
    overlay = Overlay([said("bad one", ("x",)), said("good one", "x", column="topics")])
    assert names(small_cache, overlay) == LABELS and names(small_cache, overlay, "topics") == TOPICS
    with open_cache(small_cache, labels=overlay) as cache:
        first, second = cache.labels_from["notes"]
    assert first == "1 rows keep the label of the file: column 'label' holds one label a row, and people gave lists"
    assert second == "2 rows keep the label of the file: column 'topics' holds lists, and people gave single labels"


def test_numbers_in_a_kept_column(small_cache):
    overlay = Overlay([said("bad one", 4.5, column="stars"), said("good one", 10, column="stars")])
    with open_cache(small_cache, labels=overlay) as cache:
        assert list(cache.column("stars")) == ["10", "4.5", "2", "10", "", "4"]
        assert list(cache.own_column("stars")) == STARS and cache.label_names == ["label", "topics"]


def test_the_id_column_is_never_changed(small_cache):
    with open_cache(small_cache, labels=Overlay([said("bad one", "x", column="n")])) as cache:
        assert cache.ids is not None and list(cache.ids) == [f"r{i}" for i in range(6)]


def test_a_column_that_the_file_does_not_have(small_cache):
    overlay = Overlay([said("bad one", "war", column="genre"), said("so so", ("a", "b"), column="tags")])
    with open_cache(small_cache, labels=overlay) as cache:
        assert cache.label_names == ["label", "topics", "genre", "tags"]
        assert cache.labels("genre").names == [None, "war", None, None, None, None]
        assert cache.labels("tags").names == [None, None, ["a", "b"], None, None, None]
        assert [cache.label_kind(name) for name in ("genre", "tags")] == ["classification", "multilabel"]
        assert set(cache.info()["labels"]) == {"label", "topics", "genre", "tags"}


def test_skips_and_comments_change_no_label():
    skip = said("a", None, action="skip")
    overlay = Overlay([skip, said("b", None, action="comment", comment="odd")])
    assert overlay.columns == [] and overlay.skipped("label") == {hash_of("a"): {"ada"}}
    assert [one.comment for one in overlay.history("label", hash_of("b"))] == ["odd"]
    overlay.add([said("a", "fresh")])
    assert overlay.skipped("label") == {} and overlay.given("label", hash_of("a")).label == "fresh"


def test_adding_one_by_one_is_the_same_as_all_at_once():
    """A random history, against the rule as docs/labelling.md says it, written down as plainly as possible."""
    rng, entries = random.Random(0), []
    for number in range(400):
        before = [one for one in entries if one.action in ("label", "undo")]
        if before and rng.random() < 0.4:
            entries.append(rng.choice(before).undo(rng.choice("xyz"), id=str(number)))
        else:
            entries.append(said(rng.choice("abcdef"), rng.choice(["p", "q", None]), rng.choice("xyz"), id=str(number)))
    one_by_one = Overlay()
    for entry in entries:
        one_by_one.add([entry])

    def stands(entry: LabelEntry) -> bool:
        return not any(later.undoes == entry.id and stands(later) for later in entries)

    counts, by = {}, {}
    for entry in entries:
        if entry.action == "label" and stands(entry):
            counts[entry.row_hash] = entry.after
            by.setdefault(entry.row_hash, {})[entry.who] = entry.after
    for overlay in (one_by_one, Overlay(entries)):
        found = overlay.labels("label")
        assert {key: one.label for key, one in found.items()} == counts
        assert {key: {who: e.after for who, e in one.by.items()} for key, one in found.items()} == by


def test_which_journal_is_read(small_cache, tmp_path):
    with open_labelled(small_cache) as cache:
        assert cache.labels_from is None
    journal = LabelJournal.beside(small_cache)
    journal.append([said("bad one", "fresh"), said("of no row", "fresh")])
    journal.append([said("bad one", "odd", who="bob")])
    with open_labelled(small_cache) as cache:
        about = cache.labels_from
        assert cache.labels("label").names[1] == "odd"
    assert about == {
        "journal": str(journal.path), "entries": 3, "digest": journal.digest(), "labels": 1, "elsewhere": 1,
        "columns": {"label": 1}, "people": 2, "disagreements": 1, "notes": [],
    }  # fmt: skip
    with open_labelled(small_cache, f"{journal.path}@2") as cache:
        assert cache.labels("label").names[1] == "fresh" and cache.labels_from["digest"] == journal.digest(2)
    with open_labelled(small_cache, "none") as cache:
        assert cache.labels("label").names == LABELS and cache.labels_from is None
    with pytest.raises(EmbedcacheError, match=r"no such labels journal: .*--labels none"):
        open_labelled(small_cache, tmp_path / "nowhere.jsonl")
    with pytest.raises(EmbedcacheError, match="has 3 entries"):
        open_labelled(small_cache, f"{journal.path}@4")
