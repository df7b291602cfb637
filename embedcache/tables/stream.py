"""Tables that are no files here: standard input, pipes, addresses (each read once, into an unnamed file), frames."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.common.whole_file import STANDARD, own_handle
from embedcache.errors import EmbedcacheError
from embedcache.tables.memory import Frame, as_frame
from embedcache.tables.remote import file_name, is_address, opened

STREAM = ".jsonl"  # what a stream is where its name does not say it


@dataclass(frozen=True)
class Stored:
    """What came through a stream: ``name`` for messages, where it lies, and the name whose suffixes say what it is."""

    name: str
    file: Path
    known_as: str = ""

    def __str__(self) -> str:
        return self.name


Table = str | Path | Stored | Frame


@contextmanager
def stored(table: Any) -> Iterator[Table]:
    """A table that can be read any number of times: a file or a frame as it is, else a copy that is removed at the end.

    ``-`` is standard input; an address such as s3://... is one that fsspec knows; a frame is what ``as_frame`` takes.
    Raises EmbedcacheError where a stream cannot be read, or its copy not be written.
    """
    if isinstance(table, Stored):
        yield table
        return
    if not isinstance(table, (str, os.PathLike)):
        frame = as_frame(table)
        if frame is None:
            raise EmbedcacheError(
                f"a table is a file's path, or a data frame, not {type(table).__name__}: {table!r:.60}"
            )
        yield frame
        return
    table = os.fspath(table)
    if is_address(table):
        with _copied(opened(table), table) as file:
            yield Stored(table, file, file_name(table))
        return
    path = Path(table)
    handle = 0 if str(table) == STANDARD else own_handle(path)
    if handle is None and (path.is_file() or path.is_dir() or not path.exists()):
        yield table
        return
    name = "standard input" if handle == 0 else str(table)
    with _copied(_opened(path, handle), name) as file:
        yield Stored(name, file, path.name)


@contextmanager
def _copied(source: AbstractContextManager[Any], name: str) -> Iterator[Path]:
    """Everything that a stream gives, in a file that goes with the process (where Linux can: however that ends)."""
    reopened = Path("/proc/self/fd")
    with ExitStack() as ends:
        try:
            if sys.platform == "linux" and reopened.is_dir():
                copy: Any = ends.enter_context(tempfile.TemporaryFile(prefix="embedcache-"))
                place = reopened / str(copy.fileno())
            else:  # Windows opens no file twice that it is to delete by itself
                copy = tempfile.NamedTemporaryFile(prefix="embedcache-", delete=False)  # noqa: SIM115
                place = Path(copy.name)
                ends.callback(_remove, place)
                ends.enter_context(copy)
            with source as stream:
                while data := stream.read(1 << 20):
                    copy.write(data)
            copy.flush()
        except OSError as error:
            raise EmbedcacheError(
                f"cannot copy {name} to {tempfile.gettempdir()}: {error.strerror or error}; "
                "TMPDIR=FOLDER names a folder with more space"
            ) from None
        yield place


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _opened(path: Path, handle: int | None) -> AbstractContextManager[Any]:
    if handle == 0 and hasattr(sys.stdin, "buffer"):
        return nullcontext(sys.stdin.buffer)  # others of this process may have read a part
    return os.fdopen(os.dup(handle), "rb") if handle is not None else path.open("rb")
