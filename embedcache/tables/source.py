"""One input file: where it is, how it is packed and encoded, and what is wrong with its bytes."""

from __future__ import annotations

import codecs
import difflib
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from embedcache.errors import EmbedcacheError
from embedcache.tables.limits import TooLongError, bounded, most_bytes, too_long

if TYPE_CHECKING:
    from embedcache.tables.formats.base import Format

COMPRESSIONS = (".gz", ".bz2", ".zst")
# A byte order mark and the encoding that it stands for; UTF-32's begins as UTF-16's does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# How files begin that are often given the name of a table of text.
SIGNS = {
    b"PK\x03\x04": ("a workbook or another zip archive", "name it .xlsx, or unpack it"),
    b"\xd0\xcf\x11\xe0": ("an old workbook", "save it as .xlsx or .csv"),
    b"PAR1": ("a Parquet file", "name it .parquet"),
    b"ARROW1": ("an Arrow file", "name it .arrow"),
    b"\x1f\x8b": ("packed by gzip", "add .gz to its name"),
    b"BZh": ("packed by bzip2", "add .bz2 to its name"),
    b"\x28\xb5\x2f\xfd": ("packed by zstd", "add .zst to its name"),
}


@dataclass(frozen=True)
class Source:
    """One input file and how it is to be read.

    Attributes:
        compression: the last suffix, or "".
        asked: the encoding of text that was asked for.
        separator: between the cells of a CSV; None means as the file shows.
        sheet: of a workbook; None means the first.
        most: bytes that one text may have.
        copy: where the bytes are of what came through a stream; ``path`` is then its name.
    """

    path: Path
    format: Format
    compression: str = ""
    asked: str = "utf-8-sig"
    separator: str | None = None
    sheet: str | None = None
    most: int = field(default_factory=most_bytes)
    copy: Path | None = None

    @property
    def file(self) -> Path:
        """What is to be opened."""
        return self.copy or self.path

    @cached_property
    def encoding(self) -> str:
        """What was asked for, or in place of UTF-8 what a byte order mark says; UTF-8's own mark is no text."""
        if self.asked != "utf-8-sig":
            return self.asked
        with self.binary() as file:
            start = file.read(4)
        return next((encoding for mark, encoding in MARKS.items() if start.startswith(mark)), self.asked)

    def binary(self) -> Any:
        """The uncompressed bytes, as a binary file; reading a line that is too long raises TooLongError."""
        file = self.unpacked()
        return bounded(file, self.most) if self.format.by_lines else file

    def unpacked(self) -> Any:
        """The same, whatever its lines."""
        if self.compression == ".gz":
            import gzip

            return gzip.open(self.file, "rb")
        if self.compression == ".bz2":
            import bz2

            return bz2.open(self.file, "rb")
        if self.compression == ".zst":
            import pyarrow as pa

            return BufferedReader(pa.input_stream(str(self.file), compression="zstd"))
        return self.file.open("rb")

    def text(self, newline: str | None = None) -> TextIOWrapper:
        """The decoded text; ``newline`` as in ``open``: "" leaves line ends as they are."""
        encoding = self.encoding  # a pass of its own over the first bytes
        return TextIOWrapper(self.binary(), encoding=encoding, newline=newline)


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
            if not source.format.is_text:
                raise EmbedcacheError(f"{source.path}: holds text that is not UTF-8: write it again") from error
            bad_byte(source)  # reads it again, and may find what is wrong with the packing
    except TooLongError as error:
        raise too_long(
            f"{source.path} line {_line_at(source, error.offset)}", source.most, "cut it, check its line ends"
        ) from None
    except (EOFError, zlib.error, OSError) as error:
        packed = f": a damaged or cut off {source.compression} file? Copy or pack it again"
        raise EmbedcacheError(
            f"{source.path}: cannot be read ({one_line(error)}){packed if source.compression else ''}"
        ) from error


def _line_at(source: Source, offset: int) -> int:
    """The number of the line that begins at that byte of the unpacked file."""
    line = 1
    with source.unpacked() as file:
        while offset > 0 and (part := file.read(min(offset, 1 << 20))):
            line += part.count(b"\n") or part.count(b"\r")
            offset -= len(part)
    return line


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def refuse_other_kind(source: Source) -> None:
    """Raise where a file that was read as text begins as something else does: its name is wrong, not its encoding."""
    if not source.format.is_text:
        return
    with source.unpacked() as file:
        start = file.read(64)
    for sign, (what, advice) in SIGNS.items():
        if start.startswith(sign):
            raise EmbedcacheError(f"{source.path} is {what}, whatever its name says: {advice}")
    for encoding, zeros in {"utf-16-le": start[1::2], "utf-16-be": start[::2]}.items():
        if source.encoding == "utf-8-sig" and len(zeros) > 4 and zeros.count(0) > len(zeros) // 2:
            raise EmbedcacheError(
                f"{source.path}: every second byte is zero, as in UTF-16 without a byte order mark: pass --encoding "
                f"{encoding}"
            )


def check_columns(source: Source, wanted: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise unless every wanted column is there, once."""
    for name, option in wanted.items():
        count = list(names).count(name)
        if count > 1:
            raise EmbedcacheError(f"{source.path} has {count} columns named '{name}' ({option}): rename all but one")
        if count == 1:
            continue
        refuse_other_kind(source)
        folded = {other.lower(): other for other in names}
        close = difflib.get_close_matches(name.lower(), folded, n=1)
        meant = f" (did you mean '{folded[close[0]]}'?)" if close else ""
        shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
        advice = source.format.advice(source, names)
        raise EmbedcacheError(
            f"{source.path} has no column '{name}'{meant}; it has: {shown}; {advice}choose with {option}"
        )


def bad_byte(source: Source) -> NoReturn:
    """Name the first byte that the encoding does not have."""
    refuse_other_kind(source)
    decoder = codecs.getincrementaldecoder(source.encoding)()
    name = "UTF-8" if source.encoding == "utf-8-sig" else source.encoding
    offset, line = 0, 1
    with source.binary() as file:
        while True:
            chunk = file.read(1 << 20)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                # error.object ends where the chunk ends, and may begin with bytes kept from the one before.
                at = len(chunk) - len(error.object) + error.start
                line += chunk.count(b"\n", 0, max(0, at))
                advice = "pass its encoding, as in --encoding cp1252 or shift_jis"
                if name in MARKS.values():
                    advice = "is it cut off, or only in part in this encoding? Copy or write it again"
                raise EmbedcacheError(
                    f"{source.path}: not {name}: byte {offset + at} (line {line}) is "
                    f"0x{error.object[error.start]:02x}: {advice}"
                ) from None
            if not chunk:
                raise changed(source)
            offset += len(chunk)
            line += chunk.count(b"\n")


def changed(source: Source) -> EmbedcacheError:
    """What is left where a second reading finds nothing wrong."""
    return EmbedcacheError(f"{source.path}: changed while it was read: run again")
