"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from embedcache.errors import EmbedcacheError


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A name beside ``path`` for a file that takes its place once all is done; gone where something is raised."""
    part = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A new UTF-8 file that takes its name only once everything is in it. Raises EmbedcacheError."""
    try:
        with beside(path) as part, part.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}; name another place with -o") from None


def check_output(output: Path, source: str | Path, option: str) -> None:
    """Raises EmbedcacheError where ``output`` is a folder or the file that is read; ``option`` names another one."""
    if output.is_dir() or (output.exists() and output.samefile(source)):
        raise EmbedcacheError(f"{output} is {'a folder' if output.is_dir() else 'the input'}: name another {option}")
