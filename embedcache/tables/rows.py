"""Input files to rows, whatever their format: texts, labels, ids and kept columns, checked.

Files are streamed, a batch of rows at a time. ``tables/`` has the formats.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from embedcache.errors import EmbedcacheError, note
from embedcache.tables.formats.plain_text import PlainText
from embedcache.tables.limits import UNLIMITED, too_long
from embedcache.tables.read import columns_of, open_source, read_batches
from embedcache.tables.source import Source, existing_file, known_encoding
from embedcache.tables.stream import Table

Label = str | tuple[str, ...] | None  # one label, several (or none of them), not labelled

# Label cells that say "not labelled", after stripping blanks. "None" is not among them: it may be a class.
MISSING_LABELS = frozenset(["", "nan", "NaN", "NAN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "Null"])
TEXT_COLUMN = "text"  # where nobody names another
DEFAULT = "default"  # in a list of such values: all of these


def missing_labels(values: Sequence[str] | None) -> frozenset[str]:
    """The label cells that say "not labelled": as given, with "default" for MISSING_LABELS; an empty cell always."""
    if values is None:
        return MISSING_LABELS
    given = {value.strip() for value in ([values] if isinstance(values, str) else values)}
    return frozenset(given - {DEFAULT} | {""} | (MISSING_LABELS if DEFAULT in given else set()))


@dataclass(frozen=True)
class Columns:
    """Which columns of the input are read, and as what. ``text`` None: the rows have no texts."""

    text: str | None = TEXT_COLUMN
    labels: tuple[str, ...] = ()
    id: str | None = None
    keep: tuple[str, ...] = ()
    missing: frozenset[str] = MISSING_LABELS  # label cells that say "not labelled"

    @property
    def wanted(self) -> dict[str, str]:
        """Column -> the command-line option that asked for it; each column once, the text first."""
        asked = [(self.text, "--text")] if self.text is not None else []
        asked += [(name, "--label") for name in self.labels]
        asked += [(self.id, "--id")] if self.id is not None else []
        asked += [(name, "--keep") for name in self.keep]
        wanted: dict[str, str] = {}
        for name, option in asked:
            wanted.setdefault(name, option)
        return wanted


@dataclass
class Rows:
    """One batch of n rows; a blank text stays a row.

    Attributes:
        texts, ids, keep: Arrow arrays of type large_string without nulls: UTF-8 bytes and where each value begins;
            None where there are no texts or ids.
        labels: column -> a label for each row, or in a column of lists a tuple of different labels; None is no label.
    """

    texts: Any
    labels: dict[str, list[Label]]
    ids: Any | None
    keep: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)


def read_rows(
    paths: Sequence[Table],
    columns: Columns,
    *,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    batch_rows: int = 8192,
) -> Iterator[Rows]:
    """Stream the rows of one or several files, in order, in batches of at most ``batch_rows``.

    Values stay as written; numbers and booleans, where a format has such, become what ``json.dumps`` writes. Labels
    that are empty, null or one of ``columns.missing`` become None; a null text becomes "". In JSON a row may be without
    a label (missing) or a kept column (""), never without the text or the id. Kept lists and objects become JSON. A
    label column may hold lists, in CSV, TSV and workbooks as JSON: in every row that is labelled, or in none. How a
    file was understood, where that was not certain, is an ``InputNote``.

    Raises:
        EmbedcacheError: a file is missing, empty, broken, of an unknown kind or not in ``encoding``, has not
            all columns, or has labels that cannot be used. Paths are checked at the call, contents when rows are read.
    """
    sources = [open_source(path, encoding=encoding, separator=separator, sheet=sheet) for path in paths]
    if not sources:
        raise EmbedcacheError("no input file: name at least one")
    kinds: dict[str, type] = {}
    return (rows for source in sources for rows in _read_file(source, columns, batch_rows, kinds))


def read_lines(path: str | Path, *, encoding: str = "utf-8") -> list[str]:
    """All lines of a text file, whatever its name, blank ones too, without their line ends."""
    source = Source(existing_file(Path(path)), PlainText(), "", known_encoding(encoding))
    return [text for rows in _read_file(source, Columns(), 8192, {}) for text in rows.texts.to_pylist()]


def column_names(
    path: Table, *, encoding: str = "utf-8", separator: str | None = None, sheet: str | None = None
) -> list[str]:
    """The columns of a file: its header, its schema, or of JSON the keys of its first 8,192 rows."""
    return columns_of(open_source(path, encoding=encoding, separator=separator, sheet=sheet))


def text_column(asked: str | None, before: str | None, names: Callable[[], Sequence[str]]) -> str:
    """Which column has a table's texts.

    Args:
        asked: The column that somebody named; None: the one called as ``before``, where there is one, else "text".
        before: What the texts were called in the table of the cache; None: nothing is known of it.
        names: The table's columns; asked only where it matters.
    """
    if asked is not None:
        return asked
    if before is None or before not in names():
        return TEXT_COLUMN
    note(f"the texts are column {before!r}, as in the table of the cache (--text says otherwise)")
    return before


def _read_file(source: Source, columns: Columns, batch_rows: int, kinds: dict[str, type]) -> Iterator[Rows]:
    required = {name for name in (columns.text, columns.id) if name is not None}
    first = 0  # the batch's first row in this file
    for values in read_batches(source, columns.wanted, required, batch_rows):
        if values and len(values[0]):
            yield _to_rows(source, columns, values, first, kinds)
            first += len(values[0])
    if not first:
        has_header = source.format.has_header and bool(columns_of(source))
        what = "has a header but no rows" if has_header else "is empty"
        raise EmbedcacheError(f"{source.path} {what}: there is nothing to embed; check that it is the right file")


def _to_rows(source: Source, columns: Columns, values: list[Any], first: int, kinds: dict[str, type]) -> Rows:
    """A batch that starts at row ``first`` of the file, checked; ``kinds`` is that of ``_check_kind``."""
    strings: dict[str, Any] = {}
    labels: dict[str, list[Label]] = {}
    for (name, option), column in zip(columns.wanted.items(), values, strict=True):
        if name in (columns.text, columns.id) or name in columns.keep:
            one_text = name in (columns.text, columns.id)
            strings[name] = _as_strings(source, name, option, column, first, one_text)
        if name in columns.labels:
            labels[name] = _as_labels(source, name, column, first, columns.missing)
            _check_kind(source, name, labels[name], first, kinds)
            together = "".join(chain.from_iterable(label or () for label in set(labels[name])))
            if len(together) > source.most:
                lengths = (sum(map(len, label or ())) for label in labels[name])
                row = next((row for row, length in enumerate(lengths) if length > source.most), None)
                if row is not None:
                    _refuse_long(source, name, first + row)
            if "\0" in together or not _encodable(together):
                _refuse_characters(source, name, ["".join(label or ()) for label in labels[name]], first)
    return Rows(
        texts=strings[columns.text] if columns.text is not None else None,
        labels=labels,
        ids=strings[columns.id] if columns.id is not None else None,
        keep={name: strings[name] for name in columns.keep},
    )


def _as_strings(source: Source, name: str, option: str, column: Any, first: int, one_text: bool) -> Any:
    """The column as Arrow strings; of ``one_text`` every value must be one, else lists and objects become JSON."""
    import pyarrow as pa

    if isinstance(column, list):
        try:
            values = [v if type(v) is str else _as_text(v, not one_text) for v in column]
        except TypeError:
            _refuse_nested(source, name, option, column, first)
        try:
            column = pa.array(values, pa.large_string())
        except UnicodeEncodeError:
            _refuse_characters(source, name, values, first)
    if column.null_count:
        column = column.fill_null("")
    data, ends = utf8(column)
    if not data.all():
        _refuse_characters(source, name, column.to_pylist(), first)
    long = np.flatnonzero(np.diff(ends) > source.most)
    if len(long):
        _refuse_long(source, name, first + int(long[0]))
    return column


def _place(source: Source, row: int) -> str:
    """Where a row is, of a file that has been read before: now no line is too long."""
    return source.format.place(replace(source, most=UNLIMITED), row)


def _refuse_long(source: Source, name: str, row: int) -> NoReturn:
    raise too_long(f"{source.path} {_place(source, row)}: column '{name}'", source.most, "cut it")


def _as_text(value: Any, nested: bool) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, (list, dict, bytes)) and not nested:
        raise TypeError
    if isinstance(value, (bool, int, float, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # Parquet's dates, times and decimals


def _refuse_nested(source: Source, name: str, option: str, column: list[Any], first: int) -> NoReturn:
    row, value = next((i, v) for i, v in enumerate(column) if isinstance(v, (list, dict, bytes)))
    raise EmbedcacheError(
        f"{source.path} {_place(source, first + row)}: column '{name}' ({option}) holds {_kind(value)}: "
        "a text is needed; make it a string"
    )


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, dict) else "bytes" if isinstance(value, bytes) else "a list"


def _as_labels(source: Source, name: str, column: Any, first: int, missing: frozenset[str]) -> list[Label]:
    values = column if isinstance(column, list) else column.to_pylist()
    try:
        if set(map(type, values)) <= {str, type(None)}:
            known = {value: _as_label(value, source.format.lists_as_json, missing) for value in set(values)}
            return [known[value] for value in values]
        return [_as_label(value, source.format.lists_as_json, missing) for value in values]
    except ValueError:
        _refuse_label(source, name, values, first, missing)


def _refuse_label(source: Source, name: str, values: list[Any], first: int, missing: frozenset[str]) -> NoReturn:
    for row, value in enumerate(values):
        try:
            _as_label(value, source.format.lists_as_json, missing)
        except ValueError as error:
            where = f"{source.path} {_place(source, first + row)}: column '{name}' (--label)"
            raise EmbedcacheError(f"{where} holds {error}") from None
    raise AssertionError("called without reason")


def _as_label(value: Any, as_json: bool, missing: frozenset[str]) -> Label:
    """A cell's label or labels, each once. Raises ValueError with what it holds that cannot be one."""
    if as_json and isinstance(value, str) and value.lstrip().startswith("["):
        value = _json_list(value)
    if isinstance(value, list):
        return tuple(dict.fromkeys(_list_item(one, missing) for one in value))
    if isinstance(value, (dict, bytes)):
        raise ValueError(f"{_kind(value)}: a label or a list of labels is needed; make it a string")
    text = value if type(value) is str else _as_text(value, False)
    return None if text.strip() in missing else text


def _json_list(cell: str) -> Any:
    """The list that a cell spells, or the cell, which only looks like one."""
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        if cell.strip().startswith(("['", '["')):  # as Python prints a list
            raise ValueError(f'{cell[:40]!r}, which is not a JSON list: write it as ["a", "b"]') from None
        return cell


def _list_item(value: Any, missing: frozenset[str]) -> str:
    if isinstance(value, (list, tuple, dict, bytes)):
        raise ValueError(f"a list that holds {_kind(value)}: labels are strings, numbers or booleans")
    text = _as_text(value, False)
    if text.strip() in missing:
        what = repr(value) if isinstance(value, str) else "null"
        raise ValueError(f"a list that holds {what}, which is not a label: leave it out (an empty list: no label fits)")
    return text


def _check_kind(source: Source, name: str, labels: list[Label], first: int, kinds: dict[str, type]) -> None:
    """All lists or all single labels; ``kinds`` keeps for each column which of the two its first label was."""
    found = set(map(type, labels)) - {type(None)}
    if not found or found == {kinds.setdefault(name, next(type(label) for label in labels if label is not None))}:
        return
    row = next(i for i, label in enumerate(labels) if label is not None and type(label) is not kinds[name])
    here = "a list" if isinstance(labels[row], tuple) else f"{str(labels[row])[:40]!r}, which is not a list"
    before = "lists" if kinds[name] is tuple else "single labels"
    where = f"{source.path} {_place(source, first + row)}"
    raise EmbedcacheError(
        f"{where}: column '{name}' (--label) holds {here}, but {before} in earlier "
        "rows: write a list in every row that is labelled (a blank one is not labelled), or in none"
    )


def utf8(strings: Any) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (uint8, a view) and offsets (int64 [n + 1], the first is 0) of Arrow strings as ``Rows`` has them."""
    _, offsets, data = strings.buffers()
    ends = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return np.frombuffer(data or b"", np.uint8)[ends[0] : ends[-1]], ends - ends[0]


def _refuse_characters(source: Source, name: str, values: list[str], first: int) -> NoReturn:
    """One of them holds NUL, or what UTF-8 cannot write (JSON can spell half a surrogate pair)."""
    row, value = next((i, v) for i, v in enumerate(values) if "\0" in v or not _encodable(v))
    what = "half a surrogate pair, which is not a character: remove it"
    if "\0" in value:
        what = "a NUL character: remove it, or pass --encoding utf-16 if that is what the file is in"
    raise EmbedcacheError(f"{source.path} {_place(source, first + row)}: column '{name}' holds {what}")


def _encodable(text: str) -> bool:
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False
