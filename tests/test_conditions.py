"""The language of --where: what binds how, where values end, what is refused in one line."""

from __future__ import annotations

import time

import pytest

from embedcache.conditions import LONGEST, All, AnyOf, Condition, Not, parse
from embedcache.errors import EmbedcacheError

COLUMNS = ["label", "movie", "year", "x,y", "mo=vie", "(odd", "not so"]


def one(text: str) -> object:
    (tree,) = parse(text, COLUMNS)
    return tree


def is_(column: str, value: str, operator: str = "=", quoted: bool = False) -> Condition:
    return Condition(column, operator, value, quoted)


A, B, C = is_("label", "a"), is_("label", "b"), is_("year", "3", "<")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("label=a", A),
        ("(label=a)", A),
        ("((label=a)) or ((label=b and year<3))", AnyOf((A, All((B, C))))),
        ("label=a or label=b and year<3", AnyOf((A, All((B, C))))),
        ("(label=a or label=b) and year<3", All((AnyOf((A, B)), C))),
        ("NOT label=a AND year<3", All((Not(A), C))),
        ("not (label=a or not year<3)", Not(AnyOf((A, Not(C))))),
        ("year>=2010", is_("year", "2010", ">=")),
        ("year<=2010 and year>1990 and year!=2000",
         All((is_("year", "2010", "<="), is_("year", "1990", ">"), is_("year", "2000", "!=")))),
        ("label= lead", is_("label", " lead")),
        ("label=l1\nl2", is_("label", "l1\nl2")),
        ("movie=Pride and Prejudice and year<3", All((is_("movie", "Pride and Prejudice"), C))),
        ("movie=Alien (1979) or movie=:(", AnyOf((is_("movie", "Alien (1979)"), is_("movie", ":(")))),
        ("movie=", is_("movie", "")),
        ('movie="a and label=b" and label=a', All((is_("movie", "a and label=b", quoted=True), A))),
        (r"movie='it\'s' or label=a", AnyOf((is_("movie", "it's", quoted=True), A))),
        ('movie="Alien" by Scott', is_("movie", '"Alien" by Scott')),
        ("(odd=3", is_("(odd", "3")),
        ("not so=3", is_("not so", "3")),
        ("stars=5 and label=a", All((is_("stars", "5"), A))),
        ("label=a and", is_("label", "a and")),
    ],
)  # fmt: skip
def test_trees(text: str, tree: object) -> None:
    assert one(text) == tree


def test_lists_and_names_with_signs() -> None:
    assert parse("x,y=p,mo=vie==,label=k=v,z=w", COLUMNS) == [
        is_("x,y", "p"),
        is_("mo=vie", "="),
        is_("label", "k=v,z=w"),
    ]
    assert parse("movie=Me, Myself & Irene, label=a", COLUMNS)[0] == is_("movie", "Me, Myself & Irene")
    assert parse("label=a", []) == [A]


@pytest.mark.parametrize("text", ["", "positive", "label", "label=a)", "(label=a", "and", "=a", ")", "not"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(EmbedcacheError, match="is no condition") as error:
        parse(text, COLUMNS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "(" * 900 + "label=a" + ")" * 900, "not " * 2000 + "label=a", "label=" + "( " * 4000,
             "label=" + " and" * 2400, "label=a and " * 800 + "label=b", "label=a," * 1200, "x" * (LONGEST + 1)]
)  # fmt: skip
def test_hostile_conditions_end_soon(text: str) -> None:
    start = time.monotonic()
    try:
        parse(text, COLUMNS)
    except EmbedcacheError as error:
        assert len(str(error)) < 500
    assert time.monotonic() - start < 20, "no exponential search"
