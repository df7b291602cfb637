""".arrow and .feather: Arrow's own files, and its streams, as Hugging Face's datasets keep them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.arrow_values import not_utf8, parts_of
from embedcache.tables.formats.arrow_writer import ArrowWriter
from embedcache.tables.formats.base import ArrowFormat, Sign
from embedcache.tables.source import Source, one_line

if TYPE_CHECKING:
    import pyarrow as pa

FILE, OLD = b"ARROW1", b"FEA1"  # how a file begins; a stream has no such mark


class ArrowFileWriter(ArrowWriter):
    """Arrow's file format."""

    def stored(self, kind: pa.DataType) -> pa.DataType:
        import pyarrow as pa

        return kind.value_type if pa.types.is_dictionary(kind) else kind  # a file has one dictionary for all batches

    def open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(self._sink, self._schema)


class FeatherWriter(ArrowFileWriter):
    def open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(self._sink, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


class ArrowIpc(ArrowFormat):
    """Record batch by record batch, of a file only the columns that are wanted."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".ipc")
    what = "Arrow files and streams, as pandas, polars and Hugging Face's datasets write them"
    named_by = "the schema"
    signs = (Sign(FILE, "an Arrow file", "name it .arrow"),)
    writer = ArrowFileWriter

    def schema(self, source: Source) -> pa.Schema:
        with _opened(source) as (reader, _):
            return reader.schema

    def arrow(self, source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        with _opened(source, columns) as (_, batches):
            for batch in batches:
                picked = batch if columns is None else batch.select(columns)
                _validate(source, picked.columns)
                yield from parts_of(picked, batch_rows=batch_rows)


class Feather(ArrowIpc):
    """The same, written with the compression that is usual in files of this name."""

    suffixes = (".feather",)
    writer = FeatherWriter


def _validate(source: Source, columns: list[Any]) -> None:
    """A file may state offsets that point anywhere."""
    import pyarrow as pa

    try:
        for column in columns:
            column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise (not_utf8 if "UTF8" in str(error) else _damaged)(source, error) from error


@contextmanager
def _opened(source: Source, columns: list[str] | None = None) -> Iterator[tuple[Any, Iterator[Any]]]:
    """A reader with a schema, and the record batches, of a file with ``columns`` alone."""
    import pyarrow as pa

    with source.binary() as file:
        start = file.read(len(FILE))
    if start.startswith(OLD):
        raise EmbedcacheError(
            f"{source.path}: a Feather file of version 1: write it again with pyarrow.feather.write_feather"
        )
    try:
        with pa.OSFile(str(source.file)) as file:
            if start == FILE:
                reader = pa.ipc.open_file(file)
                if columns is not None:
                    places = [reader.schema.get_field_index(name) for name in columns]
                    reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=places))
                batches = map(reader.get_batch, range(reader.num_record_batches))
            else:
                reader = pa.ipc.open_stream(file)
                batches = iter(reader)
            yield reader, batches
    except UnicodeDecodeError as error:
        raise not_utf8(source, error) from error
    except (pa.ArrowException, OSError) as error:
        raise _damaged(source, error) from error


def _damaged(source: Source, error: Exception) -> EmbedcacheError:
    return EmbedcacheError(
        f"{source.path}: not an Arrow file or stream, or a damaged one ({one_line(error)}): copy or write it again"
    )
