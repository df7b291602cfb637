"""One input file: how it is packed, and where exactly it is broken.

The fast path (``readers.py``) only notices that something is wrong; what it is, and on which line, is found by reading
the file once more, slowly (``numbered``, ``explain``, ``bad_byte``).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from embedcache.errors import EmbedcacheError

FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".txt")
COMPRESSIONS = (".gz", ".bz2", ".zst")


@dataclass(frozen=True)
class Source:
    """One input file: its path, what it holds, how it is packed, in which encoding."""

    path: Path
    format: str
    compression: str
    encoding: str

    @property
    def delimited(self) -> bool:
        return self.format in (".csv", ".tsv")

    @property
    def separator(self) -> str:
        return "\t" if self.format == ".tsv" else ","

    def binary(self) -> Any:
        """The uncompressed bytes, as a binary file."""
        if self.compression == ".gz":
            import gzip

            return gzip.open(self.path, "rb")
        if self.compression == ".bz2":
            import bz2

            return bz2.open(self.path, "rb")
        if self.compression == ".zst":
            import pyarrow as pa

            return BufferedReader(pa.input_stream(str(self.path), compression="zstd"))
        return self.path.open("rb")

    def text(self) -> TextIOWrapper:
        """The decoded lines. A CSV's line ends stay as they are: they may be part of a quoted cell."""
        return TextIOWrapper(self.binary(), encoding=self.encoding, newline="" if self.delimited else None)

    def csv_reader(self, lines: Iterable[str]) -> Any:
        csv.field_size_limit(2**31 - 1)  # the default refuses a text of over 131,072 characters
        return csv.reader(lines, delimiter=self.separator, strict=True)

    def parquet(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(self.path, buffer_size=1 << 20)  # or else a whole column of a row group is read
            _ = file.schema_arrow.names  # which may be what is broken
            return file
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise EmbedcacheError(
                f"{self.path}: not a Parquet file, or cut off ({one_line(error)}): copy or write it again"
            ) from error


def open_source(path: Path, encoding: str) -> Source:
    """Look at the path alone: is it there, and what do its last extensions say that it is."""
    existing_file(path)
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    format = Path(path.stem).suffix.lower() if compression else path.suffix.lower()
    if format not in FORMATS or (compression and format == ".parquet"):
        hint = " (an array of JSON objects must become one object a line: .jsonl)" if format == ".json" else ""
        raise EmbedcacheError(
            f"{path}: unknown kind of file '{format + compression}': rename or convert it{hint}; known are "
            f"{', '.join(FORMATS)}, each but Parquet also with {', '.join(COMPRESSIONS)}"
        )
    return Source(path, format, compression, known_encoding(encoding))


def existing_file(path: Path) -> Path:
    if not path.exists():
        raise EmbedcacheError(f"{path}: no such file: check the path")
    if path.is_dir():
        raise EmbedcacheError(f"{path} is a directory: name the files in it, as in {path}/*.csv")
    if not path.is_file():
        raise EmbedcacheError(f"{path} is not a regular file: save the data to a file first")
    return path


def known_encoding(encoding: str) -> str:
    try:
        "".encode(encoding)
        name = codecs.lookup(encoding).name
    except LookupError:
        raise EmbedcacheError(
            f"unknown encoding '{encoding}': pass one that Python knows, as in --encoding cp1252"
        ) from None
    return "utf-8-sig" if name == "utf-8" else name  # swallows a byte order mark, if there is one


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what the decoders raise into one line that a user can act on."""
    try:
        try:
            yield
        except UnicodeDecodeError as error:
            if source.format == ".parquet":
                raise EmbedcacheError(f"{source.path}: holds text that is not UTF-8: write it again") from error
            bad_byte(source)  # reads it again, and may find what is wrong with the packing
    except (EOFError, zlib.error, OSError) as error:
        packed = f": a damaged or cut off {source.compression} file? Copy or pack it again"
        raise EmbedcacheError(
            f"{source.path}: cannot be read ({one_line(error)}){packed if source.compression else ''}"
        ) from error


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_columns(source: Source, wanted: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise unless every wanted column is there, once."""
    for name, option in wanted.items():
        count = list(names).count(name)
        if count > 1:
            raise EmbedcacheError(f"{source.path} has {count} columns named '{name}' ({option}): rename all but one")
        if count == 1:
            continue
        folded = {other.lower(): other for other in names}
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        meant = f" (did you mean '{folded[close[0]]}'?)" if close else ""
        shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
        separator = [mark for mark in ";\t|" if source.delimited and len(names) == 1 and mark in names[0]]
        advice = f"it seems to be separated by {separator[0]!r}: write it with commas, or " if separator else ""
        raise EmbedcacheError(
            f"{source.path} has no column '{name}'{meant}; it has: {shown}; {advice}choose with {option}"
        )


# The slow second reading, after something was found wrong.


def numbered(source: Source) -> Iterator[tuple[int, Any]]:
    """(first line, record) of every record; raises the error of the first record that cannot be read."""
    with source.text() as file:
        if source.format == ".txt":
            yield from enumerate(file, 1)
        elif source.delimited:
            yield from _numbered_csv(source, source.csv_reader(file))
        else:
            for line, text in enumerate(file, 1):
                if not text.isspace():
                    yield line, _parsed(source, line, text)


def _numbered_csv(source: Source, reader: Any) -> Iterator[tuple[int, list[str]]]:
    line = 1
    try:
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise EmbedcacheError(
            f"{source.path} line {line}: broken quoting in the row that starts here ({error}): "
            'close its quotes, and write a " inside a quoted cell as ""'
        ) from error


def _parsed(source: Source, line: int, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EmbedcacheError(
            f"{source.path} line {line}: not JSON ({one_line(error)}): each line must be one JSON object"
        ) from error


def explain(source: Source, required: set[str] | None = None) -> NoReturn:
    """Find the first record that is wrong and say why."""
    width = None
    for line, record in numbered(source):
        where = f"{source.path} line {line}"
        if source.delimited:
            width = width or len(record)
            if len(record) != width:
                raise EmbedcacheError(
                    f"{where}: {len(record)} fields where the header has {width}: fill every column, and put a text "
                    "that holds the separator or a line break in double quotes"
                )
        elif not isinstance(record, dict):
            raise EmbedcacheError(f'{where}: not a JSON object: each line must be one, as in {{"text": "..."}}')
        elif lacking := sorted((required or set()) - record.keys()):
            raise EmbedcacheError(f"{where}: no '{lacking[0]}' in this row, which has: {', '.join(record)}: add it")
    raise EmbedcacheError(f"{source.path}: changed while it was read: run again")


def place(source: Source, row: int) -> str:
    """Where the file's row (counted from 0) is: its first line, or in Parquet its row counted from 1."""
    if source.format == ".parquet":
        return f"row {row + 1}"
    return f"line {next(islice(numbered(source), row + source.delimited, None))[0]}"


def bad_byte(source: Source) -> NoReturn:
    """Name the first byte that the encoding does not have."""
    decoder = codecs.getincrementaldecoder(source.encoding)()
    name = "UTF-8" if source.encoding == "utf-8-sig" else source.encoding
    offset, line, start = 0, 1, b""
    with source.binary() as file:
        while True:
            chunk = file.read(1 << 20)
            start = start or chunk[:2]
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object ends where the chunk ends, and may begin with bytes kept from the one before.
                at = len(chunk) - len(error.object) + error.start
                line += chunk.count(b"\n", 0, max(0, at))
                guess = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "cp1252 or shift_jis"
                raise EmbedcacheError(
                    f"{source.path}: not {name}: byte {offset + at} (line {line}) is "
                    f"0x{error.object[error.start]:02x}: pass its encoding, as in --encoding {guess}"
                ) from None
            if not chunk:
                raise EmbedcacheError(f"{source.path}: changed while it was read: run again")
            offset += len(chunk)
            line += chunk.count(b"\n")
