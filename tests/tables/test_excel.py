"""Workbooks: their cells, their sheets, what is wrong with them."""

from __future__ import annotations

import builtins
import datetime
import warnings
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from embedcache.errors import EmbedcacheError, InputNote
from embedcache.tables.formats import excel
from embedcache.tables.rows import Columns, column_names, read_rows


def write(path: Path, *sheets: list[tuple[Any, ...]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"S{number}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def read(path: Path, columns: Columns, **options: Any) -> dict[str, list[Any]]:
    batches = list(read_rows([path], columns, **options))
    found: dict[str, list[Any]] = {"text": [text for batch in batches for text in batch.texts.to_pylist()]}
    for name in columns.labels:
        found[name] = [label for batch in batches for label in batch.labels[name]]
    for name in columns.keep:
        found[name] = [value for batch in batches for value in batch.keep[name].to_pylist()]
    return found


def test_cells_of_every_kind(tmp_path: Path) -> None:
    day, noon = datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 2, 12, 30)
    rows = [
        (None, None),  # blank rows are no rows, before the header either
        ("text", "label", "stars", "when", None),
        ("=a text", "pos", 3, day, None),
        (12, True, 3.5, noon),
        (None,),
        (None, "neg", -0.25, None),
        ("last", "#N/A"),
    ]
    path = write(tmp_path / "x.xlsx", rows)
    path_of_text = openpyxl.load_workbook(path)
    path_of_text["S1"]["A3"].data_type = "s"  # or else it is a formula
    path_of_text.save(path)
    assert column_names(path) == ["text", "label", "stars", "when"]
    assert read(path, Columns(labels=("label",), keep=("stars", "when"))) == {
        "text": ["=a text", "12", "", "last"],
        "label": ["pos", "true", "neg", None],
        "stars": ["3", "3.5", "-0.25", ""],
        "when": ["2020-01-02", "2020-01-02 12:30:00", "", ""],
    }


def test_the_first_sheet_or_the_one_that_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", [("text",), ("one",)], [("text",), ("two",)])
    with pytest.warns(InputNote, match=r"the first sheet is read, 'S1'; --sheet names another: S2"):
        assert read(path, Columns()) == {"text": ["one"]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read(path, Columns(), sheet="S2") == {"text": ["two"]}
    with pytest.raises(EmbedcacheError, match=r"no sheet 's2'; it has: S1, S2"):
        read(path, Columns(), sheet="s2")


def test_errors_name_the_row_as_excel_counts(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", [("text", "label"), ("a", "b"), (None,), ("c", '["d"]')])
    with pytest.raises(EmbedcacheError, match=r"x\.xlsx row 4: column 'label' \(--label\) holds a list"):
        read(path, Columns(labels=("label",)))
    with pytest.raises(EmbedcacheError, match="has a header but no rows"):
        read(write(tmp_path / "y.xlsx", [("text",)]), Columns())
    with pytest.raises(EmbedcacheError, match="is empty"):
        read(write(tmp_path / "z.xlsx", []), Columns())


def test_without_openpyxl_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, imported = write(tmp_path / "x.xlsx", [("text",), ("one",)]), builtins.__import__

    def refuse(name: str, *more: Any, **options: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return imported(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(EmbedcacheError, match=r"pip install 'embedcache\[xlsx\]', or save the sheet as \.csv"):
        read(path, Columns())


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/sharedStrings.xml", bytes(101 << 20))
    with pytest.raises(EmbedcacheError, match="unpacks from 0 to 101 MB"):
        read(path, Columns())
    monkeypatch.setattr(excel, "LARGEST", 1000)
    with pytest.raises(EmbedcacheError, match="too much for a workbook"):
        read(write(tmp_path / "y.xlsx", [("text",), ("one",)]), Columns())


def test_rows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(excel, "MOST_ROWS", 1000)
    path = write(tmp_path / "x.xlsx", [("text",), ("one",)])
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = parts[sheet].replace(b'<row r="2"', b'<row r="99999999999"')
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    with pytest.raises(EmbedcacheError, match=r"damaged one \(more than 1,000 rows"):
        read(path, Columns())


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", [("text",), ("one",)])
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    name = "xl/worksheets/sheet1.xml"
    assert b">one<" in parts[name]
    parts[name] = bomb + parts[name].replace(b">one<", b">&b;<")
    with zipfile.ZipFile(path, "w") as file:
        for part, data in parts.items():
            file.writestr(part, data)
    with pytest.raises(EmbedcacheError, match=r"damaged one .*Entit"):
        read(path, Columns())
