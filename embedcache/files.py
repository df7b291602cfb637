"""Text files that are written whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from embedcache.errors import EmbedcacheError


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A new UTF-8 file that takes its name only once everything is in it."""
    part = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        with part.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise EmbedcacheError(f"cannot write {path}: {error.strerror or error}; name another place with -o") from None
    finally:
        with suppress(OSError):
            part.unlink()
