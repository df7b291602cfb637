""".csv and .tsv: records of cells between separators."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from io import StringIO, TextIOWrapper
from itertools import chain, islice
from operator import itemgetter
from typing import Any, BinaryIO, NoReturn

from embedcache.errors import EmbedcacheError, note
from embedcache.tables.formats.base import OneReader, Records, WholeRows
from embedcache.tables.formats.blocks import NEWLINE, QUOTE, is_utf8, read_block
from embedcache.tables.formats.values import cell, listed
from embedcache.tables.formats.writer import TableLayout, TableWriter
from embedcache.tables.limits import UNLIMITED, batches_of, too_long
from embedcache.tables.source import BrokenQuotingError, Source, changed, check_columns

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SAMPLE = 1 << 16  # characters that are looked at to find the separator
SAMPLE_RECORDS = 30


class CsvWriter(TableWriter):
    """UTF-8, a header, lines that end as RFC 4180 says; lists and objects are JSON, what is missing is empty."""

    separator = ","
    may_repeat = True

    def __init__(self, file: BinaryIO, layout: TableLayout) -> None:
        super().__init__(file, layout)
        self._put([layout.names])

    def write(self, columns: Sequence[Any]) -> None:
        self._put(zip(*(map(cell, listed(column)) for column in columns), strict=True))

    def _put(self, rows: Iterable[Iterable[str]]) -> None:
        text = StringIO(newline="")
        csv.writer(text, delimiter=self.separator).writerows(rows)
        self.file.write(text.getvalue().encode("utf-8", "replace"))


class TsvWriter(CsvWriter):
    """The same with tabs."""

    separator = "\t"


class Delimited(OneReader, Records):
    """Values that are separated by ``usual``, unless the file shows that it is another one."""

    what = "cells between separators"
    named_by = "the first line that is not blank"
    by_lines = True
    has_header = True
    lists_as_json = True
    usual = ","

    def columns(self, source: Source) -> list[str]:
        separator = self.separator(source)
        with source.text(newline="") as file:
            try:
                return next(filter(None, _reader(file, separator, source.most)), [])
            except csv.Error:
                self._explain(source)

    def separator(self, source: Source) -> str:
        """What was asked for, or what the header and the first rows show."""
        if source.separator is not None:
            return source.separator
        with source.text(newline="") as file:
            sample = file.read(SAMPLE)
        found = detect_separator(sample, len(sample) < SAMPLE, self.usual)
        if found != self.usual:
            note(f"{source.path} is separated by {SEPARATORS[found]} (--separator says otherwise)")
        return found

    def read(self, source: Source, wanted: Mapping[str, str] | None, batch_rows: int) -> Iterator[WholeRows]:
        """Arrow's parser reads the blocks that all parsers read alike, Python's strict one the header and the rest."""
        separator = self.separator(source)
        with source.binary() as file:
            header: list[str] = []
            block, encoding = b"", source.encoding
            if encoding == "utf-8-sig":
                header, block = yield from _read_plain(source, file, separator, wanted, batch_rows)
                encoding = "utf-8"
            first = StringIO(block.decode(encoding) if block else "", newline="")
            with TextIOWrapper(file, encoding, newline="") as rest:
                reader = _reader(chain(first, rest), separator, source.most)
                try:
                    if not header:
                        header = next(filter(None, reader), [])
                        if not header:
                            return
                    places = _places(source, wanted, header)
                    names, getters = [header[place] for place in places], list(map(itemgetter, places))
                    for rows in batches_of(filter(None, reader), batch_rows, _length):  # blank lines are no rows
                        if set(map(len, rows)) != {len(header)}:
                            self._explain(source)
                        yield WholeRows(names, [list(map(get, rows)) for get in getters])
                except csv.Error:
                    self._explain(source)

    def records(self, source: Source) -> Iterator[tuple[int, Any]]:
        separator = self.separator(source)
        with source.text(newline="") as file:
            reader, line = _reader(file, separator, source.most), 1
            try:
                for record in reader:
                    if record:
                        yield line, record
                    line = reader.line_num + 1
            except csv.Error as error:
                if "field limit" in str(error):
                    what = f"{source.path} line {line}: a cell of the row that starts here"
                    raise too_long(what, source.most, "cut it, or close its quotes") from None
                raise BrokenQuotingError(
                    f"{source.path} line {line}: broken quoting in the row that starts here ({error}): "
                    'close its quotes, and write a " inside a quoted cell as ""'
                ) from error

    def place(self, source: Source, row: int) -> str:
        return super().place(source, row + 1)  # after the header

    def _explain(self, source: Source) -> NoReturn:
        """Find the first record that is wrong and say why."""
        width = None
        for line, record in self.records(source):
            width = width or len(record)
            if len(record) != width:
                raise EmbedcacheError(
                    f"{source.path} line {line}: {len(record)} fields where the header has {width}: fill every column, "
                    "and put a text that holds the separator or a line break in double quotes"
                )
        raise changed(source)


class Csv(Delimited):
    suffixes = (".csv",)
    writer = CsvWriter


class Tsv(Delimited):
    suffixes = (".tsv",)
    writer = TsvWriter
    usual = "\t"


def detect_separator(sample: str, whole: bool, usual: str) -> str:
    """The separator that splits the header, and the records after it into as many cells.

    ``usual`` is kept where no other splits more of the records so, and where fewer than half of them are.

    Args:
        sample: the beginning of a file.
        whole: the sample is all of the file.
        usual: the separator that the file's name says.
    """
    agreeing = {mark: _agreeing(sample, whole, mark) for mark in (usual, *SEPARATORS)}
    best = max(agreeing, key=lambda mark: agreeing[mark])  # the usual one comes first
    return best if agreeing[best] >= 0.5 else usual


def _agreeing(sample: str, whole: bool, separator: str) -> float:
    """The share of records with as many cells as the header; 0 where that has one cell, as it has by a wrong mark."""
    if separator not in sample:
        return 0.0
    widths: list[int] = []
    broken = 0
    try:
        records = filter(None, _reader(StringIO(sample, newline=""), separator))
        widths.extend(len(record) for record in islice(records, SAMPLE_RECORDS))
    except csv.Error:
        broken = int(whole)  # or else the sample ends within quotes
    header, *rows = widths or [0]
    if not whole and len(widths) < SAMPLE_RECORDS:
        rows = rows[:-1]  # cut
    if header < 2:
        return 0.0
    return rows.count(header) / (len(rows) + broken) if rows or broken else 1.0


def _length(record: list[str]) -> int:
    return sum(map(len, record))


def _reader(lines: Iterable[str], separator: str, most: int = UNLIMITED) -> Any:
    """``most``: characters of a cell. It is a setting of the whole process, set again for each reader."""
    # The default refuses a text of over 131,072 characters; Windows' long integers have 32 bits.
    csv.field_size_limit(min(most, 2**31 - 1))
    return csv.reader(lines, delimiter=separator, strict=True)


def _places(source: Source, wanted: Mapping[str, str] | None, header: list[str]) -> list[int]:
    """The places in a record of the columns wanted, None for all. Raises EmbedcacheError where one is missing."""
    if wanted is None:
        return list(range(len(header)))
    check_columns(source, wanted, header)
    return [header.index(name) for name in wanted]


def _read_plain(
    source: Source, file: Any, separator: str, wanted: Mapping[str, str] | None, batch_rows: int
) -> Generator[WholeRows, None, tuple[list[str], bytes]]:
    """Yield batches as long as blocks are plain; return the header and the first block that is not, up to a line's end.

    The header is empty where not even that could be read; the block is empty at the end of the file.
    """
    block = read_block(file).removeprefix(codecs.BOM_UTF8)
    lines = StringIO(block.decode(), newline="")
    try:
        header: list[str] = next(filter(None, _reader(lines, separator, source.most)), [])
    except csv.Error:
        return [], block
    if not header:
        return [], block
    places = _places(source, wanted, header)
    names = [header[place] for place in places]
    block = lines.read().encode()
    while block:
        table = _parse_plain(block, separator, len(header), list(map(str, places)))
        if table is None:
            break
        for batch in table.to_batches(batch_rows):
            yield WholeRows(names, batch.columns)
        block = read_block(file)
    return header, block


def _parse_plain(block: bytes, separator: str, width: int, places: list[str]) -> Any:
    """An Arrow table of the columns numbered ``places``, or None where a block is not plain.

    Plain are whole lines of UTF-8 with as many cells as the header has, in which every quote opens or closes a cell
    or belongs to a pair within one. On these Arrow and Python's csv agree, which is not so for any others.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if len(separator.encode()) > 1:
        return None
    raw = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(raw == QUOTE)
    edge = np.zeros(256, bool)
    edge[list(b'\r\n"' + separator.encode())] = True
    if raw[-1] != NEWLINE or len(quotes) % 2 or block.startswith(codecs.BOM_UTF8):  # a text may begin so, too
        return None
    if not (edge[raw[quotes[::2] - 1]].all() and edge[raw[quotes[1::2] + 1]].all()) or not is_utf8(block):
        return None
    names = list(map(str, range(width)))
    try:
        return arrow_csv.read_csv(
            pa.BufferReader(block),
            read_options=arrow_csv.ReadOptions(column_names=names, block_size=len(block) + 1),
            parse_options=arrow_csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=places, column_types=dict.fromkeys(places, pa.large_string()), check_utf8=False
            ),
        )
    except pa.ArrowException:
        return None
