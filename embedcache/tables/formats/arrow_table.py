"""Tables in memory, as Arrow has them: no file, and so no suffix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from embedcache.tables.formats.arrow_values import arrow_strings, parts_of
from embedcache.tables.formats.base import ArrowFormat, WholeRows
from embedcache.tables.source import Source, check_columns

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowTable(ArrowFormat):
    """Batch by batch, of which nothing is copied that is a string already."""

    what = "a table in memory"
    named_by = "the columns"
    is_text = False
    has_header = True

    def columns(self, source: Source) -> list[str]:
        return list(source.table.column_names)

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        check_columns(source, wanted, self.columns(source))
        for part in self.arrow(source, list(wanted), batch_rows):
            yield [arrow_strings(source, column) for column in part.columns]

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        for part in self.arrow(source, None, batch_rows):
            yield WholeRows(part.schema.names, part.columns, part.schema.metadata)

    def schema(self, source: Source) -> pa.Schema:
        return source.table.schema

    def arrow(self, source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        table = source.table if columns is None else source.table.select(columns)
        for batch in table.to_batches(batch_rows):
            yield from parts_of(batch, batch_rows=batch_rows)
