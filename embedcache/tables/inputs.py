"""What a caller names as input: paths, addresses and tables in memory, one or several, or a list of texts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from embedcache.common.texts import as_texts
from embedcache.errors import EmbedcacheError
from embedcache.tables.formats import FORMATS
from embedcache.tables.memory import Frame, as_frame, of_texts
from embedcache.tables.read import suffixes
from embedcache.tables.remote import expanded, is_address

LONGEST = 4096  # characters of a path


def tables_of(inputs: Any, text: str = "text") -> list[Any]:
    """Each table of the input, as ``stored`` takes it. Patterns of addresses are expanded.

    A list of strings is a list of paths where each of them is the path of a file, has a suffix of a table's file, is
    an address or "-"; where none of them is, they are texts, and become a table with the column ``text``.

    Raises:
        EmbedcacheError: nothing that can be read, or a list that holds paths and other strings.
    """
    if isinstance(inputs, (str, os.PathLike)):
        return expanded(inputs)
    if (frame := as_frame(inputs)) is not None:
        return [frame]
    if hasattr(inputs, "dtype") or hasattr(inputs, "to_pylist"):  # a column of pandas, polars or Arrow, an array
        return [of_texts(as_texts(inputs), text)]
    if not isinstance(inputs, Iterable):
        raise EmbedcacheError(f"an input is a path, a data frame or a list, not {type(inputs).__name__}")
    given = list(inputs)
    strings = [one for one in given if isinstance(one, str)]
    others = [one for one in strings if not _is_input(one)]
    if others and len(others) == len(given):
        return [of_texts(strings, text)]
    if others:
        named = next(one for one in given if one not in others)
        raise EmbedcacheError(
            f"the list holds {str(named)[-60:]!r}, which is read as a file, and {others[0][:60]!r}, which is none: "
            f"give paths alone, or texts as a table, such as pyarrow.table({{{text!r}: texts}})"
        )
    return [table for one in given for table in expanded(one)]


def list_note(tables: list[Any]) -> list[str]:
    """Says that a list was read as texts, where it was."""
    return [f"{table} was read as {len(table):,} texts, not as paths" for table in tables if _is_list(table)]


def _is_list(table: Any) -> bool:
    return isinstance(table, Frame) and table.name == "the list of texts"


def _is_input(one: str) -> bool:
    if one == "-" or is_address(one):
        return True
    if len(one) > LONGEST or "\n" in one or "\0" in one:
        return False
    try:
        return suffixes(Path(one))[1] in FORMATS or Path(one).exists()
    except OSError:  # a name that is too long
        return False
