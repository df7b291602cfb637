"""Open files by their number: read, write and lock them as POSIX does, on Windows too.

Windows' C library reads and writes at one place that all threads share, so there a read or write at an offset is three
steps, one thread at a time. Its locks are of bytes, and keep others from reading those: a byte far behind every end is
taken. What follows from its other ways, namely that no open file can be removed or replaced, is up to the callers.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.005  # seconds between two tries for what the system cannot wait for
PATIENCE = 3.0  # seconds for which virus scanners, indexers and readers may have a file open
LOCKED_BYTE = 1 << 62
LOCK_AT_ONCE, LOCK_EXCLUSIVE, LOCK_VIOLATION = 1, 2, 33  # of Windows

OPEN_ELSEWHERE = "another program has it open (close it there), or you may not write it"

_at_offset = threading.Lock()


def open_file(path: Path, flags: int, mode: int = 0o666) -> int:
    """``os.open``, for bytes as they are. Raises OSError."""
    return os.open(path, flags | getattr(os, "O_BINARY", 0), mode)


def pread(handle: int, size: int, offset: int) -> bytes:
    """At most ``size`` bytes from ``offset`` on; the file's own place stays. Raises OSError."""
    if hasattr(os, "pread"):
        return os.pread(handle, size, offset)
    return _at(handle, offset, lambda: os.read(handle, size))


def pread_into(handle: int, view: memoryview, offset: int) -> int:
    """``pread`` into ``view``, uint8; returns how many bytes were read. Raises OSError."""
    if hasattr(os, "preadv"):
        return os.preadv(handle, [view], offset)
    data = pread(handle, len(view), offset)
    view[: len(data)] = data
    return len(data)


def pwrite(handle: int, data: bytes | memoryview, offset: int) -> int:
    """Write at ``offset``; returns how many bytes were written. Raises OSError."""
    if hasattr(os, "pwrite"):
        return os.pwrite(handle, data, offset)
    return _at(handle, offset, lambda: os.write(handle, data))


def lock_file(handle: int, *, wait: bool) -> None:
    """Lock an open file against all other handles, of this process too; it ends with the handle, however that ends.

    Raises:
        BlockingIOError: another one has the lock, and this does not wait.
        OSError: the file system refuses locks.
    """
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    while True:  # a wait of the system's own could not be interrupted
        try:
            _lock_byte(handle, "LockFileEx", LOCK_EXCLUSIVE | LOCK_AT_ONCE)
            return
        except OSError as error:
            if error.winerror != LOCK_VIOLATION:
                raise
            if not wait:
                raise BlockingIOError(errno.EAGAIN, error.strerror) from None
        time.sleep(PAUSE)


def unlock_file(handle: int) -> None:
    """End the lock of an open file. Raises OSError."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)
        return
    _lock_byte(handle, "UnlockFileEx")


def rename(new: Path, target: Path) -> None:
    """``Path.replace``; on Windows, where neither may be open, programs that have one open for a moment are waited for.

    Raises:
        OSError: one of them stays open, or another fault.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            new.replace(target)
            return
        except PermissionError as error:
            if sys.platform != "win32":
                raise
            if time.monotonic() > until:
                raise PermissionError(error.errno, OPEN_ELSEWHERE, str(target)) from None
        time.sleep(PAUSE)


def _at(handle: int, offset: int, call: Callable[[], T]) -> T:
    with _at_offset:
        before = os.lseek(handle, 0, os.SEEK_CUR)
        try:
            os.lseek(handle, offset, os.SEEK_SET)
            return call()
        finally:
            os.lseek(handle, before, os.SEEK_SET)


def _lock_byte(handle: int, call: str, *flags: int) -> None:
    """LockFileEx and UnlockFileEx of the one byte. Raises OSError."""
    if sys.platform == "win32":
        import msvcrt
        from ctypes import WinDLL, WinError, byref, c_void_p, get_last_error, wintypes

        place = (wintypes.DWORD * 8)()  # an OVERLAPPED: two pointers' room, the offset in two halves, no event
        place[4], place[5] = LOCKED_BYTE & 0xFFFFFFFF, LOCKED_BYTE >> 32
        kernel = WinDLL("kernel32", use_last_error=True)
        words = [wintypes.DWORD(one) for one in (*flags, 0, 1, 0)]
        if not getattr(kernel, call)(c_void_p(msvcrt.get_osfhandle(handle)), *words, byref(place)):
            raise WinError(get_last_error())
