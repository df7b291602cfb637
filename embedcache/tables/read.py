"""The door: from a path to the columns that are in the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from io import RawIOBase
from pathlib import Path
from typing import Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.explain import explained
from embedcache.tables.formats import FORMATS
from embedcache.tables.formats.arrow_table import ArrowTable
from embedcache.tables.formats.base import WholeRows
from embedcache.tables.memory import Frame
from embedcache.tables.packing import PACKINGS
from embedcache.tables.source import Source, existing_file, known_encoding
from embedcache.tables.stream import STREAM, Stored, Table

DIGEST_ROWS = 8192  # of a table in memory, together
OTHERS = {
    ".xls": "save it as .xlsx or .csv",
    ".ods": "save it as .xlsx or .csv",
    ".pkl": "it may hold any code and is never opened; write Parquet, as with df.to_parquet",
    ".pickle": "it may hold any code and is never opened; write Parquet, as with df.to_parquet",
}


def open_source(
    path: Table, *, encoding: str = "utf-8", separator: str | None = None, sheet: str | None = None
) -> Source:
    """A file to read, by its path alone: that it exists, and what its last suffixes say that it is.

    Args:
        path: a file, what came through a stream, or a table in memory.
        encoding: of text; a byte order mark goes before UTF-8.
        separator: of .csv and .tsv, a character or "tab"; None means as the file shows.
        sheet: of a workbook, None means the first; or the table of a database, None means the only one.

    Raises:
        EmbedcacheError: there is no such file, its kind is unknown, or an option cannot be used.
    """
    if isinstance(path, Frame):
        return Source(str(path), ArrowTable(), table=path.arrow)
    copy = path.file if isinstance(path, Stored) else None
    compression, suffix = suffixes(Path(path.known_as or path.name if isinstance(path, Stored) else path))
    path = path.name if isinstance(path, Stored) else Path(path)
    if copy is None:
        existing_file(Path(path))
    elif suffix not in FORMATS:
        suffix = STREAM
    format = FORMATS.get(suffix)
    if format is None or (compression and not format.is_text):
        advice = OTHERS.get(suffix, "rename or convert it")
        packed = [suffix for suffix, format in FORMATS.items() if format.is_text]
        raise EmbedcacheError(
            f"{path}: unknown kind of file '{suffix + compression}': {advice}; known are {', '.join(FORMATS)}, and "
            f"with {', '.join(PACKINGS)} after it each of {', '.join(packed)}"
        )
    return Source(path, format, compression, known_encoding(encoding), known_separator(separator), sheet, copy=copy)


def source_digest(source: Source) -> str:
    """Hex digest of all that is in a table."""
    if source.table is None:
        return content_digest(source.file)
    import pyarrow as pa

    digest = blake2b(digest_size=32)
    with pa.ipc.new_stream(_Digesting(digest), source.table.schema) as stream:
        for batch in source.table.to_batches(DIGEST_ROWS):
            stream.write_batch(batch)
    return digest.hexdigest()


class _Digesting(RawIOBase):
    """A file of which nothing but the digest stays."""

    def __init__(self, digest: Any) -> None:
        self.digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return memoryview(data).nbytes


def content_digest(file: Path) -> str:
    """Hex digest of a file's bytes."""
    digest = blake2b(digest_size=32)
    with file.open("rb") as stream:
        while data := stream.read(1 << 22):
            digest.update(data)
    return digest.hexdigest()


def suffixes(path: Path) -> tuple[str, str]:
    """(.gz or the like, or "", and the suffix before it) of a file's name, in small letters."""
    compression = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    return compression, Path(path.stem).suffix.lower() if compression else path.suffix.lower()


def known_separator(separator: str | None) -> str | None:
    """One character. Raises EmbedcacheError for any other, and for what cells may begin and end with."""
    found = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
    if found is not None and (len(found) != 1 or found in '"\r\n\0 '):
        raise EmbedcacheError(f"--separator {separator!r} is not one character such as ; or |, or the word tab")
    return found


def columns_of(source: Source) -> list[str]:
    """The columns of a file: its header, its schema, or of JSON the keys of its first 8,192 rows."""
    with explained(source):
        return source.format.columns(source)


def read_batches(
    source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
) -> Iterator[list[list[Any] | Any]]:
    """What ``Format.batches`` gives, its errors in one line."""
    with explained(source):
        yield from source.format.batches(source, wanted, required, batch_rows)


def read_whole(source: Source, batch_rows: int) -> Iterator[WholeRows]:
    """What ``Format.whole`` gives, its errors in one line."""
    with explained(source):
        yield from source.format.whole(source, batch_rows)
