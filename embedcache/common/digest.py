"""The SHA-256 of a file's content."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The hex digest of a file, which is never held in memory as a whole.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()  # Python 3.10
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()
