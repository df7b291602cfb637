"""One writer at a time: an advisory lock on a hidden file. Readers never look at it, a killed holder blocks nobody."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from embedcache.common.open_files import lock_file, open_file
from embedcache.errors import EmbedcacheError

REFUSED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class BusyError(EmbedcacheError):
    """Another process holds the lock."""


class NoLocksError(EmbedcacheError):
    """The file system refuses locks, or only pretends to lock."""


@dataclass
class Lock:
    """A lock that is held: ``handle`` is the open file; ``keep`` says whether what is in it stays at the end.

    An empty file never stays. ``over``: there is nothing left to release. ``owner``: the process that has it, and not
    its fork that ends early.
    """

    path: Path
    handle: int = -1
    keep: bool = True
    over: bool = False
    owner: int = field(default_factory=os.getpid)

    def give_back(self) -> None:
        """Release the lock, held or half acquired, and remove its file if nobody else has it. May be called twice."""
        if self.over or os.getpid() != self.owner:
            return
        try:
            if self.handle < 0:  # nothing was opened, or a signal came before the number of it was kept
                self.handle = open_file(self.path, os.O_RDWR)
            if sys.platform == "win32":
                self._remove_closed()
            else:
                lock_file(self.handle, wait=False)
                if not self._stays and _same_file(self.handle, self.path):
                    # Removed while it is still held: who waits to open this name finds another inode afterwards.
                    self.path.unlink()
        except OSError:
            pass
        self.close()
        self.over = True

    @property
    def _stays(self) -> bool:
        return self.keep and bool(os.fstat(self.handle).st_size)

    def _remove_closed(self) -> None:
        """Where no open file can be removed: closed first, and then not while anybody else has it open."""
        stays = self._stays
        self.close()
        if not stays:
            self.path.unlink()

    def close(self) -> None:
        """Close the file, which releases the lock; the file stays."""
        handle, self.handle = self.handle, -1
        if handle >= 0:
            os.close(handle)


@contextmanager
def locked(path: Path, busy: Callable[[str], str]) -> Iterator[Lock]:
    """Hold the lock of the hidden file ``path``; the kernel releases it however this process ends.

    Args:
        path: the file, such as ``.RUN.lock`` beside RUN; made here, and removed at the end unless something was written
            into it and ``Lock.keep`` is still set.
        busy: makes the line for a user of who holds it, "process 4711" (or "another process" where the system does not
            tell): ``lambda who: f"{who} is writing {run}; wait until it ends"``.

    Raises:
        BusyError: another process holds it.
        NoLocksError: the file system refuses locks.
        EmbedcacheError: the folder is missing or cannot be written.
    """
    lock = Lock(path)
    try:
        _acquire(lock, busy)
        yield lock
    finally:
        try:
            lock.give_back()
        except KeyboardInterrupt:  # Ctrl-C may come after any call
            lock.give_back()
            raise


@contextmanager
def locked_if_possible(path: Path, busy: Callable[[str], str]) -> Iterator[Lock | None]:
    """``locked``; None where the file system refuses locks."""
    lock = locked(path, busy)
    try:
        held: Lock | None = lock.__enter__()
    except NoLocksError:
        held = None
    if held is None:
        with suppress(OSError):
            path.unlink()
        yield None
        return
    try:  # no ExitStack: it would keep an interrupted lock alive until the next garbage collection
        yield held
    finally:
        lock.__exit__(None, None, None)


def _acquire(lock: Lock, busy: Callable[[str], str]) -> None:
    path = lock.path
    while True:
        try:
            lock.handle = open_file(path, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            raise EmbedcacheError(f"no such folder: {path.parent}; make it, or name another output") from None
        except OSError as error:
            reason = error.strerror or error
            raise EmbedcacheError(f"cannot write in {path.parent}: {reason}; name an output elsewhere") from None
        try:
            lock_file(lock.handle, wait=False)
            if _same_file(lock.handle, path):
                _check_exclusive(path)
                return
        except FileNotFoundError:
            pass  # the last holder removed it between our open and our lock
        except BlockingIOError:
            holder = _holder(lock.handle)
            lock.close()
            lock.over = True
            raise BusyError(busy(holder)) from None
        except OSError as error:
            lock.close()
            lock.over = True
            if error.errno not in REFUSED:
                raise
            raise NoLocksError(f"the file system of {path.parent} refuses locks ({error.strerror})") from None
        lock.close()


def _same_file(handle: int, path: Path) -> bool:
    mine, there = os.fstat(handle), path.stat()
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def _check_exclusive(path: Path) -> None:
    """Raise OSError where the file system only says that it locks: it would give the same lock twice."""
    handle = open_file(path, os.O_RDWR)
    try:
        lock_file(handle, wait=False)
    except BlockingIOError:
        return
    finally:
        os.close(handle)
    raise OSError(errno.ENOLCK, "it gives one lock twice")


def _holder(handle: int) -> str:
    """Who holds the lock of an open file, by Linux's list of all locks."""
    if sys.platform == "win32":
        return "another process"
    about = os.fstat(handle)
    wanted = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()  # 1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF
            if fields[1] == "FLOCK" and fields[5] == wanted and int(fields[4]) > 0:
                return f"process {int(fields[4])}"
    return "another process"
