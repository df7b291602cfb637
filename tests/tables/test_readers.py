"""Arrow's parsers give what Python's csv and json give, or leave the block to them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks, delimited, json_lines
from embedcache.tables.rows import Columns, read_rows

COLUMNS = Columns(labels=("label",), id="id")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


def read(path: Path, columns: Columns = COLUMNS, block: int = 1 << 22, plain: bool = True) -> tuple[Any, str]:
    """(rows, what is wrong), read in blocks of so many bytes, by Python's parsers alone where ``plain`` is False."""
    rows = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        if not plain:
            patch.setattr(delimited, "_parse_plain", lambda *_: None)
            patch.setattr(json_lines, "_parse_plain", lambda *_: None)
        try:
            for batch in read_rows([path], columns):
                ids = batch.ids.to_pylist() if batch.ids is not None else [None] * len(batch)
                rows += zip(batch.texts.to_pylist(), ids, *batch.labels.values(), strict=True)
        except EmbedcacheError as error:
            return None, str(error)
    return rows, ""


@pytest.fixture
def by_arrow(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For every block that was tried, whether Arrow read it."""
    taken: list[bool] = []

    def noted(parse: Callable[..., Any]) -> Callable[..., Any]:
        def and_note(*arguments: Any) -> Any:
            table = parse(*arguments)
            taken.append(table is not None)
            return table

        return and_note

    for module in (delimited, json_lines):
        monkeypatch.setattr(module, "_parse_plain", noted(module._parse_plain))
    return taken


CELLS = st.text(st.sampled_from('ab",\n\r \té日🎬\ufeff'), max_size=6)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, st.sampled_from(["x", "", "nan", "[", '["x"]'])), max_size=12),
    ends=st.sampled_from(["\n", "\r\n", "\r"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    block=st.sampled_from([1, 5, 20, 1 << 22]),
)
def test_csv_as_it_is_written(folder: Path, rows: Any, ends: str, quoting: Any, block: int) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ends, quoting=quoting)
    writer.writerows([("text", "id", "label"), *rows])
    path = folder / "x.csv"
    path.write_bytes(text.getvalue().encode())
    found, problem = read(path, block=block)
    expected, also = read(path, block=block, plain=False)  # of two faults either may be found first
    assert found == expected and bool(problem) == bool(also)
    if found is not None and quoting == csv.QUOTE_ALL:  # a lone \r is not always quoted else
        assert [row[:2] for row in found] == [row[:2] for row in rows]


@settings(deadline=None, max_examples=300)
@given(
    body=st.lists(
        st.sampled_from(['"', '""', ",", "\n", "\r", "\r\n", "a", " ", "é", "\0", "a,b\n", '"a,\n",b\n']), max_size=30
    ),
    width=st.sampled_from([1, 2]),
    block=st.sampled_from([1, 7, 1 << 22]),
    end=st.sampled_from(["", "\n"]),
)
@example(['"a"', "x", ",b"], 2, 1 << 22, "\n")
@example(["a", '"', "b", '"', ",b"], 2, 1 << 22, "\n")
@example(["\n", '""', "\n", "\r\n", "\r", "a"], 1, 7, "\n")
def test_any_characters_as_csv(folder: Path, body: list[str], width: int, block: int, end: str) -> None:
    path = folder / "x.csv"
    path.write_bytes((",".join(["text", "label"][:width]) + "\n" + "".join(body) + end).encode())
    columns = Columns(labels=("label",) if width == 2 else ())
    found, problem = read(path, columns, block)
    expected, also = read(path, columns, block, plain=False)
    assert found == expected and bool(problem) == bool(also)


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.integers() | st.floats() | st.text(max_size=4)
KINDS = {"id": st.integers() | st.text(max_size=3), "label": VALUES | st.lists(VALUES), "other": VALUES}
BREAKS = ["", "}", "{", ",", "\n", "\r", " ", "\0", '"', "\\ud800", "{}", "null", "é", ': 1, "text"']


@settings(deadline=None, max_examples=300)
@given(
    rows=st.lists(st.fixed_dictionaries({"text": st.text(max_size=4)}, optional=KINDS), max_size=8),
    where=st.integers(0, 100),
    change=st.sampled_from(BREAKS),
    ascii=st.booleans(),
    block=st.sampled_from([1, 60, 1 << 22]),
)
def test_jsonl(folder: Path, rows: Any, where: int, change: str, ascii: bool, block: int) -> None:
    first = {"text": "a", "id": "b", "label": "c"}
    text = "\n".join(json.dumps(row, ensure_ascii=ascii) for row in [first, *rows]) + "\n"
    place = len(text) - min(where, len(text))
    path = folder / "x.jsonl"
    path.write_bytes((text[:place] + change + text[place:]).encode(errors="replace"))
    for columns in (Columns(labels=("label",), id="id"), Columns(labels=("label",)), Columns()):
        found, problem = read(path, columns, block)
        expected, also = read(path, columns, block, plain=False)
        assert found == expected and bool(problem) == bool(also)


def test_what_arrow_reads(tmp_path: Path, by_arrow: list[bool]) -> None:
    rows = [(f'a "{i}",\nb', str(i), "x") for i in range(100)]
    path = tmp_path / "x.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "id", "label"), *rows])
    assert read(path, block=200) == (rows, "") and len(by_arrow) > 5 and all(by_arrow)
    lines = path.read_bytes() + b'5" nail,x,y\r\n' + b"a,b,c\r\n" * 50
    path.write_bytes(lines)
    by_arrow.clear()
    assert read(path, block=200)[0] == [*rows, ('5" nail', "x", "y"), *[("a", "b", "c")] * 50]
    assert by_arrow[-1] is False and by_arrow.count(False) == 1

    path = tmp_path / "x.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"é\n{i}", "id": i, "label": i > 5, "x": [[i]]}) + "\n" for i in range(99)),
        encoding="utf-8", newline="\n",
    )  # fmt: skip
    by_arrow.clear()
    expected = [(f"é\n{i}", str(i), json.dumps(i > 5)) for i in range(99)]
    assert read(path, block=200) == (expected, "") and len(by_arrow) > 5 and all(by_arrow)
    path.write_bytes(
        path.read_bytes() + b'{"text": "a", "id": 2.0, "label": null}\n' + b'{"text": "a", "id": 2}\n' * 50
    )
    by_arrow.clear()
    assert read(path, block=200)[0][99:] == [("a", "2.0", None)] + [("a", "2", None)] * 50
    assert by_arrow.count(False) == 1 and by_arrow[-1]
