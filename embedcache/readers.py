"""One reader per format: batches of columns, by C code as far as it goes.

A column is an Arrow array of strings (whose bytes go into the cache as they are), or where the format does not give
that, a list of values as it gives them. Used by ``table.py`` alone.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from io import StringIO, TextIOWrapper
from itertools import chain, islice, repeat
from operator import itemgetter
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.formats import Source, check_columns, explain, explained, one_line

BLOCK = 1 << 22  # bytes of whole lines that are parsed together
QUOTE, NEWLINE = ord('"'), ord("\n")


def read_batches(
    source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
) -> Iterator[list[list[Any] | Any]]:
    """The columns ``wanted`` (column -> the option that asked for it) of at most so many rows at a time.

    Columns in ``required`` must be in every row of a JSONL file.
    """
    with explained(source):
        if source.format == ".parquet":
            yield from _read_parquet(source, wanted, batch_rows)
        elif source.format == ".txt":
            yield from _read_txt(source, wanted, batch_rows)
        elif source.delimited:
            yield from _read_csv(source, wanted, batch_rows)
        else:
            yield from _read_jsonl(source, wanted, required, batch_rows)


def _read_csv(source: Source, wanted: Mapping[str, str], batch_rows: int) -> Iterator[list[Any]]:
    """Arrow's parser for blocks that every parser reads alike; Python's strict one for the header and all others."""
    with source.binary() as file:
        header: list[str] = []
        block, encoding = b"", source.encoding
        if encoding == "utf-8-sig":
            header, block = yield from _read_plain_csv(source, file, wanted, batch_rows)
            encoding = "utf-8"
        first = StringIO(block.decode(encoding) if block else "", newline="")
        with TextIOWrapper(file, encoding, newline="") as rest:
            reader = source.csv_reader(chain(first, rest))
            try:
                if not header:
                    header = next(filter(None, reader), [])
                    if not header:
                        return
                    check_columns(source, wanted, header)
                getters = [itemgetter(header.index(name)) for name in wanted]
                while rows := list(islice(filter(None, reader), batch_rows)):  # blank lines are no rows
                    if set(map(len, rows)) != {len(header)}:
                        explain(source)
                    yield [list(map(get, rows)) for get in getters]
            except csv.Error:
                explain(source)


def _read_plain_csv(
    source: Source, file: Any, wanted: Mapping[str, str], batch_rows: int
) -> Generator[list[Any], None, tuple[list[str], bytes]]:
    """Yield batches as long as blocks are plain; return the header and the first block that is not, up to a line's end.

    The header is empty where not even that could be read; the block is empty at the end of the file.
    """
    block = _block(file).removeprefix(codecs.BOM_UTF8)
    lines = StringIO(block.decode(), newline="")
    try:
        header: list[str] = next(filter(None, source.csv_reader(lines)), [])
    except csv.Error:
        return [], block
    if not header:
        return [], block
    check_columns(source, wanted, header)
    places = [str(header.index(name)) for name in wanted]
    block = lines.read().encode()
    while block:
        table = _parse_plain_csv(block, source.separator, len(header), places)
        if table is None:
            break
        for batch in table.to_batches(batch_rows):
            yield batch.columns
        block = _block(file)
    return header, block


def _block(file: Any) -> bytes:
    """Some MB of whole lines that end outside of quotes, if the file has such."""
    block = bytearray(file.read(BLOCK))
    block += file.readline()
    quoted = block.count(QUOTE) % 2
    while quoted and len(block) < 4 * BLOCK and (line := file.readline()):
        block += line
        quoted ^= line.count(QUOTE) % 2
    return bytes(block)


def _parse_plain_csv(block: bytes, separator: str, width: int, places: list[str]) -> Any:
    """An Arrow table of the columns numbered ``places``, or None where a block is not plain.

    Plain are whole lines of UTF-8 with as many cells as the header has, in which every quote opens or closes a cell
    or belongs to a pair within one. On these Arrow and Python's csv agree, which is not so for any others.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    raw = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(raw == QUOTE)
    edge = np.zeros(256, bool)
    edge[list(b'\r\n"' + separator.encode())] = True
    if raw[-1] != NEWLINE or len(quotes) % 2 or block.startswith(codecs.BOM_UTF8):  # a text may begin so, too
        return None
    if not (edge[raw[quotes[::2] - 1]].all() and edge[raw[quotes[1::2] + 1]].all()) or not _is_utf8(block):
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


def _is_utf8(block: bytes) -> bool:
    import pyarrow as pa

    if len(block) > 8 * BLOCK:  # one enormous line; Arrow has limits that Python has not
        return False
    ends = pa.py_buffer(np.array([0, len(block)], np.int32))
    try:
        pa.StringArray.from_buffers(1, ends, pa.py_buffer(block)).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _read_txt(source: Source, wanted: Mapping[str, str], batch_rows: int) -> Iterator[list[Any]]:
    with source.text() as file:
        while lines := [line.rstrip("\n") for line in islice(file, batch_rows)]:
            check_columns(source, wanted, ["text"])
            yield [lines]


def _read_jsonl(source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int) -> Iterator[list[Any]]:
    """The first block by Python's json, and by Arrow's parser those after it in which that finds the same types."""
    schema: Any = None
    checked, utf8 = False, source.encoding == "utf-8-sig"
    file: Any
    with source.binary() if utf8 else source.text() as file:
        while block := file.read(BLOCK) + file.readline():
            if schema and (table := _parse_plain_json(block, schema, required)):
                for batch in table.to_batches(batch_rows):
                    yield [_arrow_strings(source, column) for column in batch.columns]
                continue
            lines = StringIO(block.decode(source.encoding) if utf8 else block, newline=None).readlines()
            values: list[list[Any]] = []
            for start in range(0, len(lines), batch_rows):
                rows = json_rows(source, lines[start : start + batch_rows])
                if rows and not checked:  # a label may be absent from some rows, but not from all of the first batch
                    check_columns(source, wanted, list(dict.fromkeys(key for row in rows for key in row)))
                    checked = True
                try:
                    values = [
                        list(map(itemgetter(name), rows)) if name in required else [row.get(name) for row in rows]
                        for name in wanted
                    ]
                except KeyError:
                    explain(source, required)
                yield values
            if utf8 and schema is None:
                schema = _json_schema(wanted, values)


def _json_schema(names: Iterable[str], values: list[list[Any]]) -> Any:
    """Arrow's types of columns that hold strings, or integers, or booleans alone; else no fields at all."""
    import pyarrow as pa

    known = {str: pa.large_string(), int: pa.int64(), bool: pa.bool_()}
    kinds = [set(map(type, column)) - {type(None)} for column in values]
    fields = [(name, known.get(kind.pop())) for name, kind in zip(names, kinds, strict=True) if len(kind) == 1]
    return pa.schema(fields if len(fields) == len(kinds) and all(kind for _, kind in fields) else [])


def _parse_plain_json(block: bytes, schema: Any, required: set[str]) -> Any:
    """An Arrow table, or None where a block is not plain: one object a line from { to }, of the schema's types.

    Columns in ``required`` are without nulls, which say either that a key is absent or that its value is null.
    """
    import pyarrow as pa
    from pyarrow import json as arrow_json

    raw = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(raw == NEWLINE)
    if raw[-1] != NEWLINE or b"\r" in block or not _is_utf8(block):
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


def json_rows(source: Source, lines: Sequence[str]) -> list[dict[str, Any]]:
    decoder: Any = json.JSONDecoder()  # typeshed lacks scan_once
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


def _read_parquet(source: Source, wanted: Mapping[str, str], batch_rows: int) -> Iterator[list[Any]]:
    import pyarrow as pa

    file = source.parquet()
    check_columns(source, wanted, list(file.schema_arrow.names))
    try:
        for group in range(file.num_row_groups):  # asked for all at once, Arrow keeps them all in memory
            for batch in file.iter_batches(batch_rows, row_groups=[group], columns=list(wanted)):
                yield [_arrow_strings(source, batch.column(name)) for name in wanted]
    except UnicodeDecodeError as error:
        raise _not_utf8(source, error) from error
    except (pa.ArrowException, OSError) as error:
        raise EmbedcacheError(f"{source.path}: damaged Parquet file ({one_line(error)}): write it again") from error


def _arrow_strings(source: Source, column: Any) -> Any:
    """A Parquet column of strings as Arrow has it, nulls among them; others as Python values."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if str(column.type) not in ("string", "large_string", "string_view"):
        return _python_values(column)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise _not_utf8(source, error) from error
    return column.cast(pa.large_string())


def _not_utf8(source: Source, error: Exception) -> EmbedcacheError:
    return EmbedcacheError(f"{source.path}: holds strings that are not UTF-8 ({one_line(error)}): write it again")


def _python_values(column: Any) -> list[Any]:
    """A Parquet column as Python values; times that Python does not have (nanoseconds, the year 10000) as text."""
    import pyarrow as pa

    if column.type in (pa.float16(), pa.float32()):
        column = column.cast(pa.string()).cast(pa.float64())  # 0.1, not 0.10000000149011612
    try:
        return list(_to_microseconds(column).to_pylist())
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: Any) -> Any:
    import pyarrow as pa

    try:
        return _to_microseconds(scalar).as_py()
    except (ValueError, OverflowError):
        return scalar.cast(pa.int64() if pa.types.is_duration(scalar.type) else pa.string()).as_py()


def _to_microseconds(values: Any) -> Any:
    """Python's times have these; for nanoseconds pyarrow gives pandas' types, if that is installed."""
    import pyarrow as pa

    if pa.types.is_duration(values.type) and values.type.unit == "ns":
        return values.cast(pa.duration("us"))
    if pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        return values.cast(pa.timestamp("us", values.type.tz))
    return values
