"""Which texts are shown once."""

from __future__ import annotations

import pytest

from embedcache.common.near_identical import NearIdentical, normalised

LONG = "The film hinges on its performances, and both leads are up to the task of carrying it to the end."


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("Good.", "good!", True),
        ("Good.", "Bad.", False),
        (LONG, LONG.replace("film", "movie"), True),
        (LONG, LONG + " " + LONG.upper(), True),
        (LONG, "Both leads hinge on the film, and its performances end up with the task of carrying her.", False),
        (LONG, LONG[:40], False),
        ("ﬁne", "FINE", True),
        ("映画は素晴らしかった。また見たい。", "映画は素晴らしかった また見たい", True),
        ("映画は素晴らしかった。また見たい。", "映画はつまらなかった。もう見ない。", False),
        ("😴", "🍿", False),
        ("😴", " 😴", True),
        ("", "", True),
        ("aaaa", "aaaa aaaa", False),
    ],
)
def test_pairs(one: str, other: str, near: bool) -> None:
    for first, second in ((one, other), (other, one)):
        assert NearIdentical([first]).is_new(second) is not near


def test_the_first_of_its_kind_stays() -> None:
    seen = NearIdentical()
    assert [seen.is_new(text) for text in ("a b", "c", "A  B", "c!", "d")] == [True, True, False, False, True]
    assert normalised("  Ça_va?! ") == "ça va"
