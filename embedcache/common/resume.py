"""Long work in parts: what is finished is saved beside the output, and the same command continues after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from embedcache.common.journal import Journal
from embedcache.common.progress import Tell
from embedcache.common.whole_file import Output


class Part(Protocol):
    """Some rows of finished work."""

    def __len__(self) -> int:
        """How many rows."""
        ...

    def to_bytes(self) -> bytes:
        """The work, to be saved."""
        ...


P = TypeVar("P", bound=Part)


def all_parts(
    place: Output,
    make: Callable[[int], Iterator[P]],
    read: Callable[[bytes], P],
    *,
    key: Callable[[], str],
    total: int,
    what: str,
    tell: Tell,
) -> tuple[Iterator[P], int]:
    """All parts of the work that ends in ``place``, and how many of their rows an earlier command had saved.

    If ``place`` is a file, all parts are made first, so that they are safe, and then read again. If it is a stream,
    each part is made when it is asked for, and nothing is saved.

    Args:
        place: Where the work is written.
        make: Makes the parts after so many rows, which are those of whole parts.
        read: Makes a part again from what its ``to_bytes`` gave.
        key: Describes what decides the parts: the input by its content, the tools, the options.
        total: Number of rows.
        what: What is done with them, such as "rows are labelled".
        tell: Called if an earlier command's work is used, or discarded.

    Raises:
        KeyboardInterrupt: As it came, with a line for the user on what is saved.
        EmbedcacheError: The disk is full.
    """
    if place.lock is None:
        return make(0), 0
    journal = Journal(place.lock, key())
    if journal.is_other:
        tell(f"the work saved beside {place.name} belongs to another input, run or option: it is discarded")
    saved = done = sum(len(read(data)) for data in journal)
    if saved:
        tell(f"{saved:,} of {total:,} {what} already: continuing after them")
    try:
        for part in make(saved):
            journal.append(part.to_bytes())
            done += len(part)
    except KeyboardInterrupt:
        if not done:
            raise
        line = f"Interrupted: {done:,} of {total:,} {what} and saved beside {place.name}; the same command continues."
        raise KeyboardInterrupt(line) from None
    return map(read, journal), saved
