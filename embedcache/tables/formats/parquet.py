""".parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.arrow_values import arrow_strings, not_utf8
from embedcache.tables.formats.base import Format, Whole
from embedcache.tables.source import Source, check_columns, one_line


class Parquet(Format):
    suffixes = (".parquet",)
    is_text = False
    has_header = True

    def columns(self, source: Source) -> list[str]:
        return list(_open(source).schema_arrow.names)

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        file = _open(source)
        check_columns(source, wanted, list(file.schema_arrow.names))
        for batch in _record_batches(source, file, list(wanted), batch_rows):
            yield [arrow_strings(source, batch.column(name)) for name in wanted]

    def whole(self, source: Source, batch_rows: int) -> Iterator[Whole]:
        file = _open(source)
        for batch in _record_batches(source, file, None, batch_rows):
            yield Whole(batch.schema.names, batch.columns, batch.schema.metadata)

    def place(self, source: Source, row: int) -> str:
        return f"row {row + 1}"


def _record_batches(source: Source, file: Any, columns: list[str] | None, batch_rows: int) -> Iterator[Any]:
    """Of the columns named, or of all."""
    import pyarrow as pa

    try:
        for group in range(file.num_row_groups):  # asked for all at once, Arrow keeps them all in memory
            for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns):
                if columns is None:  # strings that are picked are validated where they are used
                    batch.validate(full=True)
                yield batch
    except UnicodeDecodeError as error:
        raise not_utf8(source, error) from error
    except (pa.ArrowException, OSError) as error:
        kind = not_utf8(source, error) if "UTF8" in str(error) else None
        raise kind or EmbedcacheError(
            f"{source.path}: damaged Parquet file ({one_line(error)}): write it again"
        ) from error


def _open(source: Source) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(source.path, buffer_size=1 << 20)  # or else a whole column of a row group is read
        _ = file.schema_arrow.names  # which may be what is broken
        return file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise EmbedcacheError(
            f"{source.path}: not a Parquet file, or cut off ({one_line(error)}): copy or write it again"
        ) from error
