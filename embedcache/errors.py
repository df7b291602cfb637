"""The one exception that a user is meant to read."""

from __future__ import annotations


class EmbedcacheError(Exception):
    """The work cannot be done: one line that says what is wrong, where, and what to do about it.

    The command line prints it as ``Error: ...`` and exits with 1. Raise it for everything that the user's
    files, disk or settings can cause; leave programming mistakes to the built-in exceptions.
    """
