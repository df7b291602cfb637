""".sqlite: a table of a database, the only one, or the one that is named."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from embedcache.errors import EmbedcacheError
from embedcache.tables.formats.base import OneReader, Sign, WholeRows
from embedcache.tables.limits import batches_of
from embedcache.tables.source import Source, check_columns, one_line

if TYPE_CHECKING:
    import sqlite3

SMALLEST = 4  # bytes that a row takes at least: a damaged tree may lead to the same page again and again
LENGTH = 0  # SQLITE_LIMIT_LENGTH
ROOM = 1 << 16  # bytes of a row beside its longest text


class Sqlite(OneReader):
    """Row by row, in the order in which the table has them.

    Only stored tables are read, since a view can compute for ever; the file is opened as SQLite advises for files
    from strangers, read-only and without trust in its schema.
    """

    suffixes = (".sqlite", ".sqlite3", ".db")
    what = "a table of an SQLite database"
    named_by = "the table's columns"
    signs = (Sign(b"SQLite format 3\0", "an SQLite database", "name it .sqlite"),)
    is_free = True
    is_text = False
    has_header = True
    lists_as_json = True

    def columns(self, source: Source) -> list[str]:
        with _opened(source) as (database, table):
            return _names(database, table)

    def read(self, source: Source, wanted: Mapping[str, str] | None, batch_rows: int) -> Iterator[WholeRows]:
        with _opened(source) as (database, table):
            names = _names(database, table)
            if wanted is not None:
                check_columns(source, wanted, names)
                names = list(wanted)
            most, done = source.file.stat().st_size // SMALLEST, 0
            # NOT INDEXED: an index that holds all columns asked for would give its own order.
            query = f"SELECT {', '.join(map(_quoted, names))} FROM {_quoted(table)} NOT INDEXED"
            for rows in batches_of(database.execute(query), batch_rows, _length):
                done += len(rows)
                if done > most:
                    raise _damaged(source, "more rows than fit the file")
                yield WholeRows(names, [list(column) for column in zip(*rows, strict=True)])


def _length(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if isinstance(value, (str, bytes)))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _names(database: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in database.execute(f"PRAGMA table_info({_quoted(table)})")]


@contextmanager
def _opened(source: Source) -> Generator[tuple[sqlite3.Connection, str], None, None]:
    """A connection, and the name of the table to read."""
    if source.copy is not None:
        raise EmbedcacheError(f"{source.path}: a database cannot be read from a stream: save it to a file")
    try:
        import sqlite3
    except ImportError:
        advice = "export the table as .csv"
        raise EmbedcacheError(f"{source.path}: this Python was built without SQLite: {advice}") from None
    try:
        with closing(sqlite3.connect(f"{source.file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            if hasattr(database, "setlimit"):  # from Python 3.11 on
                database.setlimit(LENGTH, min(source.most + ROOM, 10**9))
            for setting in ("trusted_schema = OFF", "cell_size_check = ON"):
                database.execute(f"PRAGMA {setting}")
            yield database, _table(source, database)
    except (sqlite3.Error, OverflowError) as error:
        raise _damaged(source, one_line(error)) from error


def _damaged(source: Source, why: str) -> EmbedcacheError:
    return EmbedcacheError(
        f"{source.path}: not an SQLite database, or a damaged one ({why}): copy it again, or export the table as .csv"
    )


def _table(source: Source, database: sqlite3.Connection) -> str:
    """The table named, or the only one; a virtual table has no page of its own."""
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' "
    names = [name for (name,) in database.execute(query + "ESCAPE '\\' ORDER BY rowid")]
    if source.sheet in names:
        return str(source.sheet)
    if not names:
        raise EmbedcacheError(f"{source.path} has no table: export the rows as .csv")
    if source.sheet is not None:
        raise EmbedcacheError(f"{source.path} has no table '{source.sheet}'; it has: {', '.join(names)}")
    if len(names) > 1:
        raise EmbedcacheError(f"{source.path} has {len(names)} tables: choose one with --sheet: {', '.join(names)}")
    return str(names[0])
