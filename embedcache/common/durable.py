"""What has a name is on the disk: files and folders are flushed before they take their names, and the names after."""

from __future__ import annotations

import errno
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from embedcache.common.open_files import open_file, rename


def fsync(handle: int) -> None:
    """Flush an open file, or the names in a folder, to the disk. Raises OSError.

    Where macOS's fsync ends, the data may still stand in the disk's own cache; F_FULLFSYNC empties that one, too, as
    SQLite has it. File systems that do not know it, network ones among them, get fsync.
    """
    if sys.platform == "darwin":
        import fcntl

        with suppress(OSError):
            fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
            return
    os.fsync(handle)


def sync(path: Path) -> None:
    """Flush a file to the disk, or the names in a folder. Raises OSError for a file; some systems sync no folders.

    Windows flushes files that are open for writing, and its file systems keep names by a journal of their own.
    """
    folder = path.is_dir()
    if folder and sys.platform == "win32":
        return
    with suppress(OSError) if folder else nullcontext():
        handle = open_file(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
        try:
            fsync(handle)
        finally:
            os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush all files below a folder, then the names of each folder. Raises OSError."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def take_name(new: Path, target: Path) -> None:
    """Give a finished file its name: at once, and for good when this returns. Raises OSError."""
    sync(new)
    rename(new, target)
    sync(target.parent)


def lacks_room(error: OSError) -> bool:
    """Whether a file could not be written because there is no more room for it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def reserve(handle: int, size: int) -> bool:
    """Reserve the disk's space for the first ``size`` bytes of an open file: not a fault after hours, but an error now.

    Returns:
        Whether the space is reserved; False where the system or the file system cannot do that.

    Raises:
        OSError: there is no room, or another fault.
    """
    if not hasattr(os, "posix_fallocate"):  # macOS, Windows
        return False
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write a file to, which takes its name at the end, and not where this raises.

    For libraries that write to a path; what writes to an open file uses ``whole_file``. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    new = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        yield new
        take_name(new, path)
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)
