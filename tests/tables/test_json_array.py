"""An array of objects gives the rows that the same objects give line by line, however it is laid out."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks
from embedcache.tables.limits import text_limit
from embedcache.tables.rows import Columns, column_names, read_rows

COLUMNS = Columns(labels=("label",), keep=("more",))
TEXTS = st.text(st.sampled_from('ab"\\\n{}[],: \t日🎬'), max_size=8)
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | st.lists(TEXTS, max_size=2)
ROWS = st.lists(st.fixed_dictionaries({"text": TEXTS}, optional={"label": TEXTS, "more": VALUES}), max_size=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("arrays")


def read(path: Path, block: int = 1 << 22) -> tuple[Any, str]:
    rows: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "BLOCK", block)
        try:
            for batch in read_rows([path], COLUMNS, batch_rows=2):
                rows += zip(
                    batch.texts.to_pylist(), *batch.labels.values(), *map(list, batch.keep.values()), strict=True
                )
        except EmbedcacheError as error:
            assert "\n" not in str(error)
            return None, str(error)
    return rows, ""


@settings(deadline=None)
@given(
    rows=ROWS,
    indent=st.sampled_from([None, 0, 2]),
    ascii=st.booleans(),
    block=st.sampled_from([1, 3, 40, 1 << 22]),
    around=st.sampled_from(["", " ", "\r\n\t"]),
)
def test_as_line_by_line(folder: Path, rows: Any, indent: Any, ascii: bool, block: int, around: str) -> None:
    first = {"text": "x", "label": "y", "more": 1}
    array, lines = folder / "x.json", folder / "x.jsonl"
    text = json.dumps([first, *rows], indent=indent, ensure_ascii=ascii)
    array.write_text(around + text + around, encoding="utf-8")
    lines.write_text("".join(json.dumps(row) + "\n" for row in [first, *rows]), encoding="utf-8")
    assert read(array, block) == read(lines)
    lines.replace(folder / "lines.json")  # the name of many a file of lines
    assert read(folder / "lines.json") == read(array)


@settings(deadline=None, max_examples=200)
@given(
    rows=ROWS,
    where=st.integers(0, 200),
    change=st.sampled_from(["", '"', "{", "}", "[", "]", ",", ":", "\\", "0", "nul", "\n", "cut"]),
    block=st.sampled_from([1, 7, 1 << 22]),
)
def test_what_json_refuses_is_refused(folder: Path, rows: Any, where: int, change: str, block: int) -> None:
    text = json.dumps([{"text": "x", "label": "y", "more": 1}, *rows], indent=1)
    place = min(where, len(text))
    spoilt = text[:place] if change == "cut" else text[:place] + change + text[place:]
    path = folder / "y.json"
    path.write_text(spoilt, encoding="utf-8")
    found, problem = read(path, block)
    try:
        whole = json.loads(spoilt)
    except ValueError:
        whole = None
    if not isinstance(whole, list):  # a single object may be read as one line
        assert problem or (isinstance(whole, dict) and found)
    elif found is not None:
        assert [row[0] for row in found] == [row["text"] for row in whole]


@pytest.mark.parametrize("end", ["\n", ""])
def test_memory_holds_a_few_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 16)
    path = tmp_path / "x.json"
    with path.open("w") as file:
        file.write("[")
        file.writelines(json.dumps({"text": f"{i} " + "word " * 200, "label": "a"}) + "," + end for i in range(20_000))
        file.write('{"text": "last", "label": "b"}]')
    tracemalloc.start()
    rows = sum(len(batch) for batch in read_rows([path], Columns(), batch_rows=100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 20_001 and path.stat().st_size > 20e6
    assert peak < 2e6


def test_one_object_longer_than_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 10)
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"text": "long " * 50_000}, {"text": "short"}]))
    assert [len(text) for batch in read_rows([path], Columns()) for text in batch.texts.to_pylist()] == [250_000, 5]
    assert column_names(path) == ["text"]


def test_an_endless_string_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1000)
    path = tmp_path / "x.json"
    path.write_text('[\n{"text": "' + "a" * 1_000_000)
    with text_limit(0.01), pytest.raises(EmbedcacheError, match=r"line 2: the object that begins here has more than"):
        list(read_rows([path], Columns()))
