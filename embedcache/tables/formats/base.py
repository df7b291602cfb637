"""What every format of table can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from embedcache.tables.formats.arrow_values import arrow_strings
from embedcache.tables.source import Source, check_columns

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.tables.formats.writer import TableWriter


class _Absent:
    """Stands for a key that a JSON object does not have; null is a value."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = _Absent()


@dataclass
class WholeRows:
    """Some rows with everything that is in them.

    Attributes:
        names: of the columns, in the order of the file; a CSV may have one name twice.
        columns: of each name an Arrow array, or a list of values as the format has them, ABSENT where a JSON
            object does not have the key.
        metadata: of an Arrow schema.
    """

    names: list[str]
    columns: list[Any]
    metadata: dict[bytes, bytes] | None = None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


class Sign(NamedTuple):
    """The bytes with which files begin, what such a file is, and what to do where its name says something else."""

    start: bytes
    what: str
    advice: str


class Format(ABC):
    """One format, without state of its own: all of it is the Source's.

    Attributes:
        suffixes: of its files' names.
        what: what such a file is, and ``named_by``: where its columns have their names from, for the table in the docs.
        signs: how its files begin that are often given the name of a table of text.
        writer: what writes such files; None where they are only read.
        is_text: characters in some encoding, which a compressed file may hold too.
        by_lines: a line is never more than one row.
        has_header: the columns are named apart from the rows, so that a file may have columns and no rows.
        lists_as_json: a cell cannot be a list, so that a list of labels is written as JSON.
        is_free: which columns there are, and of which types, is known only from all rows.
    """

    suffixes: ClassVar[tuple[str, ...]] = ()
    what: ClassVar[str] = ""
    named_by: ClassVar[str] = ""
    signs: ClassVar[tuple[Sign, ...]] = ()
    writer: ClassVar[type[TableWriter] | None] = None
    is_text = True
    by_lines = False
    has_header = False
    lists_as_json = False
    is_free = False

    @abstractmethod
    def columns(self, source: Source) -> list[str]:
        """The names of the columns, [] of an empty file."""

    @abstractmethod
    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        """The columns ``wanted`` (column -> the option that asked for it) of at most ``batch_rows`` rows at a time.

        A column is an Arrow array of large strings (whose bytes go into the cache as they are), or where the format
        does not give that, a list of values as it gives them. Columns in ``required`` must be in every row, where
        rows may be without one.
        """

    @abstractmethod
    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        """All columns of at most ``batch_rows`` rows at a time, with the types that the format gives them.

        Of JSON each batch has the columns that its own rows have.
        """

    def place(self, source: Source, row: int) -> str:
        """Where the file's row (counted from 0) is, in words."""
        return f"row {row + 1}"

    def advice(self, source: Source, names: Sequence[str]) -> str:
        """A likely reason why a column is missing, or ""."""
        return ""


class OneReader(Format):
    """A format that reads the columns asked for as it reads all of them."""

    @abstractmethod
    def read(self, source: Source, wanted: Mapping[str, str] | None, batch_rows: int) -> Iterator[WholeRows]:
        """The columns ``wanted``, in that order, or all, of at most ``batch_rows`` rows at a time."""

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        for part in self.read(source, wanted, batch_rows):
            yield part.columns

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        return self.read(source, None, batch_rows)


class ArrowFormat(Format):
    """A format whose columns Arrow knows by their types."""

    is_text = False
    has_header = True

    def columns(self, source: Source) -> list[str]:
        return list(self.schema(source).names)

    def batches(
        self, source: Source, wanted: Mapping[str, str], required: set[str], batch_rows: int
    ) -> Iterator[list[Any]]:
        check_columns(source, wanted, self.columns(source))
        for part in self.arrow(source, list(wanted), batch_rows):
            yield [arrow_strings(source, part.column(name)) for name in wanted]

    def whole(self, source: Source, batch_rows: int) -> Iterator[WholeRows]:
        for part in self.arrow(source, None, batch_rows):
            yield WholeRows(part.schema.names, part.columns, part.schema.metadata)

    @abstractmethod
    def schema(self, source: Source) -> pa.Schema:
        """The columns and their types."""

    @abstractmethod
    def arrow(self, source: Source, columns: list[str] | None, batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Columns of these names, which are there, or all, of at most ``batch_rows`` rows at a time, as they are."""


class Records(Format):
    """A format whose records can be read one by one, slowly, to find where something is."""

    @abstractmethod
    def records(self, source: Source) -> Iterator[tuple[int, Any]]:
        """(the line in which it begins, record) of every record; raises the error of the first that is broken."""

    def place(self, source: Source, row: int) -> str:
        return f"line {next(islice(self.records(source), row, None))[0]}"
