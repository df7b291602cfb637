"""--where on texts, ids, labels and kept columns: words, beginnings, lists, decimal commas."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.cache import open_cache
from embedcache.cache.where import rows_where
from embedcache.errors import EmbedcacheError, InputNote
from tests.conftest import make_cache

TEXTS = ["The END", "the beginning", "Straße (a)", "50% off.", "日本の映画", "ÉTÉ", "", "a\nthe end", "no", "(.*)"]
LABELS = ["News", "news flash", None, "Sport", "Sport", None, "Art", "Art", "a, b", "x"]
TAGS = [["War", "love"], [], None, ["warm"], ["Peace"], None, [], ["war"], ["love"], ["a"]]
PRICES = ["3,5", "4", "", "1.234,5", "-0,25", "2,75", "10", "4,25", "0", "7,125"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    X = np.eye(10, dtype=np.float32)
    columns = {"price": PRICES, "code": [f"c{i}" for i in range(10)]}
    labels = {"kind": LABELS, "tags": TAGS}
    return make_cache(tmp_path_factory.mktemp("where") / "c.h5", TEXTS, X, labels, columns=columns, id="code")


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("text contains the end", [0, 7]),
        ("text contains END", [0, 7]),
        ('text starts with "the "', [0, 1]),
        ("text starts with THE b", [1]),
        ("text contains été", [5]),
        ("text contains 映画", [4]),
        ("text contains 50%", [3]),
        ('text contains "(.*)"', [9]),  # no pattern: what is written
        ("text contains .", [3, 9]),
        ("text not contains e", [3, 4, 5, 6, 8, 9]),
        ('text="the beginning"', [1]),
        ("text in (no, The END)", [0, 8]),
        ("kind contains news", [0, 1]),
        ("kind starts with n", [0, 1]),
        ("kind not contains news", [3, 4, 6, 7, 8, 9]),  # rows without a label meet no condition on it
        ("not kind contains news", [3, 4, 6, 7, 8, 9]),
        ("kind in (Sport, Art)", [3, 4, 6, 7]),
        ('kind in ("a, b", x)', [8, 9]),
        ("kind not in (Sport, Art)", [0, 1, 8, 9]),
        ("kind in (Sport) and text contains 映", [4]),
        ("tags contains war", [0, 3, 7]),
        ("tags in (war, love)", [0, 7, 8]),
        ("tags not in (war, love)", [1, 3, 4, 6, 9]),
        ("code starts with C and price>=7", [3, 6, 9]),
        ("id in (c1, c2)", [1, 2]),
        ("id contains 9", [9]),
        ("price>4", [3, 6, 7, 9]),
        ("price>=4,25", [3, 6, 7, 9]),
        ("price<=-0,25", [4]),
        ("price>4.25", [3, 6, 9]),
        ("price=3,5", [0]),
    ],
)
def test_conditions(cache: Path, where: str, rows: list[int]) -> None:
    with open_cache(cache) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        assert np.flatnonzero(rows_where(opened, [where])).tolist() == rows


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("text contains", "--where text contains: nothing follows"),
        ('kind starts with " "', "no row of .* matches"),
        ("text contains zzz", "no row of .* matches"),
        ("kind in (Sport, Arts)", r"no row has kind=Arts \(did you mean 'Art'"),
        ("film contains x", "no column 'film' to filter by; it has: kind, tags, "),
        ("kind in ()", r"is not a condition .*in \(VALUE, VALUE\)"),
        ("code>2015-01-01", r"no row has a date like 2010-12-31 in 'code', the first has 'c0'; =, contains"),
        ("kind>3 and code<c", r"no row has a number in 'kind', the first has 'Art'"),
        ("price>4,2,5", r"'4,2,5' is neither a number \(12\.5\) nor a date"),
    ],
)
def test_what_is_refused(cache: Path, where: str, message: str) -> None:
    with open_cache(cache) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        with pytest.raises(EmbedcacheError, match=message) as error:
            rows_where(opened, [where])
        assert "\n" not in str(error.value)


def prices(folder: Path, cells: list[str]) -> Path:
    (folder / "p.h5").unlink(missing_ok=True)
    X = np.eye(len(cells), dtype=np.float32)
    return make_cache(folder / "p.h5", [f"t{i}" for i in range(len(cells))], X, columns={"price": cells})


def test_decimal_commas_are_said_and_never_guessed(tmp_path: Path) -> None:
    with open_cache(prices(tmp_path, PRICES)) as opened, pytest.warns(InputNote, match=r"decimal commas: 3,5 is 3\.5"):
        rows_where(opened, ["price>3"])
    unclear = pytest.raises(EmbedcacheError, match=r"'price' holds '1,234', which may be 1\.234 or 1234: write")
    with open_cache(prices(tmp_path, ["1,234", "12", "2,500"])) as opened, unclear:
        rows_where(opened, ["price>3"])
    with open_cache(prices(tmp_path, ["3,5", "3.5", "4"])) as opened, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_where(opened, ["price>3"]).tolist() == [False, True, True]  # 3,5 is no number here


ALPHABET = st.sampled_from("abAB .*\\()é日")


@settings(deadline=None, max_examples=60)
@given(
    texts=st.lists(st.text(ALPHABET, max_size=6), min_size=1, max_size=6),
    word=st.text(ALPHABET, min_size=1, max_size=3),
)
def test_as_python_compares(tmp_path_factory: pytest.TempPathFactory, texts: list[str], word: str) -> None:
    path = tmp_path_factory.mktemp("contains") / "c.h5"
    make_cache(path, texts, np.eye(len(texts), dtype=np.float32))
    quoted = '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'
    with open_cache(path) as opened:
        for operator, meets in (("contains", str.__contains__), ("starts with", str.startswith)):
            expected = [meets(text.lower(), word.lower()) for text in texts]
            if any(expected):
                assert rows_where(opened, [f"text {operator} {quoted}"]).tolist() == expected
