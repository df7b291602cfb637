"""What is wrong with the bytes of an input file, in one line."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import FORMATS
from embedcache.tables.formats.base import Sign
from embedcache.tables.limits import TooLongError, too_long
from embedcache.tables.packing import PACKINGS
from embedcache.tables.source import MARKS, BrokenQuotingError, NoColumnError, Source, changed, one_line

# How files begin that are often given the name of a table of text.
SIGNS = {sign for format in FORMATS.values() for sign in format.signs} | {
    Sign(one.sign, f"packed by {one.name}", f"add {one.suffix} to its name") for one in PACKINGS.values()
}


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """Turn what the decoders raise into one line that a user can act on."""
    try:
        try:
            yield
        except (NoColumnError, BrokenQuotingError):
            refuse_other_kind(source)
            raise
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


def refuse_other_kind(source: Source) -> None:
    """Raise where a file that was read as text begins as something else does: its name is wrong, not its encoding."""
    if not source.format.is_text:
        return
    with source.unpacked() as file:
        start = file.read(64)
    for sign, what, advice in SIGNS:
        if start.startswith(sign):
            raise EmbedcacheError(f"{source.path} is {what}, whatever its name says: {advice}")
    for encoding, zeros in {"utf-16-le": start[1::2], "utf-16-be": start[::2]}.items():
        if source.encoding == "utf-8-sig" and len(zeros) > 4 and zeros.count(0) > len(zeros) // 2:
            raise EmbedcacheError(
                f"{source.path}: every second byte is zero, as in UTF-16 without a byte order mark: pass --encoding "
                f"{encoding}"
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
