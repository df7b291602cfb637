"""Tables in memory, as Arrow has them: no file, and so no suffix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from embedcache.tables.formats.arrow_values import parts_of
from embedcache.tables.formats.base import ArrowFormat
from embedcache.tables.source import Source

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowTable(ArrowFormat):
    """Batch by batch, of which nothing is copied that is a string already."""

    what = "a table in memory"
    named_by = "the columns"

    def schema(self, source: Source) -> pa.Schema:
        return source.table.schema

    def arrow(self, source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        table = source.table if columns is None else source.table.select(columns)
        for batch in table.to_batches(batch_rows):
            yield from parts_of(batch, batch_rows=batch_rows)
