"""What is said of the formats follows from their classes: help, page, completion; and each is read whole."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path

import pytest

from embedcache.cli import main
from embedcache.tables.formats import FORMATS
from embedcache.tables.formats.values import listed
from embedcache.tables.packing import PACKINGS
from embedcache.tables.read import open_source, read_whole
from tests.conftest import invoke
from tests.tables.samples import LABELS, TABLES, TEXTS, WRITE, packed

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tables.md"


def table_of_formats() -> str:
    """The table of docs/tables.md: a line for the formats that are described in the same words."""
    lines = ["| name ends in | what it is | columns are | compressed | written |", "|---|---|---|---|---|"]
    for (what, named_by, is_text, is_written), same in groupby(
        dict.fromkeys(FORMATS.values()), key=lambda one: (one.what, one.named_by, one.is_text, one.writer is not None)
    ):
        suffixes = ", ".join(f"`{suffix}`" for one in same for suffix in one.suffixes)
        around = ", ".join(f"`{suffix}`" for suffix in PACKINGS) if is_text else "inside"
        lines.append(f"| {suffixes} | {what} | {named_by} | {around} | {'yes' if is_written else 'no'} |")
    return "\n".join(lines)


def test_the_page_has_every_format() -> None:
    assert table_of_formats() in PAGE.read_text("utf-8"), f"put this into docs/tables.md:\n{table_of_formats()}"


@pytest.mark.parametrize(("command", "written"), [("extract", False), ("predict", True)])
def test_the_help_names_every_format(command: str, written: bool) -> None:
    shown = re.sub(r"\s+", " ", invoke(command, "--help").stdout)
    for one in FORMATS.values():
        named = re.search(rf"{re.escape(one.suffixes[0])}\b", shown) is not None
        assert named or (written and one.writer is None), one
    assert "{" not in shown and all(suffix in shown for suffix in PACKINGS)
    assert "{" not in invoke("--help").stdout and main.commands[command].short_help


@pytest.mark.parametrize("suffix", TABLES)
def test_whole_tables(tmp_path: Path, suffix: str) -> None:
    path = WRITE[suffix](tmp_path / f"x{suffix}")
    for packing in ("", *PACKINGS) if FORMATS[suffix].is_text else ("",):
        parts = list(read_whole(open_source(packed(path, packing)), 3))
        assert all(part.names == ["id", "text", "label"] and len(part) <= 3 for part in parts)
        _, texts, labels = ([value for part in parts for value in listed(part.columns[i])] for i in range(3))
        assert [text or "" for text in texts] == TEXTS and [label or "" for label in labels] == LABELS


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_row_has_a_place(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".txt":
        path.write_text("\n".join(["a"] * 8))
    else:
        WRITE[suffix](path)
    source = open_source(path)
    assert re.fullmatch(r"(line|row) \d+", source.format.place(source, 6))
