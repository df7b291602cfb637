"""The language of --where: what binds how, where values end, what is refused in one line."""

from __future__ import annotations

import time

import pytest

from embedcache.cache.where_grammar import LONGEST, All, AnyOf, Condition, Not, parse
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
        ("movie contains alien", is_("movie", "alien", "contains")),
        ("movie CONTAINS alien and year<3", All((is_("movie", "alien", "contains"), C))),
        ("label=a and movie contains the end and so on", All((A, is_("movie", "the end and so on", "contains")))),
        ('movie starts  with "The " or label=a', AnyOf((is_("movie", "The ", "starts with", True), A))),
        ("movie not contains (1979)", Not(is_("movie", "(1979)", "contains"))),
        ("not movie starts with The", Not(is_("movie", "The", "starts with"))),
        ("label in (a, b)", AnyOf((A, B))),
        ("label not in(a,b) and year<3", All((Not(AnyOf((A, B))), C))),
        ('movie in ("a, b", it\'s, "so" it goes)', AnyOf((is_("movie", "a, b", quoted=True), is_("movie", "it's"),
                                                         is_("movie", '"so" it goes')))),
        ("(label in (a) or x,y in (1)) and not so contains 2",
         All((AnyOf((AnyOf((A,)), AnyOf((is_("x,y", "1"),)))), is_("not so", "2", "contains")))),
        ("movie=Men in (Black) and label=a", All((is_("movie", "Men in (Black)"), A))),
        ("movie=it contains multitudes", is_("movie", "it contains multitudes")),
        ("genre contains x", is_("genre", "x", "contains")),
        ("genre in (x)", AnyOf((is_("genre", "x"),))),
        ("movie contains", is_("movie", "", "contains")),
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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "positive",
        "label",
        "label=a)",
        "(label=a",
        "and",
        "=a",
        ")",
        "not",
        "label in",
        "label in ()",
        "label in a, b",
        "label in (a",
        "label in (a,)",
        "in (a)",
        "label starts a",
    ],
)
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(EmbedcacheError, match="is not a condition") as error:
        parse(text, COLUMNS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "(" * 900 + "label=a" + ")" * 900, "not " * 2000 + "label=a", "label=" + "( " * 4000,
             "label=" + " and" * 2400, "label=a and " * 800 + "label=b", "label=a," * 1200, "x" * (LONGEST + 1),
             "label in (" + "a," * 4000 + "a)", "label contains " * 600, "label in (" * 900,
             "label contains a and " * 450 + "label=b", "label not " * 900]
)  # fmt: skip
def test_hostile_conditions_end_soon(text: str) -> None:
    start = time.monotonic()
    try:
        parse(text, COLUMNS)
    except EmbedcacheError as error:
        assert len(str(error)) < 500
    assert time.monotonic() - start < 20, "no exponential search"
