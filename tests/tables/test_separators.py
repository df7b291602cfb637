"""Which separator a file has is seen, said, and overruled."""

from __future__ import annotations

import csv
import io
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import EmbedcacheError, InputNote
from embedcache.tables.formats.delimited import SAMPLE, detect_separator
from embedcache.tables.rows import Columns, column_names, read_rows


def texts(path: Path, **options: Any) -> list[str]:
    return [text for rows in read_rows([path], Columns(), **options) for text in rows.texts.to_pylist()]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars"), (",", "")])
@pytest.mark.parametrize("rows", [0, 1, 5, 20_000])
def test_a_csv_with_another_separator(tmp_path: Path, separator: str, name: str, rows: int) -> None:
    path = tmp_path / "x.csv"
    body = [f'one, two; "{i}"\n|\t and more' for i in range(rows)]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([("id", "text"), *((str(i), t) for i, t in enumerate(body))])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert column_names(path) == ["id", "text"]
        if rows:
            assert texts(path) == body
    caught = [one for one in caught if one.category is not ResourceWarning]  # of files that other tests left open
    said = {str(one.message) for one in caught}
    assert said == ({f"{path} is separated by {name} (--separator says otherwise)"} if name else set())
    assert all(one.category is InputNote for one in caught)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("text\nhello; world\nbye\n", ","),  # one column has no separator
        ("text,label\na;b,c\nd;e,f\n", ","),
        ("a;b,c\n1;2,3\n", ","),  # both could be: the name says which
        ("a,b;c\n1;2\n3;4\n", ";"),
        ("text;label\na;b\nbroken\n", ";"),  # so that it is the row that is said to be wrong
        ("text;label\nbroken\nbroken\na;b\n", ","),
        ('"text";"label"\n"a;b";"c"\n', ";"),
        ("text,label\na,b,c\n" * 3, ","),
        ("text|label\na|b\n", "|"),
        ("", ","),
        ("\n\n\n", ","),
    ],
)
def test_detection(sample: str, expected: str) -> None:
    assert detect_separator(sample, True, ",") == expected


def test_a_sample_that_ends_within_a_row() -> None:
    rows = "text;label\n" + ("a, word " * 3 + ";b\n") * 10_000
    for cut in range(SAMPLE - 40, SAMPLE):
        assert detect_separator(rows[:cut], False, ",") == ";"
    assert detect_separator('text;label\n"a quoted text that goes on\nand on', False, ",") == ";"


CELLS = st.text(st.sampled_from('ab ;,|\t\n"é'), max_size=8)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t|"),
    usual=st.sampled_from(",\t"),
)
def test_what_csv_writes_quoted_is_found_again(rows: list[tuple[str, str]], separator: str, usual: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    assert detect_separator(text.getvalue(), True, usual) == separator


def test_the_option_goes_before_what_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id;text\n1;a^b\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts(path, separator=";") == ["a^b"]
        assert column_names(path, separator="^") == ["id;text"]
        path.write_text("id§text\n1§a;b\n", encoding="utf-8")
        assert texts(path, separator="§") == ["a;b"]
        path.write_text("id\ttext\n1\ta;b\n")
        assert texts(path, separator="tab") == texts(path, separator="\\t") == ["a;b"]
    for wrong in (";;", "", '"', "\n"):
        with pytest.raises(EmbedcacheError, match=r"--separator .* is not one character"):
            texts(path, separator=wrong)
