"""What a long job tells while it works: how far it is, and what a user should know."""

from __future__ import annotations

from collections.abc import Callable

# progress(done, total, rows): how much is done and how much there is, in the job's own unit, which its docstring names
# (tokens, characters, queries, head-epochs); the total may be an estimate. rows: rows done, from which a bar has its
# rate. A job of several phases begins again at 0 with each.
Progress = Callable[[int, int, int], None]
# tell(line): a note, one line without its full stop.
Tell = Callable[[str], None]


def no_progress(done: int, total: int, rows: int) -> None:
    """Nobody asked."""


def no_tell(line: str) -> None:
    """Nobody asked."""
