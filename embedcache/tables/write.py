"""Tables that are written, in the format that the output's name says: a class a format, and one line in WRITERS."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

from embedcache.common.frames import free_names
from embedcache.common.whole_file import Output, output_target
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.base import ABSENT
from embedcache.tables.read import suffixes
from embedcache.tables.source import COMPRESSIONS
from embedcache.tables.stream import STREAM
from embedcache.tables.values import arrow_column, cell, json_text, listed

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass
class Layout:
    """The columns of a table that is to be written.

    Attributes:
        names: of the columns, in order.
        types: of each the Arrow type; None: only formats without types can be written.
        metadata: of the Arrow schema, kept in formats that have one.
    """

    names: list[str]
    types: list[pa.DataType] | None = None
    metadata: dict[bytes, bytes] = field(default_factory=dict)


class TableWriter(ABC):
    """Writes a table into an open binary file, batch by batch, and only ever at its end.

    Attributes:
        suffixes: of its files' names.
        is_text: it may also be compressed.
        has_types: it needs ``Layout.types``.
        nests: a cell may be an object or a list of any kind.
        may_repeat: two columns may have one name.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    is_text = True
    has_types = False
    nests = False
    may_repeat = False

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        self.file, self.layout = file, layout

    @abstractmethod
    def write(self, columns: Sequence[Any]) -> None:
        """Rows, as a column for each name: an Arrow array or a list of values, all of one length."""

    def close(self) -> None:  # noqa: B027 - most formats have no end
        """The end of the table. The file stays open."""

    def abandon(self) -> None:  # noqa: B027
        """In place of ``close`` where something failed: what was written must not look whole."""


class Csv(TableWriter):
    """UTF-8, a header, lines that end as RFC 4180 says; lists and objects are JSON, what is missing is empty."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)
    separator = ","
    may_repeat = True

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        super().__init__(file, layout)
        self._put([layout.names])

    def write(self, columns: Sequence[Any]) -> None:
        self._put(zip(*(map(cell, listed(column)) for column in columns), strict=True))

    def _put(self, rows: Iterable[Iterable[str]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=self.separator).writerows(rows)
        self.file.write(text.getvalue().encode("utf-8", "replace"))


class Tsv(Csv):
    """The same with tabs."""

    suffixes: ClassVar[tuple[str, ...]] = (".tsv",)
    separator = "\t"


class JsonLines(TableWriter):
    """An object a line; a key that the input's object lacked is lacking here."""

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")
    nests = True

    def write(self, columns: Sequence[Any]) -> None:
        self.file.write("".join(f"{line}\n" for line in self.lines(columns)).encode())

    def lines(self, columns: Sequence[Any]) -> Iterator[str]:
        names = self.layout.names
        for values in zip(*map(listed, columns), strict=True):
            yield json_text({name: v for name, v in zip(names, values, strict=True) if v is not ABSENT})


class JsonArray(JsonLines):
    """An array of objects, one a line."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        super().__init__(file, layout)
        self._before = "["

    def write(self, columns: Sequence[Any]) -> None:
        for line in self.lines(columns):
            self.file.write(f"{self._before}\n{line}".encode())
            self._before = ","

    def close(self) -> None:
        self.file.write(b"[]\n" if self._before == "[" else b"\n]\n")


class _Arrow(TableWriter):
    is_text = False
    has_types = True

    def __init__(self, file: BinaryIO, layout: Layout) -> None:
        import pyarrow as pa

        super().__init__(file, layout)
        assert layout.types is not None
        fields = [pa.field(name, self.stored(kind)) for name, kind in zip(layout.names, layout.types, strict=True)]
        self._schema = pa.schema(fields, layout.metadata or None)
        self._sink = pa.PythonFile(_KeptOpen(file), mode="w")
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


class Parquet(_Arrow):
    """Zstandard-compressed."""

    suffixes: ClassVar[tuple[str, ...]] = (".parquet",)

    def open(self) -> Any:
        import pyarrow.parquet as pq

        return pq.ParquetWriter(self._sink, self._schema, compression="zstd")

    def abandon(self) -> None:
        self._writer.is_open = False  # or else pyarrow writes the footer when it forgets the writer


class ArrowFile(_Arrow):
    """Arrow's file format, in Feather's name with the compression that is usual there."""

    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".feather", ".ipc")

    def stored(self, kind: pa.DataType) -> pa.DataType:
        import pyarrow as pa

        return kind.value_type if pa.types.is_dictionary(kind) else kind  # a file has one dictionary for all batches

    def open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(self._sink, self._schema)


class Feather(ArrowFile):
    suffixes: ClassVar[tuple[str, ...]] = (".feather",)

    def open(self) -> Any:
        import pyarrow as pa

        return pa.ipc.new_file(self._sink, self._schema, options=pa.ipc.IpcWriteOptions(compression="lz4"))


WRITERS: dict[str, type[TableWriter]] = {
    suffix: writer
    for writer in (Csv, Tsv, JsonLines, JsonArray, Parquet, ArrowFile, Feather)
    for suffix in writer.suffixes
}


@dataclass(frozen=True)
class Kind:
    """What an output's name says: the format, and the compression around it ("" for none)."""

    writer: type[TableWriter]
    compression: str = ""

    @contextmanager
    def open(self, output: Output, layout: Layout) -> Iterator[TableWriter]:
        """A writer of a whole table into ``output``. Raises EmbedcacheError where that cannot be written."""
        with ExitStack() as ends:
            file = ends.enter_context(output.binary())
            if self.compression:
                file = ends.enter_context(_packed(file, self.compression))
            writer = self.writer(file, layout if self.writer.may_repeat else _different(layout))
            try:
                yield writer
            except BaseException:
                writer.abandon()
                raise
            writer.close()


def _different(layout: Layout) -> Layout:
    """With names that are all different: of those that are alike, the second gets _2."""
    names: list[str] = []
    for name in layout.names:
        names.append(free_names(names, [name])[name])
    return replace(layout, names=names)


def kind_of(path: str | Path) -> Kind:
    """By the name alone, before anything is done. Raises EmbedcacheError for a name of no known format."""
    compression, suffix = suffixes(Path(path))
    writer = WRITERS.get(suffix)
    if writer is not None and (not compression or writer.is_text):
        return Kind(writer, compression)
    if output_target(path) is None:
        return Kind(WRITERS[STREAM])
    text = [suffix for suffix, one in WRITERS.items() if one.is_text]
    ending = suffix + compression
    what = f"tables are not written as '{ending}'" if ending else "nothing behind its name says the format"
    raise EmbedcacheError(
        f"{path}: {what}: name one of {', '.join(WRITERS)}, or with "
        f"{', '.join(COMPRESSIONS)} after it one of {', '.join(text)}"
    )


@contextmanager
def _packed(file: BinaryIO, compression: str) -> Iterator[Any]:
    """Compresses into ``file``, which stays open; the same bytes for the same table, at whatever time."""
    if compression == ".gz":
        import gzip

        with gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
            yield packed
    elif compression == ".bz2":
        import bz2

        with bz2.open(file, "wb") as packed:
            yield packed
    else:
        import pyarrow as pa

        with pa.CompressedOutputStream(pa.PythonFile(_KeptOpen(file), mode="w"), "zstd") as packed:
            yield packed


class _KeptOpen:
    """A file that Arrow may close without closing it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush = file.write, file.flush

    def close(self) -> None:
        self.closed = True
