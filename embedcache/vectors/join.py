"""Texts, labels, ids and other columns of vectors: from their own file, or from a table beside it, by row or by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.extraction.columns import Asked, choose_columns
from embedcache.extraction.read_input import Collected, collect
from embedcache.tables.rows import Columns, Rows, column_names, read_rows
from embedcache.tables.stream import Table
from embedcache.vectors.formats.base import BATCH_ROWS, VectorFile

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = "text"
LISTED = 3  # ids that a message names


@dataclass(frozen=True)
class AskedColumns:
    """What the user named. ``text`` None: the column of that name, where there is one; see ``extract`` for the rest."""

    text: str | None = None
    labels: str | Sequence[str] | None = None
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def named(self) -> list[str]:
        """The options that name a column."""
        given = {"--text": self.text, "--label": self.labels, "--id": self.id, "--keep": self.keep}
        return [option for option, value in given.items() if value]


def collect_rows(
    files: Sequence[VectorFile],
    counts: Sequence[int],
    tables: Sequence[Table],
    asked: AskedColumns,
    cache: Path | None,
    na: Sequence[str] | None,
    reading: dict[str, Any],
    folder: Path,
) -> tuple[Collected, list[str]]:
    """What is known of the rows of ``files``, in their order.

    Args:
        files: the vectors, read to their end.
        counts: their rows.
        tables: the tables beside them; empty: the files' own columns.
        asked: the columns that the user named.
        cache: the cache to continue, whose columns stay; None: none.
        na: label cells that mean "not labelled".
        reading: how text files are read.
        folder: where unnamed files go.

    Returns:
        (the rows, notes for the user).

    Raises:
        EmbedcacheError: no such columns, another number of rows, ids that are missing or stand twice.
    """
    own, total = [one for file in files if (one := file.table) is not None], sum(counts)
    if own and len(own) < len(files):
        own = []
    by_id = _own_ids(files, own, asked, bool(tables), reading)
    described = list(tables) or own
    if not described:
        if asked.named:
            raise EmbedcacheError(
                f"{files[0].name} holds vectors alone, so {asked.named[0]} names nothing: give a table with --table"
            )
        return _collect(iter(()), Columns(None), total, folder), [_no_texts("its number, such as 'row 0'")]
    columns, notes, text_note = _choose(described, files, asked, cache, na, reading, bool(tables))
    rows = read_rows(described, columns, **reading) if columns.wanted else iter(())
    known = _collect(rows, columns, total, folder)
    notes += text_note
    if not tables or by_id is None:
        if len(known.hashes) != total:
            raise EmbedcacheError(
                f"{', '.join(map(str, described))} has {len(known.hashes):,} rows, "
                f"{', '.join(file.name for file in files)} {total:,} vectors: they must be the same rows in the same "
                "order; or name a column that both have with --id"
            )
        return known, notes
    assert columns.id is not None
    order = _match(by_id, _strings(known.columns[columns.id]), str(files[0].name), str(tables[0]))
    return known.taken(order, folder), [*notes, f"vectors and rows of {tables[0]} are matched by {columns.id!r}"]


def _own_ids(
    files: Sequence[VectorFile], own: Sequence[Table], asked: AskedColumns, has_table: bool, reading: dict[str, Any]
) -> pa.ChunkedArray | None:
    """The ids by which the vectors are matched with a table; None: row by row."""
    import pyarrow as pa

    if not has_table:
        return None
    own_id = files[0].own_id
    name = own_id or asked.id
    if own_id is None and (name is None or not own or not all(name in column_names(one, **reading) for one in own)):
        return None
    if own_id is not None and asked.id is None:
        raise EmbedcacheError(
            f"{files[0].name} is in no order, its rows are known by {own_id}: name the table's column of these ids "
            "with --id"
        )
    assert name is not None
    return pa.chunked_array(
        [rows.ids for rows in read_rows(own, Columns(None, (), name), **reading)], pa.large_string()
    )


def _choose(
    described: Sequence[Table], files: Sequence[VectorFile], asked: AskedColumns, cache: Path | None,
    na: Sequence[str] | None, reading: dict[str, Any], has_table: bool,
) -> tuple[Columns, list[str], list[str]]:  # fmt: skip
    """(the columns to read, notes on those of the cache, a note on what stands for texts)."""
    names = column_names(described[0], **reading)
    text = asked.text or (TEXT if TEXT in names else None)
    id = asked.id or (None if has_table else files[0].own_id)
    columns, notes = choose_columns(described, Asked(text or "", asked.labels, id, asked.keep), cache, na, reading)
    if text is not None:
        return replace(columns, text=text), notes, []
    stand_in = f"its {columns.id!r}" if columns.id is not None else "its number, such as 'row 0'"
    return replace(columns, text=None), notes, [_no_texts(stand_in)]


def _no_texts(stand_in: str) -> str:
    return f"there is no column of texts, so a row's text is {stand_in}: --text names one, --table a table that has one"


def _collect(rows: Iterator[Rows], columns: Columns, total: int, folder: Path) -> Collected:
    """The rows, with something that stands for the text of each where there is none."""
    if columns.text is None:
        rows = _with_texts(rows) if columns.wanted else _numbered(total)
    return collect(rows, columns, folder)


def _with_texts(parts: Iterator[Rows]) -> Iterator[Rows]:
    first = 0
    for rows in parts:
        stop = first + next(
            len(one) for one in (rows.ids, *rows.labels.values(), *rows.keep.values()) if one is not None
        )
        yield replace(rows, texts=_numbers(first, stop) if rows.ids is None else rows.ids)
        first = stop


def _numbered(total: int) -> Iterator[Rows]:
    for start in range(0, total, BATCH_ROWS):
        yield Rows(_numbers(start, min(start + BATCH_ROWS, total)), {}, None, {})


def _numbers(start: int, stop: int) -> pa.Array:
    import pyarrow as pa

    return pa.array([f"row {i}" for i in range(start, stop)], pa.large_string())


def _strings(text: tuple[np.ndarray, np.ndarray]) -> pa.Array:
    import pyarrow as pa

    data, offsets = text
    return pa.Array.from_buffers(
        pa.large_string(), len(offsets) - 1, [None, pa.py_buffer(np.ascontiguousarray(offsets)), pa.py_buffer(data)]
    )


def _match(ids: pa.ChunkedArray, others: pa.Array, vectors: str, table: str) -> np.ndarray:
    """int64 [n]: for each vector its row of the table."""
    import pyarrow.compute as pc

    for which, where in ((ids, vectors), (others, table)):
        counts = pc.value_counts(which)
        twice = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(twice):
            raise EmbedcacheError(f"{where}: {_some(twice.field('values'))} more than once: an id names one row")
    found = pc.index_in(ids, value_set=others)
    if found.null_count:
        lost = ids.filter(pc.is_null(found))
        raise EmbedcacheError(f"{table} has no row for {_some(lost)} of {vectors}: add it, or leave the vector out")
    if len(others) > len(ids):
        lost = others.filter(pc.is_null(pc.index_in(others, value_set=ids.combine_chunks())))
        raise EmbedcacheError(f"{vectors} has no vector for {_some(lost)} of {table}: add it, or leave the row out")
    return np.asarray(found, np.int64)


def _some(ids: Any) -> str:
    named = ", ".join(repr(str(one)[:40]) for one in ids[:LISTED].to_pylist())
    return f"{'id' if len(ids) == 1 else f'{len(ids):,} ids,'} {named}{', ...' if len(ids) > LISTED else ''}"
