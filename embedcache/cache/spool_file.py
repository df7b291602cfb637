"""Data that is collected before the cache has a place for it: in a file without a name, not in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError


class UnnamedFile:
    """Bytes in a file of ``folder`` that vanishes with the process. ``what`` they are, for the error of a full disk."""

    def __init__(self, folder: Path, what: str) -> None:
        self._folder, self._what, self._size = folder, what, 0
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - lives as long as its map

    def write(self, data: Any) -> None:
        """Append the bytes of a buffer, such as an array."""
        view = np.asarray(data).reshape(-1).view(np.uint8).data
        self._size += len(view)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise EmbedcacheError(
                f"not enough space in {self._folder} for a copy of {self._what} ({error.strerror}); "
                "make room or name another output"
            ) from None

    def finish(self) -> np.ndarray:
        """Everything that was written, uint8, as a map of the file."""
        data = np.memmap(self._file, np.uint8, "r", shape=(self._size,)) if self._size else np.empty(0, np.uint8)
        self._file.close()
        return np.asarray(data)
