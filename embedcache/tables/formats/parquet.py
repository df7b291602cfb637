""".parquet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from embedcache.common.machine import check_memory, size
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.arrow_values import not_utf8, parts_of, together
from embedcache.tables.formats.arrow_writer import ArrowWriter
from embedcache.tables.formats.base import ArrowFormat, Sign
from embedcache.tables.limits import BATCH_BYTES
from embedcache.tables.source import Source, one_line

if TYPE_CHECKING:
    import pyarrow as pa

FEW_ROWS = 1024  # that are decoded together where a dictionary may hold texts of any length
PAGE_ROWS = 1024  # of a page at most, as pyarrow writes them, where rows are long
DICTIONARY = 4 << 20  # bytes; writers give it one or two MB


class ParquetWriter(ArrowWriter):
    """Zstandard-compressed."""

    def open(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def abandon(self) -> None:
        self._writer.is_open = False  # or else pyarrow writes the footer when it forgets the writer


class Parquet(ArrowFormat):
    suffixes = (".parquet",)
    what = "Parquet"
    named_by = "the schema"
    signs = (Sign(b"PAR1", "a Parquet file", "name it .parquet"),)
    writer = ParquetWriter

    def schema(self, source: Source) -> pa.Schema:
        return _open(source).schema_arrow

    def arrow(self, source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        return _record_batches(source, columns, batch_rows)


def _record_batches(source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[Any]:
    """Batches of the columns named, or of all, of as many rows as fit BATCH_BYTES.

    How long rows are is known only once they are read: they come a few at a time, and are put together. A text that
    stands in many rows may be in the file once, as a dictionary has it; it is kept so until its rows are counted.
    """
    import pyarrow as pa

    file = _open(source)
    coded = _coded(file.metadata, file.schema_arrow)
    if coded:
        file = _open(source, coded)
    groups = [file.metadata.row_group(group) for group in range(file.num_row_groups)]
    for pages, rows, length in sorted((_sizes(group, columns) for group in groups), reverse=True)[:1]:
        _check_pages(source, pages, rows, length)
    try:
        for group in range(file.num_row_groups):  # asked for all at once, Arrow keeps them all in memory
            _, _, length = _sizes(groups[group], columns)
            rows = max(1, min(batch_rows, FEW_ROWS, int(BATCH_BYTES / max(length, 1))))
            parts = (
                part
                for batch in file.iter_batches(rows, row_groups=[group], columns=columns)
                for part in parts_of(batch, coded)
            )
            for batch in together(parts, batch_rows):
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


def _coded(metadata: Any, schema: Any) -> list[str]:
    """Columns of strings that some row group holds as little more than a dictionary and numbers of four bytes."""
    import pyarrow as pa

    found = []
    for i in range(metadata.num_columns):
        path = metadata.schema.column(i).path
        if path not in schema.names or schema.field(path).type not in (pa.string(), pa.large_string()):
            continue
        chunks = [metadata.row_group(group).column(i) for group in range(metadata.num_row_groups)]
        if any(
            "RLE_DICTIONARY" in chunk.encodings and chunk.total_uncompressed_size <= 4 * chunk.num_values + DICTIONARY
            for chunk in chunks
        ):
            found.append(path)
    return found


def _sizes(group: Any, columns: list[str] | None) -> tuple[float, int, float]:
    """A row group's unpacked sizes: bytes of the largest pages, rows in them, mean bytes of a row."""
    rows, total = max(group.num_rows, 1), 0
    for i in range(group.num_columns):
        chunk = group.column(i)
        if columns is None or chunk.path_in_schema.split(".")[0] in columns:
            total += chunk.total_uncompressed_size
    together = min(rows, PAGE_ROWS)
    return total * together / rows, together, total / rows


def _check_pages(source: Source, pages: float, rows: int, length: float) -> None:
    """Parquet unpacks a whole page at a time. Raises EmbedcacheError where one does not fit the memory."""
    if pages > BATCH_BYTES:
        check_memory(
            1.2 * pages,
            f"{source.path}: pages of {rows:,} rows of {size(length)}",
            "write it again with smaller row groups (row_group_size=100), or use a machine with more memory",
        )


def _open(source: Source, coded: list[str] | None = None) -> Any:
    """``coded``: columns to keep as dictionaries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Without a buffer's size a whole column of a row group is read.
        file = pq.ParquetFile(source.file, buffer_size=1 << 20, read_dictionary=coded)
        _ = file.schema_arrow.names  # which may be what is broken
        return file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise EmbedcacheError(
            f"{source.path}: not a Parquet file, or cut off ({one_line(error)}): copy or write it again"
        ) from error
