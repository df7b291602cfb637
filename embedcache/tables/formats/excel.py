""".xlsx: the first sheet of a workbook, or the one that is named; needs openpyxl."""

from __future__ import annotations

import zipfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from datetime import datetime, time
from itertools import islice
from typing import Any

from embedcache.errors import EmbedcacheError, note
from embedcache.tables.formats.base import OneReader, Sign, WholeRows
from embedcache.tables.source import Source, check_columns, one_line

MOST_ROWS = 1 << 20  # of a sheet, by Excel's own limit
LARGEST = 1 << 30  # bytes that a workbook may unpack to: all its different texts are in memory
SMALL, RATIO = 100 << 20, 100  # one that unpacks to more than SMALL, and to RATIO times its size, is a zip bomb


class Excel(OneReader):
    """Row by row; the first row that is not blank names the columns, blank rows are left out.

    Formulas have the value that was computed when the workbook was saved.
    """

    suffixes = (".xlsx", ".xlsm")
    what = "a sheet of a workbook (`pip install 'embedcache[xlsx]'`)"
    named_by = "the first row that is not blank"
    signs = (
        Sign(b"PK\x03\x04", "a workbook or another zip archive", "name it .xlsx, or unpack it"),
        Sign(b"\xd0\xcf\x11\xe0", "an old workbook", "save it as .xlsx or .csv"),
    )
    is_free = True
    is_text = False
    has_header = True
    lists_as_json = True

    def columns(self, source: Source) -> list[str]:
        with closing(_rows(source)) as rows:
            return _header(next(rows, (0, ()))[1])

    def read(self, source: Source, wanted: Mapping[str, str] | None, batch_rows: int) -> Iterator[WholeRows]:
        with closing(_rows(source)) as rows:
            header = _header(next(rows, (0, ()))[1])
            if not header:
                return
            places = list(range(len(header)))
            if wanted is not None:
                check_columns(source, wanted, header)
                places = [header.index(name) for name in wanted]
            names = [header[place] for place in places]
            while batch := [row for _, row in islice(rows, batch_rows)]:
                cells = [[_value(row[place]) if place < len(row) else None for row in batch] for place in places]
                yield WholeRows(names, cells)

    def place(self, source: Source, row: int) -> str:
        with closing(_rows(source)) as rows:
            return f"row {next(islice(rows, row + 1, None))[0]}"


def _header(row: tuple[Any, ...]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in row]


def _value(cell: Any) -> Any:
    """Days without their midnight, which Excel gives to all of them."""
    if isinstance(cell, datetime) and cell.time() == time():
        return cell.date()
    return cell


def _rows(source: Source) -> Generator[tuple[int, tuple[Any, ...]], None, None]:
    """(number, cells) of each row that is not blank."""
    try:
        import openpyxl
    except ImportError:
        raise EmbedcacheError(
            f"{source.path}: openpyxl is needed to read it: pip install 'embedcache[xlsx]', or save the sheet as .csv"
        ) from None
    book: Any = None
    try:
        _check_size(source)
        book = openpyxl.load_workbook(source.file, read_only=True, data_only=True)
        sheet = _sheet(source, book)
        sheet.reset_dimensions()  # the file may state others than it has
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            if number > MOST_ROWS:
                raise ValueError(f"more than {MOST_ROWS:,} rows")
            if any(cell is not None for cell in cells):
                yield number, cells
    except EmbedcacheError:
        raise
    except Exception as error:  # of a damaged file openpyxl and zipfile raise nearly every kind
        why = one_line(error.__cause__ or error)
        raise EmbedcacheError(
            f"{source.path}: not a workbook, or a damaged one ({why}): save it again, or as .csv"
        ) from error
    finally:
        if book is not None:
            book.close()


def _sheet(source: Source, book: Any) -> Any:
    names = [sheet.title for sheet in book.worksheets]
    if not names:
        raise EmbedcacheError(f"{source.path} has no sheet with cells: save the table as .csv")
    if source.sheet is None:
        if len(names) > 1:
            note(f"{source.path}: the first sheet is read, {names[0]!r}; --sheet names another: {', '.join(names[1:])}")
        return book.worksheets[0]
    if source.sheet not in names:
        raise EmbedcacheError(f"{source.path} has no sheet '{source.sheet}'; it has: {', '.join(names)}")
    return book.worksheets[names.index(source.sheet)]


def _check_size(source: Source) -> None:
    with zipfile.ZipFile(source.file) as file:
        packed = sum(part.compress_size for part in file.infolist())
        unpacked = sum(part.file_size for part in file.infolist())
    if unpacked > LARGEST or (unpacked > SMALL and unpacked > RATIO * packed):
        raise EmbedcacheError(
            f"{source.path}: unpacks from {packed >> 20:,} to {unpacked >> 20:,} MB, too much for a workbook: save the "
            "sheet as .csv"
        )
