""".json: an array of objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks
from embedcache.tables.formats.base import Records, WholeRows
from embedcache.tables.formats.json_lines import (
    FIRST_ROWS,
    JsonLines,
    JsonLinesWriter,
    explain,
    keys,
    values_of,
    whole_of,
)
from embedcache.tables.formats.writer import TableLayout
from embedcache.tables.limits import batches_of, too_long
from embedcache.tables.source import Source, check_columns

LITERAL = 16  # a number, a word or an escape that is cut off may be found wrong this far from the end
CUT = "it ends too early"
DECODER = json.JSONDecoder()
SPACE = re.compile(r"[ \t\r\n]*")
WRITE = 'a table is an array of objects, [{"text": "..."}, ...] (in pandas: to_json(path, orient="records"))'


class JsonArrayWriter(JsonLinesWriter):
    """An array of objects, one a line."""

    def __init__(self, file: BinaryIO, layout: TableLayout) -> None:
        super().__init__(file, layout)
        self._before = "["

    def write(self, columns: Sequence[Any]) -> None:
        for line in self.lines(columns):
            self.file.write(f"{self._before}\n{line}".encode())
            self._before = ","

    def close(self) -> None:
        self.file.write(b"[]\n" if self._before == "[" else b"\n]\n")


class JsonArray(Records):
    """One object after the other is taken from the array, so that memory holds a few of them.

    A file that begins with an object in place of an array is read as .jsonl is: many are, whatever their name.
    """

    suffixes = (".json",)
    what = "an array of JSON objects, or an object a line"
    named_by = "the keys of the first rows"
    writer = JsonArrayWriter
    is_free = True

    def columns(self, source: Source) -> list[str]:
        if _has_lines(source):
            return JsonLines().columns(_lines_of(source))
        return keys(self._rows(source, FIRST_ROWS))

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        if _has_lines(source):
            yield from JsonLines().batches(_lines_of(source), wanted, required, batch_rows)
            return
        objects, checked = (record for _, record in self.records(source)), False
        for rows in batches_of(objects, batch_rows, _length):
            if not all(type(row) is dict for row in rows):
                explain(source)
            if not checked:
                check_columns(source, wanted, keys(rows))
                checked = True
            values = values_of(rows, wanted, required)
            if values is None:
                explain(source, required)
            yield values

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        if _has_lines(source):
            yield from JsonLines().whole(_lines_of(source), batch_rows)
            return
        objects = (record for _, record in self.records(source))
        for rows in batches_of(objects, batch_rows, _length):
            if not all(type(row) is dict for row in rows):
                explain(source)
            yield whole_of(rows)

    def records(self, source: Source) -> Iterator[tuple[int, Any]]:
        if _has_lines(source):
            yield from JsonLines().records(_lines_of(source))
        else:
            with source.text() as file:
                yield from _Array(source, file)

    def _rows(self, source: Source, count: int) -> list[dict[str, Any]]:
        rows = [record for _, record in islice(self.records(source), count)]
        if not all(type(row) is dict for row in rows):
            explain(source)
        return rows


def _lines_of(source: Source) -> Source:
    """The file as .jsonl, whose lines must not be too long."""
    return replace(source, format=_Lines())


def _has_lines(source: Source) -> bool:
    """Whether it begins with an object that ends on its line, as .jsonl does. Raises EmbedcacheError for any other."""
    with source.text() as file:
        start = next((part for part in iter(lambda: file.readline(80), "") if not part.isspace()), "")
        if not start.lstrip().startswith("{"):
            return False
        line = start if start.endswith("\n") else start + file.readline(source.most)
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict) or (value and all(isinstance(one, (dict, list)) and one for one in value.values())):
        raise EmbedcacheError(f"{source.path} is one JSON object, not a table: {WRITE}")
    return True


class _Lines(JsonLines):
    def advice(self, source: Source, names: Sequence[str]) -> str:
        return f"{WRITE}; "


class _Array:
    """The elements of an array and the lines in which they begin; what is read and not yet used is in memory."""

    def __init__(self, source: Source, file: Any) -> None:
        self.source, self.file = source, file
        self.text, self.at, self.line, self.ended = "", 0, 1, False

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        if (first := self._next()) != "[":
            if first:
                raise self._wrong("neither an array nor an object", WRITE)
            return
        between = "["
        while True:
            self.at += 1
            if self._next() == "]" and between == "[":
                break
            value, end = self._value()
            yield self.line, value
            self._go_to(end)
            if (between := self._next()) not in ("]", ","):
                raise self._wrong("',' or ']' is missing here" if between else CUT, "write it again")
            if between == "]":
                break
        self.at += 1
        if self._next():
            raise self._wrong("something follows after the array's end", "a file holds one array")

    def _value(self) -> tuple[Any, int]:
        """The element that begins here, and where it ends."""
        while True:
            try:
                return DECODER.raw_decode(self.text, self.at)
            except RecursionError:
                raise self._wrong("nested too deeply", WRITE) from None
            except json.JSONDecodeError as error:
                cut = error.pos > len(self.text) - LITERAL or error.msg.startswith("Unterminated string")
                if cut and len(self.text) - self.at > self.source.most:
                    what = f"{self.source.path} line {self.line}: the object that begins here"
                    raise too_long(what, self.source.most, "cut it, or close its quotes and brackets") from None
                if cut and not self.ended:
                    self._more()
                    continue
                ended = error.pos >= len(self.text.rstrip()) or error.msg.startswith("Unterminated string")
                self._go_to(error.pos)
                raise self._wrong(CUT if ended else error.msg, "write it again") from None

    def _next(self) -> str:
        """The character that follows white space, "" at the end."""
        while True:
            found = SPACE.match(self.text, self.at)
            assert found is not None
            self._go_to(found.end())
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._more()

    def _go_to(self, end: int) -> None:
        self.line += self.text.count("\n", self.at, end)
        self.at = end

    def _more(self) -> None:
        """Read on, and at least as much again as is not used yet."""
        part = self.file.read(max(blocks.BLOCK, len(self.text) - self.at))
        self.text, self.at, self.ended = self.text[self.at :] + part, 0, not part

    def _wrong(self, what: str, advice: str) -> EmbedcacheError:
        return EmbedcacheError(f"{self.source.path} line {self.line}: not a JSON array of objects ({what}): {advice}")


def _length(record: Any) -> int:
    return sum(len(value) for value in record.values() if isinstance(value, str)) if isinstance(record, dict) else 0
