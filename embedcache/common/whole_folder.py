"""Folders that appear whole or not at all, take another's place in one step, and are read whole though they change.

Beside a folder NAME there may be, hidden: ``.NAME.lock`` (held by who writes it), ``.NAME.partial-*`` (being filled)
and ``.NAME.old-*`` (what was replaced, until its other files are carried over). A kill may leave any of them; the next
writer puts them right.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from embedcache.common.durable import fsync, sync, sync_tree
from embedcache.common.lock import BusyError, locked_if_possible
from embedcache.common.open_files import rename
from embedcache.errors import EmbedcacheError

T = TypeVar("T")
Carry = Callable[[Path, Path], None]  # of the replaced folder and the new one: removes the first, keeps what is to stay

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
NO_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV)
PATIENCE = 5.0  # seconds for which a reader tries to see one and the same folder
PAUSE = 0.005
PROBE_BYTES = 1 << 16

_mine = threading.local()  # .paths: what this thread has locked


def beside(path: Path, what: str) -> Path:
    """A new hidden name in the same folder, so that a rename moves it."""
    path = path.absolute()
    return path.parent / f".{path.name}.{what}-{secrets.token_hex(4)}"


def others(path: Path, what: str) -> list[Path]:
    """Such names that are there."""
    return sorted(path.parent.glob(f".{glob.escape(path.name)}.{what}-*"))


@contextmanager
def folder_lock(path: str | Path) -> Iterator[None]:
    """Hold the lock of a folder that may not be there yet; a thread that has it already continues.

    Folders above it are made, and go again where nothing was put into them. Where the file system has no locks, there
    is none. Raises EmbedcacheError where another process holds it, with its number, or nothing can be written there.
    """
    path = Path(path).resolve()
    held: set[Path] = _mine.__dict__.setdefault("paths", set())
    if path in held:
        yield
        return
    hidden = path.with_name(f".{path.name}.lock")
    missing = [folder for folder in path.parents if not folder.exists()]

    def busy(who: str) -> str:
        return f"{who} is writing {path}; wait until it ends, or name another place with -o"

    try:
        _make_folder(path.parent)
        with locked_if_possible(hidden, busy):
            try:
                held.add(path)
                yield
            finally:
                held.discard(path)
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EmbedcacheError(f"cannot write to {folder}: {error.strerror}; name another place with -o") from None


@contextmanager
def whole_folder(path: str | Path, carry: Carry) -> Iterator[Path]:
    """A new folder that takes the name ``path`` once it is full; what stood there is handed to ``carry``.

    Raises EmbedcacheError where another process writes it, or it cannot be written; then what stood there still does.
    """
    path = Path(path).resolve()
    part, swapped = beside(path, "partial"), False
    try:
        with folder_lock(path):
            recover(path, carry)
            for killed in others(path, "partial"):
                shutil.rmtree(killed, ignore_errors=True)
            part.mkdir(parents=True)
            yield part
            sync_tree(part)
            old = put_in_place(part, path)
            swapped = True
            if old is not None:
                carry(old, path)
            sync(path.parent)
    except OSError as error:
        reason = error.strerror or error
        if swapped:
            raise EmbedcacheError(
                f"{path} is written, but files of the replaced folder are still in "
                f"{path.parent}/.{path.name}.old-*: {reason}"
            ) from None
        raise EmbedcacheError(f"cannot write {path}: {reason}; nothing was changed") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)


def put_in_place(part: Path, path: Path) -> Path | None:
    """Rename part to path; returns where the folder is that stood there, None for none.

    In one step where the kernel and the file system can swap two names: then there is no moment without a folder, and a
    kill leaves the old one or the new one under the name. Elsewhere two renames; ``recover`` puts right a kill between.
    """
    if not path.exists():
        rename(part, path)
        return None
    old = beside(path, "old")
    with suppress(OSError):
        shutil.copymode(path, part)  # who may look into a run may look into the next one
    rename(part, old)  # so that, whenever this ends, what is not under the name is called old, and its files are kept
    swapped = False
    try:
        swapped = exchange(old, path)
    finally:
        if not swapped:
            rename(old, part)
    if swapped:
        return old
    rename(path, old)
    try:
        rename(part, path)
    except OSError:
        rename(old, path)
        raise
    return old


def exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False where that cannot be done here. Raises OSError where it may not be done."""
    call = _renameat2()
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(b))


@cache
def _renameat2() -> Any:
    """The C library's; None where it has none."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


def recover(path: Path, carry: Carry) -> None:
    """Put right what a kill left: a folder without its name gets it back, and other files of a replaced one move over.

    Only for who holds the lock.
    """
    for old in others(path, "old"):
        if not path.exists():
            rename(old, path)
        else:
            carry(old, path)


def read_whole(path: str | Path, read: Callable[[], T], carry: Carry | None = None) -> T:
    """What ``read`` makes of a folder that others may replace meanwhile: all of it from one and the same folder.

    It is called again, for a few seconds at most, while another folder takes this one's place; whatever it raises of a
    folder that stays is raised. With ``carry`` a folder that a killed writer left without its
    name gets it back.
    """
    path = Path(path)
    deadline = time.monotonic() + PATIENCE
    while True:
        before, late = _identity(path), time.monotonic() > deadline
        try:
            found = read()
        except (EmbedcacheError, OSError):
            if late or (_identity(path) == before and not _between(path, carry)):
                raise
        else:
            if late or _identity(path) == before:
                return found
        time.sleep(PAUSE)


def is_full(folder: Path) -> bool:
    """Whether a file of 64 KB can not be written there for want of space or quota; tried, as quotas are not shown."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            fsync(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def _between(path: Path, carry: Carry | None) -> bool:
    """Whether the name is missing because somebody is between two renames, or was killed there."""
    path = path.resolve()
    if path.exists() or not others(path, "old"):
        return False
    if carry is not None:
        with suppress(BusyError, EmbedcacheError, OSError), folder_lock(path):
            recover(path, carry)
    return True


def _identity(path: Path) -> tuple[int, ...] | None:
    """Identity of the folder that has the name now; its time of change tells it from one whose number it was given."""
    with suppress(OSError):
        about = path.stat()
        return about.st_dev, about.st_ino, about.st_ctime_ns
    return None
