"""Where a command's output goes: a file that appears whole or not at all, or a stream that is written through.

A file is written under no name (or, where the system has no such files, as ``.OUT.new``) and takes the name OUT when it
is whole. While a command writes it, the hidden file ``.OUT.partial`` is locked, so that a second one is refused; a
killed command leaves this one name, and the next that writes OUT removes it.
"""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from embedcache.common.durable import fsync, sync
from embedcache.common.lock import Lock, locked_if_possible
from embedcache.common.open_files import open_file, rename
from embedcache.errors import EmbedcacheError

ADVICE = "name another place with -o"  # what to do about an output that cannot be written
STANDARD = "-"  # standard input or output
NO_UNNAMED = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT, errno.ENOSYS)
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a block device", stat.S_IFSOCK: "a socket"}


class Output:
    """Where a command writes, made by ``open_output``.

    Attributes:
        name: as the user gave it, for messages.
        target: the file that is made or replaced, symlinks followed; None for a stream.
        lock: holds the target's ``.OUT.partial``; None for a stream, and where the file system refuses locks.
    """

    def __init__(
        self, name: str, target: Path | None, lock: Lock | None = None, handle: int | None = None, advice: str = ADVICE
    ) -> None:
        self.name, self.target, self.lock, self._handle, self._advice = name, target, lock, handle, advice

    @property
    def is_stream(self) -> bool:
        """Whether what is written goes through at once and cannot be taken back."""
        return self.target is None

    @contextmanager
    def binary(self) -> Iterator[BinaryIO]:
        """What is written here is the whole output. A file takes its name at the end, and not where this raises.

        Raises EmbedcacheError where it cannot be written, and BrokenPipeError where nobody reads standard output any
        more, which the reader decided (| head) and needs no message.
        """
        try:
            with self._stream() if self.target is None else _whole(self.target, self.lock is not None) as file:
                yield file
        except BrokenPipeError:
            if self.name == "standard output" or is_standard_output(self.name):
                raise
            raise EmbedcacheError(
                f"cannot write {self.name}: its reader closed it before the end; read all of it, or {self._advice}"
            ) from None
        except OSError as error:
            raise _cannot_write(self.name, error, self._advice) from None

    @contextmanager
    def text(self) -> Iterator[TextIO]:
        """``binary`` for UTF-8 text, with line ends as they are written."""
        with self.binary() as raw:
            file = io.TextIOWrapper(raw, encoding="utf-8", newline="")
            try:
                yield file
            finally:
                file.detach()  # written out, but not closed

    def _stream(self) -> Any:
        assert self._handle is not None
        return os.fdopen(os.dup(self._handle), "wb")


@contextmanager
def open_output(path: str | Path, advice: str = ADVICE) -> Iterator[Output]:
    """Make sure, before the work starts, that an output can be written, and keep others from it until the end.

    Symlinks are followed: their target is what is replaced. ``-`` is standard output; it, pipes and character devices
    (/dev/stdout, /dev/null) are written through. What is there stays as it is until ``Output.binary`` or ``text`` ends.

    Raises:
        EmbedcacheError: it is a folder, a block device or a socket; another process is writing it (BusyError); its
            folder is missing or cannot be written.
    """
    name = "standard output" if str(path) == STANDARD else str(path)
    target = output_target(path, advice)
    if target is None:
        handle = _open_stream(str(path), name, advice)
        try:
            yield Output(name, None, handle=handle, advice=advice)
        finally:
            os.close(handle)
        return

    def busy(who: str) -> str:
        return f"{who} is writing {name}; wait until it ends, or {advice}"

    if not target.parent.is_dir():
        raise EmbedcacheError(f"cannot write {name}: there is no folder {target.parent}; make it, or {advice}")
    hidden = target.with_name(f".{target.name}.partial")
    with locked_if_possible(hidden, busy) as lock:  # without locks each writer has a name of its own
        yield Output(name, target, lock, advice=advice)
        if lock is not None:
            lock.keep = False  # the work is done; until here, what this or another command saved there stays


@contextmanager
def whole_file(place: str | Path | Output) -> Iterator[TextIO]:
    """``open_output``, where that has not been done yet, and then ``Output.text``."""
    with _opened(place) as output, output.text() as file:
        yield file


@contextmanager
def whole_binary(place: str | Path | Output, advice: str = ADVICE) -> Iterator[BinaryIO]:
    """``whole_file`` for bytes."""
    with _opened(place, advice) as output, output.binary() as file:
        yield file


def _opened(place: str | Path | Output, advice: str = ADVICE) -> AbstractContextManager[Output]:
    return nullcontext(place) if isinstance(place, Output) else open_output(place, advice)


def output_target(path: str | Path, advice: str = ADVICE) -> Path | None:
    """The file that an output makes or replaces, symlinks followed; None for a stream.

    Raises EmbedcacheError where it is neither.
    """
    if str(path) == STANDARD or own_handle(path) is not None:
        return None
    try:
        target = Path(os.path.realpath(path))
        kind = stat.S_IFMT(target.stat().st_mode)
    except FileNotFoundError:
        return target
    except OSError as error:
        raise _cannot_write(str(path), error, advice) from None
    if kind in KINDS:
        raise EmbedcacheError(f"cannot write {path}: it is {KINDS[kind]}; {advice}")
    return target if kind == stat.S_IFREG else None


def check_output(output: str | Path, source: object) -> None:
    """Raises EmbedcacheError where ``output`` cannot be one, or is the file that is read (others are none)."""
    target = output_target(output)
    if not isinstance(source, (str, os.PathLike)):
        return
    with suppress(OSError):
        if target is not None and target.samefile(source):
            raise EmbedcacheError(f"{output} is the input: name another file with -o")


def refuse_stream(path: str | Path, what: str, place: str) -> None:
    """Raises EmbedcacheError where ``path`` is a stream, such as -; ``what`` is to be made there, a ``place``."""
    if output_target(path) is None:
        name = "standard output" if is_standard_output(path) else f"{path} (a pipe or device)"
        raise EmbedcacheError(f"{name} cannot hold {what}: name a {place} with -o")


def is_standard_output(path: str | Path) -> bool:
    """Whether an output is what the process prints to: - or /dev/stdout."""
    return str(path) == STANDARD or own_handle(path) == 1


def own_handle(path: str | Path) -> int | None:
    """The number of this process's open file that a path means: 1 for /dev/stdout, whatever stands behind it."""
    step = Path(path)
    for _ in range(40):  # a symlink at a time: resolved at once, it would be the file behind the handle
        try:
            step = step.parent.resolve() / step.name
            if found := re.fullmatch(rf"/proc/(?:self|{os.getpid()})(?:/task/\d+)?/fd/(\d+)", str(step)):
                return int(found[1])
            step = step.parent / step.readlink()
        except (OSError, RuntimeError):
            return None
    return None


def _open_stream(path: str, name: str, advice: str) -> int:
    """A handle of one's own, so that closing it leaves standard output open."""
    own = 1 if path == STANDARD else own_handle(path)
    try:
        if own == 1:
            sys.stdout.flush()
        return os.dup(own) if own is not None else open_file(Path(path), os.O_WRONLY | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        raise _cannot_write(name, error, advice) from None


def _cannot_write(name: str, error: OSError, advice: str) -> EmbedcacheError:
    return EmbedcacheError(f"cannot write {name}: {error.strerror or error}; {advice}")


@contextmanager
def _whole(target: Path, is_locked: bool) -> Iterator[BinaryIO]:
    """A new file that takes the name ``target`` at the end, on the disk by then. Raises OSError."""
    new = target.with_name(f".{target.name}.new" if is_locked else f".{target.name}.partial-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        new.unlink()  # of a killed writer
    try:
        handle, named = _create(new)
        with os.fdopen(handle, "wb") as file:
            yield cast(BinaryIO, file)
            file.flush()
            _like_before(file.fileno(), target)
            fsync(file.fileno())
            if not named:
                # Only with a folder's number does link follow symlinks; for a whole path the number does not matter.
                os.link(f"/proc/self/fd/{file.fileno()}", new, src_dir_fd=file.fileno(), follow_symlinks=True)
        rename(new, target)
        sync(target.parent)
    finally:
        with suppress(OSError):
            new.unlink()


def _create(new: Path) -> tuple[int, bool]:
    """An empty file for writing, and whether it has the name ``new``: Linux has files without one, gone with a kill."""
    unnamed = getattr(os, "O_TMPFILE", 0)
    if unnamed and Path("/proc/self/fd").is_dir():
        try:
            return os.open(new.parent, unnamed | os.O_RDWR, 0o666), False
        except OSError as error:
            if error.errno not in NO_UNNAMED:
                raise
    return open_file(new, os.O_RDWR | os.O_CREAT | os.O_EXCL), True


def _like_before(handle: int, target: Path) -> None:
    """A new file has the mode that the umask gives it; one that is replaced keeps its mode, and its owner if it may."""
    try:
        before, now = target.stat(), os.fstat(handle)
    except FileNotFoundError:
        return
    if sys.platform == "win32":  # the folder decides
        return
    with suppress(OSError):
        if (before.st_uid, before.st_gid) != (now.st_uid, now.st_gid):
            os.fchown(handle, before.st_uid, before.st_gid)
    with suppress(OSError):
        os.fchmod(handle, before.st_mode & 0o777)
