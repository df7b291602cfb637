""".jsonl: a JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from itertools import repeat
from operator import itemgetter
from typing import Any, NoReturn

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import blocks
from embedcache.tables.formats.arrow_values import arrow_strings
from embedcache.tables.formats.base import ABSENT, Records, WholeRows
from embedcache.tables.formats.values import json_text, listed
from embedcache.tables.formats.writer import TableWriter
from embedcache.tables.limits import batches_of
from embedcache.tables.source import Source, changed, check_columns, one_line

FIRST_ROWS = 8192  # whose keys are the columns


class JsonLinesWriter(TableWriter):
    """An object a line; a key that is missing in the input's object is missing here."""

    nests = True

    def write(self, columns: Sequence[Any]) -> None:
        self.file.write("".join(f"{line}\n" for line in self.lines(columns)).encode())

    def lines(self, columns: Sequence[Any]) -> Iterator[str]:
        names = self.layout.names
        for values in zip(*map(listed, columns), strict=True):
            yield json_text({name: v for name, v in zip(names, values, strict=True) if v is not ABSENT})


class JsonLines(Records):
    suffixes = (".jsonl", ".ndjson")
    what = "a JSON object a line"
    named_by = "the keys of the first rows"
    writer = JsonLinesWriter
    by_lines = True
    is_free = True

    def columns(self, source: Source) -> list[str]:
        with source.text() as file:
            return keys(_rows(source, next(batches_of(file, FIRST_ROWS), [])))

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        """The first block by Python's json, and by Arrow's parser those after it in which that finds the same types."""
        schema: Any = None
        checked, utf8 = False, source.encoding == "utf-8-sig"
        file: Any
        with source.binary() if utf8 else source.text() as file:
            while block := file.read(blocks.BLOCK) + file.readline():
                if schema and (table := _parse_plain(block, schema, required)):
                    for batch in table.to_batches(batch_rows):
                        yield [arrow_strings(source, column) for column in batch.columns]
                    continue
                lines = StringIO(block.decode(source.encoding) if utf8 else block, newline=None).readlines()
                values: list[list[Any]] = []
                for start in range(0, len(lines), batch_rows):
                    rows = _rows(source, lines[start : start + batch_rows])
                    if rows and not checked:
                        check_columns(source, wanted, keys(rows))
                        checked = True
                    found = values_of(rows, wanted, required)
                    if found is None:
                        explain(source, required)
                    values = found
                    yield values
                if utf8 and schema is None:
                    schema = _schema(wanted, values)

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        with source.text() as file:
            for lines in batches_of(file, batch_rows):
                yield whole_of(_rows(source, lines))

    def records(self, source: Source) -> Iterator[tuple[int, Any]]:
        with source.text() as file:
            for line, text in enumerate(file, 1):
                if not text.isspace():
                    yield line, _parsed(source, line, text)


def keys(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns. A label may be absent from some rows, but not from all of the first batch."""
    return list(dict.fromkeys(key for row in rows for key in row))


def whole_of(rows: Sequence[Mapping[str, Any]]) -> WholeRows:
    """Objects as the columns that any of them has."""
    names = keys(rows)
    return WholeRows(names, [[row.get(name, ABSENT) for row in rows] for name in names])


def values_of(rows: Sequence[Mapping[str, Any]], wanted: Iterable[str], required: set[str]) -> list[list[Any]] | None:
    """Objects as columns; None where one has no value for a required column."""
    try:
        return [
            list(map(itemgetter(name), rows)) if name in required else [row.get(name) for row in rows]
            for name in wanted
        ]
    except KeyError:
        return None


def explain(source: Source, required: set[str] | None = None) -> NoReturn:
    """Find the first record that is wrong and say why."""
    assert isinstance(source.format, Records)
    for line, record in source.format.records(source):
        where = f"{source.path} line {line}"
        if not isinstance(record, dict):
            raise EmbedcacheError(f'{where}: not a JSON object: each row must be one, as in {{"text": "..."}}')
        if lacking := sorted((required or set()) - record.keys()):
            raise EmbedcacheError(f"{where}: no '{lacking[0]}' in this row, which has: {', '.join(record)}: add it")
    raise changed(source)


def _parsed(source: Source, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EmbedcacheError(
            f"{source.path} line {line}: not JSON ({one_line(error)}): each line must be one JSON object"
        ) from error


def _rows(source: Source, lines: Sequence[str]) -> list[dict[str, Any]]:
    decoder: Any = json.JSONDecoder()  # typeshed does not know scan_once
    try:
        found = list(map(decoder.scan_once, lines, repeat(0)))  # ends at a line that does not begin with JSON
        ends = {line[end:] for line, (_, end) in zip(lines, found, strict=False)}
        if len(found) == len(lines) and ends <= {"\n", ""}:
            rows = [row for row, _ in found]
        else:
            rows = [decoder.decode(line) for line in lines if not line.isspace()]
    except (ValueError, RecursionError):
        explain(source)
    if not all(type(row) is dict for row in rows):
        explain(source)
    return rows


def _schema(names: Iterable[str], values: list[list[Any]]) -> Any:
    """Arrow's types of columns that hold strings, or integers, or booleans alone; else no fields at all."""
    import pyarrow as pa

    known = {str: pa.large_string(), int: pa.int64(), bool: pa.bool_()}
    kinds = [set(map(type, column)) - {type(None)} for column in values]
    fields = [(name, known.get(kind.pop())) for name, kind in zip(names, kinds, strict=True) if len(kind) == 1]
    return pa.schema(fields if len(fields) == len(kinds) and all(kind for _, kind in fields) else [])


def _parse_plain(block: bytes, schema: Any, required: set[str]) -> Any:
    """An Arrow table, or None where a block is not plain: one object a line from { to }, of the schema's types.

    Columns in ``required`` are without nulls, which say either that a key is absent or that its value is null.
    """
    import numpy as np
    import pyarrow as pa
    from pyarrow import json as arrow_json

    raw = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(raw == blocks.NEWLINE)
    if raw[-1] != blocks.NEWLINE or b"\r" in block or not blocks.is_utf8(block):
        return None
    if (raw[ends - 1] != ord("}")).any() or (raw[np.append(0, ends[:-1] + 1)] != ord("{")).any():
        return None
    try:
        table = arrow_json.read_json(
            pa.BufferReader(block),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowException:
        return None
    return table if len(table) == len(ends) and not any(table[name].null_count for name in required) else None
