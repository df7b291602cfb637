"""One writer at a time: an advisory lock on a hidden file beside the cache. Readers do not look at it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedcache.cache.layout import sibling
from embedcache.errors import EmbedcacheError

REFUSED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def writer_lock(cache: Path) -> Iterator[None]:
    """Hold the lock of ``cache``; the kernel gives it back however this process ends.

    Raises:
        EmbedcacheError: someone else writes to this cache, the folder cannot be written, or it refuses locks.
    """
    handle, owner = _acquire(cache), os.getpid()
    try:
        yield
    finally:
        if os.getpid() == owner:  # not in a fork that ends early, while its parent goes on writing
            # Removed while it is still held: who waits to open this name finds another inode afterwards and retries.
            sibling(cache, "lock").unlink(missing_ok=True)
            os.close(handle)


def _acquire(cache: Path) -> int:
    import fcntl  # POSIX only; reading a cache needs none of this

    path = sibling(cache, "lock")
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            raise EmbedcacheError(f"no such folder: {cache.parent}; make it, or name another output") from None
        except OSError as error:
            reason = error.strerror or error
            raise EmbedcacheError(f"cannot write in {cache.parent}: {reason}; name an output elsewhere") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, there = os.fstat(handle), path.stat()
            if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
                _check_exclusive(path)
                return handle
        except FileNotFoundError:
            pass  # the last writer removed it between our open and our lock
        except BlockingIOError:
            os.close(handle)
            raise EmbedcacheError(
                f"another extract is writing {cache}; wait until it ends, or name another output"
            ) from None
        except OSError as error:
            os.close(handle)
            if error.errno in REFUSED:
                raise EmbedcacheError(
                    f"the file system of {cache.parent} refuses locks ({error.strerror}), so two writers could mix; "
                    "write the cache on a local disk and copy it"
                ) from None
            raise
        os.close(handle)


def _check_exclusive(path: Path) -> None:
    """Raise OSError where the file system only says that it locks: it would give the same lock twice."""
    import fcntl

    handle = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    finally:
        os.close(handle)
    raise OSError(errno.ENOLCK, "it gives one lock twice")
