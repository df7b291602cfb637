"""The one exception that a user is meant to read."""

from __future__ import annotations

import warnings


class EmbedcacheError(Exception):
    """The work cannot be done: one line that says what is wrong, where, and what to do about it.

    The command line prints it as ``Error: ...`` and exits with 1. Raise it for everything that the user's
    files, disk or settings can cause; leave programming mistakes to the built-in exceptions.
    """


class InputNote(UserWarning):
    """How an input was understood, where that was not certain. A command prints each once, as a note."""


def note(message: str) -> None:
    """Issue it as an ``InputNote``."""
    warnings.warn(message, InputNote, stacklevel=2)
