""".parquet, .arrow and .feather, and tables in memory: a column of lists, of fixed-size lists, or of structs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.tables.explain import explained
from embedcache.tables.formats.base import ArrowFormat
from embedcache.tables.read import open_source
from embedcache.tables.stream import Table
from embedcache.vectors.formats.base import VectorFile, VectorFormat, choose

if TYPE_CHECKING:
    import pyarrow as pa

FEW_ROWS = 1024  # whose width is not known before they are read


class ArrowColumns(VectorFormat):
    suffixes = (".parquet", ".arrow", ".ipc", ".feather")
    what = "a column of lists, of fixed-size lists, or of structs of numbers"
    is_table = True

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return ArrowFile(table, column)


class ArrowFile(VectorFile):
    """``column`` may be a path into structs, such as response.embedding."""

    def __init__(self, table: Table, column: str | None) -> None:
        super().__init__(str(table))
        self._table, self._source = table, open_source(table)
        assert isinstance(self._source.format, ArrowFormat)
        self._format = self._source.format
        with explained(self._source):
            schema = self._format.schema(self._source)
        if column is not None and column not in schema.names and column.split(".")[0] in schema.names:
            self._path = column.split(".")
        else:
            found = [field.name for field in schema if _holds_vectors(field.type)]
            self._path = [choose(self.name, found, column, schema.names, "column of vectors")]
        self.column = ".".join(self._path)

    @property
    def table(self) -> Table:
        return self._table

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        row = 0
        with explained(self._source):
            for batch in self._format.arrow(self._source, self._path[:1], FEW_ROWS):
                row += len(batch)
                if row > first:
                    part = batch.slice(max(0, first - (row - len(batch))))
                    yield self._matrix(part.column(0), row - len(part))

    def _matrix(self, column: pa.Array, first: int) -> np.ndarray:
        """[n, D] of the rows from ``first`` on."""
        import pyarrow as pa

        column = _plain(column)
        for name in self._path[1:]:
            if not pa.types.is_struct(column.type) or column.type.get_field_index(name) < 0:
                raise EmbedcacheError(f"{self.name}: no field {name!r} in {self._path[0]}: choose with --vector")
            self._check_nulls(column, first)
            column = _plain(column.field(name))
        self._check_nulls(column, first)
        if pa.types.is_struct(column.type):
            fields = [column.field(i) for i in range(column.type.num_fields)]
            if not fields or not all(_is_number(one.type) for one in fields):
                raise EmbedcacheError(f"{self.name}: the structs of {self.column} hold more than numbers: name a field")
            for one in fields:
                self._check_nulls(one, first)
            return np.stack([np.asarray(one) for one in fields], axis=1)
        if not _is_list(column.type) or not _is_number(column.type.value_type):
            raise EmbedcacheError(f"{self.name}: the column {self.column} holds {column.type}, not lists of numbers")
        lengths = np.asarray(
            column.value_lengths() if not _is_fixed(column.type) else [column.type.list_size] * len(column)
        )
        wrong = np.flatnonzero(lengths != lengths[:1])
        if len(wrong):
            raise EmbedcacheError(
                f"{self.place(first + int(wrong[0]))}: the vector has {lengths[wrong[0]]:,} numbers, not {lengths[0]:,}"
            )
        flat = column.flatten()
        if flat.null_count:
            bad = int(np.asarray(flat.is_null()).argmax()) // int(lengths[0])
            raise EmbedcacheError(f"{self.place(first + bad)}: the vector holds null: leave the row out")
        return np.asarray(flat).reshape(len(column), -1)

    def _check_nulls(self, column: pa.Array, first: int) -> None:
        if column.null_count:
            bad = int(np.asarray(column.is_null()).argmax())
            raise EmbedcacheError(f"{self.place(first + bad)}: no vector, but null in {self.column}: leave the row out")


def _plain(column: pa.Array) -> pa.Array:
    """Without the names that extensions give a type."""
    return column.storage if hasattr(column, "storage") else column


def _is_fixed(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_fixed_size_list(kind))


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or _is_fixed(kind))


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _holds_vectors(kind: pa.DataType) -> bool:
    import pyarrow as pa

    kind = getattr(kind, "storage_type", kind)
    if pa.types.is_struct(kind):
        return kind.num_fields > 1 and all(_is_number(kind.field(i).type) for i in range(kind.num_fields))
    return _is_list(kind) and _is_number(kind.value_type)
