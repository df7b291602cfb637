"""Documents that embedcache writes into a user's folder: they end with a digest, so that an edited one is kept."""

from __future__ import annotations

import hashlib
from pathlib import Path

REPORT, CARD = "report.html", "README.md"  # written of a run, into its folder; they go when another takes its place
SIGNATURE = "\n<!-- embedcache {} -->\n"  # their end: the SHA-256 of what stands before, so that an edited one is kept


def sign(text: str) -> str:
    """A document as it is written beside a run, in UTF-8."""
    text = text.encode("utf-8", "replace").decode()
    return text + SIGNATURE.format(hashlib.sha256(text.encode()).hexdigest())


def is_signed(path: Path) -> bool:
    """Whether a file is such a document and nobody has changed it since."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    text = data[: -len(SIGNATURE.format("0" * 64))]
    return data.endswith(SIGNATURE.format(hashlib.sha256(text).hexdigest()).encode())
