"""What every file of vectors can do, and how one of several arrays or columns is chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.tables.stream import Table

BATCH_BYTES = 16 << 20  # of vectors that are in memory together
BATCH_ROWS = 8192
USUAL = ("embedding", "embeddings", "vector", "vectors", "emb")  # names that are taken where several could be meant


class VectorFile(ABC):
    """An open file of vectors, or an array in memory.

    Attributes:
        name: for messages.
        column: the array or column that was chosen; "" where there is but one.
        encoder: the name of the model, where the file says it.
        own_id: the column of ``table`` that names the rows by itself, as in the batch output of OpenAI.
    """

    column: str = ""
    encoder: str | None = None
    own_id: str | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def table(self) -> Table | None:
        """Where the other columns of the same rows can be read, once ``batches`` has ended; None: there are none."""
        return None

    @abstractmethod
    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        """Arrays [n, D] of numbers, in order, from the row ``first`` on; not checked yet.

        Raises EmbedcacheError where the file is damaged.
        """

    def place(self, row: int) -> str:
        """Where a row is, in words."""
        return f"{self.name} row {row + 1}"


class VectorFormat(ABC):
    """One format, without state of its own.

    Attributes:
        suffixes: of its files' names.
        what: what such a file is, for the table in the docs.
        is_table: such a file is a table, too, of which a column holds vectors; else it holds nothing but arrays.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = ""
    is_table = False

    @abstractmethod
    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        """Open a file.

        Args:
            table: the file, or what came through a stream.
            column: the array or column of the vectors; None: the only one, or the one with a usual name.
            reading: how text files are read, as in ``open_source``.

        Raises:
            EmbedcacheError: it cannot be read, or holds no such vectors.
        """


def rows_together(dim: int, itemsize: int) -> int:
    """How many rows fit a batch."""
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, dim * itemsize)))


def choose(name: str, found: Sequence[str], asked: str | None, others: Sequence[str], what: str) -> str:
    """One of the ``found`` names of vectors.

    Raises:
        EmbedcacheError: there is no such name, none at all, or several and none was asked for.
    """
    if asked is not None:
        if asked in found:
            return asked
        has = f"it has {', '.join(found)}" if found else f"it has no {what}"
        known = f"{asked!r} is no {what}" if asked in others else f"no {what} {asked!r}"
        raise EmbedcacheError(f"{name}: {known}; {has}: choose with --vector")
    if not found:
        has = f"; it has {', '.join(others[:20])}" if others else ""
        raise EmbedcacheError(f"{name} has no {what}{has}: check that it is the right file")
    usual = [one for one in USUAL if one in found]
    if len(found) > 1 and len(usual) != 1:
        raise EmbedcacheError(f"{name} has several: {', '.join(found)}: choose with --vector")
    return found[0] if len(found) == 1 else usual[0]


def file_of(table: Table) -> Any:
    """The path to open."""
    return getattr(table, "file", table)


def check_numbers(place: str, dtype: np.dtype, shape: Sequence[int]) -> None:
    """Raise EmbedcacheError where an array is not one of numbers [N, D]."""
    if dtype.kind == "O":
        raise EmbedcacheError(
            f"{place} holds Python objects, which may hold any code and are never loaded: save numbers, as with "
            "numpy.save(file, numpy.stack(vectors))"
        )
    if dtype.kind not in "fiu" or len(shape) != 2:
        raise EmbedcacheError(f"{place} is {dtype} {list(shape)}: vectors must be numbers [N, D]")
