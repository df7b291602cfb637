"""Texts as people hand them over: one, a list, a column of pandas, polars or Arrow, an array. Others are named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from embedcache.common.frames import Tabular
from embedcache.errors import EmbedcacheError


def as_texts(given: Any, column: str | None = None) -> list[str]:
    """The texts; of a table those of ``column``.

    Raises:
        EmbedcacheError: a table without the name of a column, numbers, something missing among the texts (the first is
            named by its place, counted from 0), or something other than a text.
    """
    if isinstance(given, Tabular):
        given = given.to_arrow()
    if not isinstance(given, str):
        names = _column_names(given)
        if names is not None:
            given = _chosen(given, names, column)
        elif column is not None:
            raise EmbedcacheError(f"text={column!r} names a column, and {type(given).__name__} has none: leave it out")
    values = _listed(given)
    if all(type(value) is str for value in values):
        texts = values
    else:
        if not all(isinstance(value, str) for value in values):
            _refuse(values)
        texts = [str(value) for value in values]  # NumPy's strings
    for place, text in enumerate(texts):
        if not text.isascii() and not _encodable(text):
            raise EmbedcacheError(f"text {place} holds half a surrogate pair, which is not a character: remove it")
    return texts


def _column_names(given: Any) -> list[str] | None:
    """The columns of a pandas, polars, Arrow or datasets table, or of a dict of columns; None for anything else."""
    if isinstance(given, Mapping):
        return [str(name) for name in given]
    names = getattr(given, "column_names", None)
    names = getattr(given, "columns", None) if names is None else names
    return None if names is None else [str(name) for name in names]


def _chosen(table: Any, names: list[str], column: str | None) -> Any:
    shown = ", ".join(map(repr, names[:10])) + (", ..." if names[10:] else "") or "none"
    if column is None:
        first = repr(names[0]) if len(names) == 1 else "'text'" if "text" in names else "COLUMN"
        raise EmbedcacheError(
            f"a {type(table).__name__} has columns: say which one holds the texts, table[{first}] or text={first}; it "
            f"has {shown}"
        )
    if column not in names:
        raise EmbedcacheError(f"no column {column!r}; the table has {shown}")
    return table[column]


def _listed(given: Any) -> list[Any]:
    if isinstance(given, str):
        return [given]
    kind = getattr(getattr(given, "dtype", None), "kind", "O")
    if kind in "biufc" and not hasattr(given, "to_pylist"):
        shape = list(getattr(given, "shape", ()))
        raise EmbedcacheError(
            f"these are numbers ({given.dtype} {shape}), not texts: pass vectors by name, vectors=X, with two "
            "dimensions [n, D]"
        )
    for method in ("to_pylist", "tolist", "to_list"):  # Arrow; NumPy and pandas; polars
        if hasattr(given, method):
            values = getattr(given, method)()
            return values if isinstance(values, list) else [values]
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise EmbedcacheError(f"texts must be a str or a list of them, not {type(given).__name__} ({given!r:.40})")
    return list(given)


def _refuse(values: list[Any]) -> NoReturn:
    """Name the first value that is not a text, and how many there are."""
    kinds = [None if isinstance(value, str) else _kind(value) for value in values]
    place, kind = next((i, kind) for i, kind in enumerate(kinds) if kind is not None)
    alike = Counter(kinds)[kind]
    others = f" (and {alike - 1:,} more of {len(values):,})" if alike > 1 else ""
    what = "leave it out, or write a text in its place" if kind == "missing" else "make it a str"
    if kind in ("a list", "a number"):
        what += "; pass vectors by name, vectors=X"
    raise EmbedcacheError(f"text {place} is {kind}: {values[place]!r:.40}{others}; {what}")


def is_missing(value: Any) -> bool:
    """None, NaN, and what pandas has for it."""
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (value != value) is True


def _kind(value: Any) -> str:
    if is_missing(value):
        return "missing"
    if isinstance(value, (int, float)) or hasattr(value, "dtype"):
        return "a number"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "bytes" if isinstance(value, (bytes, bytearray)) else f"of type {type(value).__name__}"


def _encodable(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False
