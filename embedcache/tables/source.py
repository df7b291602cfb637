"""One input: where it is, how it is packed and encoded."""

from __future__ import annotations

import codecs
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.limits import bounded, most_bytes
from embedcache.tables.packing import PACKINGS

if TYPE_CHECKING:
    from embedcache.tables.formats.base import Format

# A byte order mark and the encoding that it stands for; UTF-32's begins as UTF-16's does.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class BrokenQuotingError(EmbedcacheError):
    """The parser of a delimited text stops in a row; that of Python 3.10 at the first zero byte, too."""


class NoColumnError(EmbedcacheError):
    """A table has no column of that name; perhaps the file is of another kind than its name says."""


@dataclass(frozen=True)
class Source:
    """One input file and how it is to be read.

    Attributes:
        compression: the last suffix, or "".
        asked: the encoding of text that was asked for.
        separator: between the cells of a CSV; None means as the file shows.
        sheet: of a workbook; None means the first.
        most: bytes that one text may have.
        path: the file, or what messages call the input.
        copy: where the bytes are of what came through a stream.
        table: in place of a file, a pyarrow.Table.
    """

    path: Path | str
    format: Format
    compression: str = ""
    asked: str = "utf-8-sig"
    separator: str | None = None
    sheet: str | None = None
    most: int = field(default_factory=most_bytes)
    copy: Path | None = None
    table: Any = field(default=None, compare=False)

    @property
    def file(self) -> Path:
        """What is to be opened."""
        return self.copy or Path(self.path)

    @cached_property
    def encoding(self) -> str:
        """What was asked for, or in place of UTF-8 what a byte order mark says; UTF-8's own mark is left out."""
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
        if self.compression:
            return PACKINGS[self.compression].unpacked(self.file)
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


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def check_columns(source: Source, wanted: Mapping[str, str], names: Sequence[str]) -> None:
    """Raise EmbedcacheError unless every wanted column is there, once; NoColumnError where one is missing."""
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
        advice = source.format.advice(source, names)
        raise NoColumnError(
            f"{source.path} has no column '{name}'{meant}; it has: {shown}; {advice}choose with {option}"
        )


def changed(source: Source) -> EmbedcacheError:
    """The error for a file in which a second reading finds nothing wrong."""
    return EmbedcacheError(f"{source.path}: changed while it was read: run again")
