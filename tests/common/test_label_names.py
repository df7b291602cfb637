"""Classes that look alike, or that look like "not labelled"."""

from __future__ import annotations

import pytest

from embedcache.common.label_names import alike_key, label_notes, look_alikes, visible

WIDE = "\uff50\uff4f\uff53"  # pos, in full-width letters


@pytest.mark.parametrize(
    "other",
    ["pos ", " pos", "POS", "Pos", WIDE, "pos\u00a0", "\u3000pos", "po\u200bs", "pos\t", "p\u00ados"],
)
def test_these_look_like_pos(other: str) -> None:
    assert alike_key(other) == alike_key("pos") and look_alikes(["neg", "pos", other]) == [[1, 2]]


@pytest.mark.parametrize("other", ["po s", "poss", "p", "-pos", "not pos"])
def test_these_do_not(other: str) -> None:
    assert look_alikes(["pos", other]) == []


def test_inner_white_space_and_accents() -> None:
    assert look_alikes(["very  good", "very good", "caf\u00e9", "cafe\u0301", "cafe"]) == [[0, 1], [2, 3]]


def test_what_cannot_be_seen_is_printed_in_quotes() -> None:
    assert [visible(one) for one in ("pos", "very good", WIDE, "日本")] == [
        "pos",
        "very good",
        WIDE,
        "日本",
    ]
    assert [visible(one) for one in ("pos ", "a  b", "pos\u200b")] == ["'pos '", "'a  b'", "'pos\\u200b'"]


def test_one_letter_of_two_characters_is_printed_apart() -> None:
    accents, korean = ("caf\u00e9", "cafe\u0301"), ("\ud55c", "\u1112\u1161\u11ab")
    assert [visible(one) for one in accents] == ["caf\u00e9", "'cafe\\u0301'"]
    assert [visible(one) for one in korean] == ["\ud55c", "'\u1112\\u1161\\u11ab'"] and visible("\u212b") == "'\\u212b'"
    assert "'caf\u00e9' (3) and 'cafe\\u0301' (2);" in label_notes("label", accents, [3, 2])[0]


def test_notes_have_counts_and_say_what_to_do() -> None:
    notes = label_notes("label", ["None", "neg", "pos", "pos "], [3, 40, 30, 1])
    assert "'pos' (30) and 'pos ' (1)" in notes[0] and "write them alike" in notes[0]
    assert "'None' (3 rows)" in notes[1] and "--na default,None" in notes[1]
    assert label_notes("label", ["neg", "pos"], [1, 1]) == []


def test_many_groups_are_one_line() -> None:
    classes = [name for i in range(10) for name in (f"c{i}", f"C{i}")]
    (note,) = label_notes("label", classes, [1] * 20)
    assert "and 7 more" in note and "\n" not in note
