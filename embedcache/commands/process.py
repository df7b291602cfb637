"""What the command line sets up in its own process before a command runs: streams, threads, arguments."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from io import TextIOWrapper
from typing import Any

import click

from embedcache.commands.types import CommaList
from embedcache.common import guard
from embedcache.common.machine import cap_threads
from embedcache.errors import EmbedcacheError


def prepare_streams() -> None:
    """A screen or a pipe that is not UTF-8 shows what it has no character for as ``\\u6620``; nothing fails there."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def prepare_process() -> None:
    """Prepare a process that runs only this command: never called where a program calls the commands."""
    # Read when torch loads. Waiting threads that spin cost PyTorch most of its speed where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("JOBLIB_MULTIPROCESSING", "0")  # joblib warns where /dev/shm is missing; we use no processes
    guard.install()
    for note in cap_threads():
        click.echo(f"Note: {note}.", err=True)


def check_clock() -> None:
    """Raises EmbedcacheError where Python itself cannot tell the time, which every command needs."""
    try:
        time.time()
    except OverflowError:
        raise EmbedcacheError(
            "this machine's clock is beyond the year 2262, where Python's time ends: set the clock"
        ) from None


def prepare_command(command: click.Command) -> None:
    """Make the command look at the clock, and take the texts among its arguments as UTF-8, whatever the locale.

    Python decodes arguments as the locale says, and keeps bytes that the locale does not have as lone surrogates.
    Paths must stay so: the file system wants those bytes back. A text (or name) is decoded again, as UTF-8. What the
    locale could decode is left as it is.
    """
    names = {param.name for param in command.params if param.type is click.STRING or isinstance(param.type, CommaList)}
    callback: Callable[..., Any] | None = command.callback
    assert callback is not None

    @wraps(callback)
    def decoded(*args: Any, **values: Any) -> Any:
        check_clock()
        return callback(*args, **{name: _decoded(one) if name in names else one for name, one in values.items()})

    command.callback = decoded


def _decoded(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_decoded, value))
    if not isinstance(value, str) or value.isascii() or not any("\udc80" <= char <= "\udcff" for char in value):
        return value
    try:
        return _bytes(value).decode("utf-8")
    except UnicodeError:
        shown = value[:40].encode("ascii", "backslashreplace").decode().replace("\\udc", "\\x")
        raise click.UsageError(
            f"'{shown}' is not UTF-8: write the argument in UTF-8, or put it in a file and pass its --encoding"
        ) from None


def _bytes(argument: str) -> bytes:
    """As the argument was on the command line. Raises UnicodeError."""
    try:
        return os.fsencode(argument)
    except UnicodeEncodeError:  # the C library has decoded it, by a table that is not quite Python's (EUC-JP)
        libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        libc.wcstombs.restype = ctypes.c_ssize_t
        found = b""
        for char in argument:
            if "\udc80" <= char <= "\udcff":
                found += bytes([ord(char) - 0xDC00])
                continue
            count = libc.wcstombs(buffer, ctypes.c_wchar_p(char), ctypes.c_size_t(64))
            if count < 0:
                raise
            found += buffer.raw[:count]
        return found
