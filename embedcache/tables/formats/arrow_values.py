"""Columns of Arrow as rows have them: strings as they are, all else as Python values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.limits import BATCH_BYTES
from embedcache.tables.source import Source, one_line

if TYPE_CHECKING:
    import numpy as np


def arrow_strings(source: Source, column: Any) -> Any:
    """A column of strings as Arrow has it, nulls among them; others as Python values."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if str(column.type) not in ("string", "large_string", "string_view"):
        return python_values(column)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise not_utf8(source, error) from error
    return column.cast(pa.large_string())


def parts_of(batch: Any, coded: Sequence[str] = (), batch_rows: int = 1 << 62) -> Iterator[Any]:
    """A record batch cut where its rows add up to BATCH_BYTES. Of ``coded`` columns dictionaries become strings.

    As a dictionary has it, a text of one MB may stand in any number of rows.
    """
    import pyarrow as pa

    batch, names = _without_views(batch), batch.schema.names
    for start, stop in _cuts(batch.columns, len(batch), batch_rows):
        part = batch.slice(start, stop - start)
        for name in coded:
            if name in names and pa.types.is_dictionary((column := part.column(name)).type):
                place = names.index(name)
                field = part.schema.field(place).with_type(column.type.value_type)
                part = part.set_column(place, field, column.dictionary_decode())
        yield part


def _without_views(batch: Any) -> Any:
    """Columns of string_view as strings where pyarrow is too old to measure them."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if str(field.type) == "string_view" and not _measures_views():
            strings = pa.array(batch.column(place).to_pylist(), pa.large_string())
            batch = batch.set_column(place, field.with_type(strings.type), strings)
    return batch


@cache
def _measures_views() -> bool:
    import pyarrow as pa

    try:
        return bool(pa.array(["a"], pa.string_view()).nbytes)
    except pa.ArrowTypeError:
        return False


def _cuts(columns: Sequence[Any], rows: int, batch_rows: int) -> Iterator[tuple[int, int]]:
    import numpy as np

    if sum(map(_most_bytes, columns)) <= BATCH_BYTES:
        yield from ((start, min(start + batch_rows, rows)) for start in range(0, rows, batch_rows))
        return
    ends, start = np.cumsum(sum(map(_row_bytes, columns))), 0
    while start < rows:
        before = ends[start - 1] if start else 0
        stop = int(np.searchsorted(ends, before + BATCH_BYTES, side="right"))
        stop = min(max(stop, start + 1), start + batch_rows, rows)
        yield start, stop
        start = stop


def _most_bytes(column: Any) -> int:
    """What the values may take when they are all written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    if not _has_bytes(column.type.value_type):
        return 8 * len(column)
    return len(column) * int(pc.max(pc.binary_length(column.dictionary)).as_py() or 0)


def _row_bytes(column: Any) -> np.ndarray:
    """int64 [n]"""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type) and _has_bytes(column.type.value_type):
        lengths = pc.binary_length(column.dictionary).take(column.indices)
    elif _has_bytes(column.type):
        lengths = pc.binary_length(column)
    else:
        return np.full(len(column), column.nbytes // max(len(column), 1))
    return np.asarray(pc.fill_null(lengths, 0), np.int64)


def _has_bytes(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "binary", "large_binary")


def together(parts: Iterable[Any], batch_rows: int) -> Iterator[Any]:
    """Small record batches put together, up to ``batch_rows`` rows and BATCH_BYTES."""
    import pyarrow as pa

    held: list[Any] = []
    rows = size = 0
    for part in parts:
        if held and (rows + len(part) > batch_rows or size + part.nbytes > BATCH_BYTES):
            yield _joined(pa, held)
            held, rows, size = [], 0, 0
        held.append(part)
        rows, size = rows + len(part), size + part.nbytes
    if held:
        yield _joined(pa, held)


def _joined(pa: Any, held: list[Any]) -> Any:
    return held[0] if len(held) == 1 else pa.Table.from_batches(held).combine_chunks().to_batches()[0]


def not_utf8(source: Source, error: Exception) -> EmbedcacheError:
    return EmbedcacheError(f"{source.path}: holds strings that are not UTF-8 ({one_line(error)}): write it again")


def python_values(column: Any) -> list[Any]:
    """A column as Python values; times that Python does not have (nanoseconds, the year 10000) as text."""
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
