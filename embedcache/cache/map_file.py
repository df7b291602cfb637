"""Map a file that a writer may replace at any moment: its structure and its bytes are of one and the same file."""

from __future__ import annotations

import gc
import mmap
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TypeVar

import numpy as np

from embedcache.cache.hdf5_structure import NotACacheError
from embedcache.errors import EmbedcacheError

FileId = tuple[int, int]  # device and inode
Structure = TypeVar("Structure")


def file_id(path: Path) -> FileId | None:
    """Device and inode of the file that has this name now."""
    with suppress(OSError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def forget(array: np.ndarray) -> None:
    """Let the memory go that the pages of an array's map take; where they are read again they come back by themselves.

    A process that reads a large file once would else seem to hold all of it.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and sys.platform != "win32":
        base.madvise(mmap.MADV_DONTNEED)


def remove_mapped(path: Path, error: BaseException) -> None:
    """Remove a file whose maps go with an error that is being raised. Raises OSError, but not on Windows.

    There a mapped file cannot be removed, and the calls that failed still hold their arrays: they are made to let go.
    Where somebody else holds one, the file stays.
    """
    if sys.platform != "win32":
        path.unlink(missing_ok=True)
        return
    below: BaseException | None = error
    while below is not None:
        for frame, _ in traceback.walk_tb(below.__traceback__):
            _clear(frame)
        below = below.__context__
    gc.collect()
    with suppress(PermissionError):
        path.unlink(missing_ok=True)


def _clear(frame: FrameType | None) -> None:
    """Of a call that has ended, and of those above it, such as the main function of a thread that has ended."""
    while frame is not None:
        with suppress(RuntimeError):  # it goes on
            frame.clear()
        frame = frame.f_back


def map_file(path: Path, read: Callable[[Path, np.ndarray], Structure]) -> tuple[Structure, np.ndarray, FileId]:
    """What ``read`` makes of a file's bytes; the bytes, uint8, a read-only memory map; and which file it is.

    Raises:
        EmbedcacheError: there is no such file, it cannot be read, or ``read`` raises it.
    """
    while True:
        try:
            before = path.stat()
            if not path.is_file():
                raise NotACacheError(f"{path} is not a file; a cache is one .h5 file")
            data = np.memmap(path, np.uint8, "r") if before.st_size else np.empty(0, np.uint8)
        except FileNotFoundError:
            raise EmbedcacheError(f"no such file: {path}; embedcache extract makes one") from None
        except OSError as error:
            raise EmbedcacheError(f"cannot read {path}: {error.strerror or error}; check its permissions") from None
        inode = (before.st_dev, before.st_ino)
        try:
            structure = read(path, data)
            if inode == file_id(path):
                return structure, data, inode
        except EmbedcacheError:
            if inode == file_id(path):
                raise
