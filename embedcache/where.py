"""Which rows of a cache may be found: those with a text, and those that meet conditions such as "label=positive"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.cache.strings import Strings

CHUNK_ROWS = 8192  # rows whose bytes are compared at once


def rows_where(cache: Cache, conditions: Iterable[str]) -> np.ndarray:
    """bool [N]: the rows that meet all conditions.

    Each is "column=value" on a label or a kept column, or several of these with commas between. Several values of one
    column mean any of them, several columns mean all of them.

    Raises:
        EmbedcacheError: no condition in the text; no such column or value; no row meets them all.
    """
    columns = list(dict.fromkeys([*cache.labels_names, *cache.column_names]))
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        for column, value in _split(condition, columns):
            if column not in columns:
                raise EmbedcacheError(
                    f"{cache.path} has no column '{column}' to filter by; it has: {', '.join(columns) or 'none'}; "
                    "extract with --keep adds one"
                )
            wanted.setdefault(column, []).append(value)
    among = np.ones(cache.rows, dtype=bool)
    for column, values in wanted.items():
        among &= np.logical_or.reduce([_equals(cache, column, value) for value in values])
    if not among.any():
        raise EmbedcacheError(f"no row of {cache.path} meets all of --where: leave one condition out")
    return among


def _split(condition: str, columns: list[str]) -> Iterator[tuple[str, str]]:
    """The (column, value) pairs. A comma separates them only where a column and = follow: names and values may hold
    commas and = themselves.
    """
    names = "|".join(map(re.escape, sorted(columns, key=len, reverse=True)))
    for part in re.split(rf",(?=\s*(?:{names})\s*=)", condition):
        known = re.fullmatch(rf"\s*({names})\s*=(.*)", part, re.DOTALL)
        column, equals, value = (known[1], "=", known[2]) if known else part.partition("=")
        if not equals:
            raise EmbedcacheError(f'--where "{part}" is no condition: write COLUMN=VALUE, as in "label=positive"')
        yield column if known else column.strip(), value


def not_blank(texts: Strings) -> np.ndarray:
    """bool [N]: the texts that are more than white space."""
    filled = np.diff(texts.offsets) > 0
    rows = np.flatnonzero(filled)
    # Only a text that begins with white space, or with a byte of other than ASCII, can be white space alone.
    first = texts.data[texts.offsets[rows]]
    for row in rows[(first <= ord(" ")) | np.isin(first, (0xC2, 0xE1, 0xE2, 0xE3))]:
        filled[row] = not texts[int(row)].isspace()
    return filled


def _equals(cache: Cache, column: str, value: str) -> np.ndarray:
    """bool [N]: rows whose label or kept value is ``value``, if need be without the blanks around it."""
    for asked in (value, value.strip()):
        if column not in cache.labels_names:
            mask = _same_bytes(cache.column(column), asked.encode(errors="replace"))
        else:
            codes, classes = cache.labels(column)
            mask = np.asarray(codes == classes.index(asked)) if asked in classes else np.zeros(cache.rows, dtype=bool)
        if mask.any():
            return mask
    known = cache.labels(column)[1] if column in cache.labels_names else list(dict.fromkeys(cache.column(column)))
    raise _no_value(column, value.strip(), known)


def _same_bytes(strings: Strings, value: bytes) -> np.ndarray:
    """bool [N]: which strings are ``value``; only those of its length are looked at."""
    mask = np.diff(strings.offsets) == len(value)
    rows = np.flatnonzero(mask)
    for start in range(0, len(rows), CHUNK_ROWS):
        part = rows[start : start + CHUNK_ROWS]
        raw = strings.data[strings.offsets[part][:, None] + np.arange(len(value))]
        mask[part] = (raw == np.frombuffer(value, dtype=np.uint8)).all(axis=1)
    return mask


def _no_value(column: str, value: str, known: list[str]) -> EmbedcacheError:
    close = difflib.get_close_matches(value, known[:10_000], n=1)
    meant = f" (did you mean '{close[0]}'?)" if close else ""
    shown = ", ".join(known[:10]) + (f", ... ({len(known)} in all)" if len(known) > 10 else "")
    other = re.search(r",\s*([^,=]+?)\s*=", value)  # a second condition, on a column that is not there?
    also = f"; there is no column '{other[1]}'" if other else ""
    return EmbedcacheError(f"no row has {column}={value}{meant}; values of {column}: {shown}{also}")
