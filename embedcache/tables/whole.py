"""A whole table: what its columns are, then all of them, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embedcache.tables.formats.base import ABSENT
from embedcache.tables.formats.values import Kinds
from embedcache.tables.read import read_whole
from embedcache.tables.source import Source
from embedcache.tables.write import TableLayout

BATCH_ROWS = 8192


def layout_of(source: Source) -> tuple[TableLayout, list[str]]:
    """The columns of a file that has rows, and the names of those whose values have no type in common.

    Formats that need a type get strings for these: JSON where a value is not a string. A file whose
    format does not state its columns is read to its end. Raises EmbedcacheError where it cannot be read.
    """
    import pyarrow as pa

    if not source.format.is_free:
        part = next(iter(read_whole(source, BATCH_ROWS)))
        types = [getattr(column, "type", pa.string()) for column in part.columns]
        types = [pa.string() if pa.types.is_large_string(kind) and source.format.is_text else kind for kind in types]
        return TableLayout(part.names, types, part.metadata or {}), []
    kinds: dict[str, Kinds] = {}
    names: list[str] = []
    for part in read_whole(source, BATCH_ROWS):
        names = list(part.names) if not source.format.is_text else []
        for place, (name, values) in enumerate(zip(part.names, part.columns, strict=True)):
            kinds.setdefault(f"{place} {name}" if names else name, Kinds()).see(values)
    found = [kind.arrow_type for kind in kinds.values()]
    names = names or list(kinds)
    mixed = [name for name, kind in zip(names, kinds.values(), strict=True) if kind.is_mixed]
    return TableLayout(names, found), mixed


def whole_columns(source: Source, layout: TableLayout, batch_rows: int) -> Iterator[list[Any]]:
    """The columns of ``layout`` of so many rows at a time, ABSENT where the rows of a batch have none of a name."""
    for part in read_whole(source, batch_rows):
        if part.names == layout.names:
            yield part.columns
        else:
            found = dict(zip(part.names, part.columns, strict=True))
            yield [found[name] if name in found else [ABSENT] * len(part) for name in layout.names]
