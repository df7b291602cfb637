"""Columns of a table into a file that pyarrow writes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from embedcache.tables.formats.values import arrow_column
from embedcache.tables.formats.writer import TableLayout, TableWriter
from embedcache.tables.packing import KeptOpen

if TYPE_CHECKING:
    import pyarrow as pa


class ArrowWriter(TableWriter):
    has_types = True

    def __init__(self, file: BinaryIO, layout: TableLayout) -> None:
        import pyarrow as pa

        super().__init__(file, layout)
        assert layout.types is not None
        fields = [pa.field(name, self.stored(kind)) for name, kind in zip(layout.names, layout.types, strict=True)]
        self._schema = pa.schema(fields, layout.metadata or None)
        self._sink = pa.PythonFile(KeptOpen(file), mode="w")
        self._writer = self.open()

    def stored(self, kind: pa.DataType) -> pa.DataType:
        """The type that the format keeps of a type."""
        return kind

    @abstractmethod
    def open(self) -> Any:
        """pyarrow's writer of ``_schema`` into ``_sink``."""

    def write(self, columns: Sequence[Any]) -> None:
        import pyarrow as pa

        arrays = [arrow_column(one, kind) for one, kind in zip(columns, self._schema.types, strict=True)]
        arrays = [
            one if one.type == kind else one.cast(kind) for one, kind in zip(arrays, self._schema.types, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        self._writer.close()
