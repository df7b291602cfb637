"""Which rows of a cache may be found: those with a text, and those that meet conditions such as "label=positive"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from embedcache.cache.labels import unlabelled
from embedcache.cache.strings import blank_rows
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.cache import Cache
    from embedcache.cache.strings import Strings

CHUNK_ROWS = 8192  # rows whose bytes are compared at once


def rows_where(cache: Cache, conditions: Iterable[str]) -> np.ndarray:
    """bool [N]: the rows that meet all conditions.

    Each is "column=value" or "column!=value" on a label or a kept column, or several of these with commas between. On
    a label column of lists they mean: has the label, has it not; [] is the empty list. Rows without a label meet no
    condition on it. Several values of one column mean any of them, but with != none of them; several columns mean all.

    Raises:
        EmbedcacheError: no condition in the text; no such column or value; no row meets them all.
    """
    columns = list(dict.fromkeys([*cache.labels_names, *cache.column_names]))
    wanted: dict[str, list[str]] = {}
    among = np.ones(cache.rows, dtype=bool)
    for condition in conditions:
        for column, unequal, value in _split(condition, columns):
            if column not in columns:
                raise EmbedcacheError(
                    f"{cache.path} has no column '{column}' to filter by; it has: {', '.join(columns) or 'none'}; "
                    "extract with --keep adds one"
                )
            if not unequal:
                wanted.setdefault(column, []).append(value)
                continue
            among &= ~_equals(cache, column, value)
            if column in cache.labels_names:
                among &= ~unlabelled(cache.labels(column)[0])
    for column, values in wanted.items():
        among &= np.logical_or.reduce([_equals(cache, column, value) for value in values])
    if not among.any():
        raise EmbedcacheError(f"no row of {cache.path} meets all of --where: leave one condition out")
    return among


def _split(condition: str, columns: list[str]) -> Iterator[tuple[str, bool, str]]:
    """(column, whether it is !=, value) of each condition.

    A comma separates them where a column and = or != follow: names and values may hold commas and = themselves.
    """
    names = "|".join(map(re.escape, sorted(columns, key=len, reverse=True)))
    for part in re.split(rf",(?=\s*(?:{names})\s*!?=)", condition):
        known = re.fullmatch(rf"\s*({names})\s*(!?)=(.*)", part, re.DOTALL)
        known = known or re.fullmatch(r"\s*([^=]*?)\s*(!?)=(.*)", part, re.DOTALL)
        if not known:
            raise EmbedcacheError(
                f'--where "{part}" is no condition: write COLUMN=VALUE or COLUMN!=VALUE, as in "label=positive"'
            )
        yield known[1], known[2] == "!", known[3]


def not_blank(texts: Strings) -> np.ndarray:
    """bool [N]: the texts that are more than white space."""
    return ~blank_rows((texts.data, texts.offsets))


def _equals(cache: Cache, column: str, value: str) -> np.ndarray:
    """bool [N]: rows whose label or kept value is ``value``, or whose list has it; if need be without blanks around."""
    is_label = column in cache.labels_names
    for asked in (value, value.strip()):
        same = _same_label(cache, column, asked) if is_label else _same_bytes(cache.column(column), asked)
        if same.any():
            return same
    if is_label and cache.label_kind(column) == "multilabel" and value.strip().startswith("["):
        raise EmbedcacheError(
            f"--where {column}={value.strip()}: {column} holds lists, a condition asks for one label of them: write "
            f"{column}=LABEL (several of these mean any of them), or {column}=[] for the rows without any"
        )
    known = cache.labels(column)[1] if is_label else list(dict.fromkeys(cache.column(column)))
    raise _no_value(column, value.strip(), known)


def _same_label(cache: Cache, column: str, value: str) -> np.ndarray:
    codes, classes = cache.labels(column)
    if value in classes:
        code = classes.index(value)
        return np.asarray(codes == code if codes.ndim == 1 else codes[:, code] == 1)
    if value == "[]" and codes.ndim == 2:
        return np.asarray(~codes.any(axis=1))  # not labelled is -1
    return np.zeros(cache.rows, dtype=bool)


def _same_bytes(strings: Strings, text: str) -> np.ndarray:
    """bool [N]: which strings are ``text``; only those of its length are looked at."""
    value = text.encode(errors="replace")
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
    other = re.search(r",\s*([^,=]+?)\s*!?=", value)  # a second condition, on a column that is not there?
    also = f"; there is no column '{other[1]}'" if other else ""
    return EmbedcacheError(f"no row has {column}={value}{meant}; values of {column}: {shown}{also}")
