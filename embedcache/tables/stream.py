"""Tables that come through a stream: standard input, a pipe, a device. Each is read once, into an unnamed file."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedcache.common.whole_file import STANDARD, own_handle
from embedcache.errors import EmbedcacheError

STREAM = ".jsonl"  # what a stream is where its name does not say it


@dataclass(frozen=True)
class Stored:
    """What came through a stream: ``name`` for messages, its file name's suffixes ("" without), and where it lies."""

    name: str
    file: Path

    def __str__(self) -> str:
        return self.name


Table = str | Path | Stored


@contextmanager
def stored(table: str | Path) -> Iterator[Table]:
    """A table that can be read any number of times: a file as it is, a stream as a copy that is removed at the end.

    ``-`` is standard input. Raises EmbedcacheError where a stream cannot be read, or its copy not be written.
    """
    path = Path(table)
    handle = 0 if str(table) == STANDARD else own_handle(path)
    if handle is None and (path.is_file() or path.is_dir() or not path.exists()):
        yield table
        return
    name = "standard input" if handle == 0 else str(table)
    with _copied(path, handle, name) as file:
        yield Stored(name, file)


@contextmanager
def _copied(path: Path, handle: int | None, name: str) -> Iterator[Path]:
    """Everything that a stream gives, in a file that goes with the process (where Linux can: however that ends)."""
    reopened = Path("/proc/self/fd")
    new: Any = tempfile.TemporaryFile if reopened.is_dir() else tempfile.NamedTemporaryFile
    try:
        copy = new(prefix="embedcache-")
        with _opened(path, handle) as stream:
            while data := stream.read(1 << 20):
                copy.write(data)
        copy.flush()
    except OSError as error:
        raise EmbedcacheError(
            f"cannot copy {name} to {tempfile.gettempdir()}: {error.strerror or error}; "
            "TMPDIR=FOLDER names a folder with more space"
        ) from None
    with copy:
        yield reopened / str(copy.fileno()) if reopened.is_dir() else Path(copy.name)


def _opened(path: Path, handle: int | None) -> AbstractContextManager[Any]:
    if handle == 0 and hasattr(sys.stdin, "buffer"):
        return nullcontext(sys.stdin.buffer)  # others of this process may have read a part
    return os.fdopen(os.dup(handle), "rb") if handle is not None else path.open("rb")
