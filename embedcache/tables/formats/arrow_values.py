"""Columns of Arrow as rows have them: strings as they are, all else as Python values."""

from __future__ import annotations

from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.source import Source, one_line


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
