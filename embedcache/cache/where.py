"""Which rows of a cache may be found: those with a text, and those that meet conditions such as "label=positive"."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache.labels import unlabelled
from embedcache.cache.strings import blank_rows
from embedcache.cache.where_grammar import All, AnyOf, Condition, Not, Tree, parse
from embedcache.errors import EmbedcacheError
from embedcache.tables.decimals import has_decimal_commas, point

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.cache import Cache
    from embedcache.cache.strings import Strings

MOST_COMPLETED = 1 << 24  # bytes of a column whose values are offered to a shell
CHUNK_ROWS = 8192  # rows whose bytes are compared at once


def rows_where(cache: Cache, conditions: Iterable[str]) -> np.ndarray:
    """bool [N]: the rows that meet all conditions, each written as in ``conditions``.

    Columns are those of labels and the kept ones, and where none has the name, ``text`` and ``id``. On a label column
    of lists = and != mean: has the label, has it not; [] is the empty list; contains and starts with are met by one of
    the labels. Rows without a label meet no condition on it. = and in compare letter by letter, contains and starts
    with take capital and small letters as the same. < <= > >= compare numbers (see ``has_decimal_commas``), or ISO
    dates where the value is one; rows without a number or date there meet none. Several conditions, or several with
    commas between, that ask for values of one column with = are alternatives: a row must meet one of them.

    Raises:
        EmbedcacheError: not a condition; no such column or value; no row meets them all.
    """
    columns = condition_columns(cache)
    among = np.ones(cache.rows, dtype=bool)
    either: dict[str, np.ndarray] = {}
    for tree in (tree for condition in conditions for tree in parse(condition, columns)):
        mask = _meets(cache, tree)
        if isinstance(tree, Condition) and tree.operator == "=":
            either[tree.column] = either[tree.column] | mask if tree.column in either else mask
        else:
            among &= mask
    for mask in either.values():
        among &= mask
    if not among.any():
        raise EmbedcacheError(f"no row of {cache.path} matches --where; loosen the condition")
    return among


def _meets(cache: Cache, tree: Tree) -> np.ndarray:
    """bool [N]: the rows that meet it."""
    if isinstance(tree, All):
        return np.logical_and.reduce([_meets(cache, part) for part in tree.parts])
    if isinstance(tree, AnyOf):
        return np.logical_or.reduce([_meets(cache, part) for part in tree.parts])
    if isinstance(tree, Not):
        return ~_meets(cache, tree.part) & _labelled(cache, tree.part)
    if tree.column not in condition_columns(cache):
        known = ", ".join(condition_columns(cache))
        raise EmbedcacheError(
            f"{cache.path} has no column '{tree.column}' to filter by; it has: {known}; extract with --keep adds one"
        )
    if tree.operator == "=":
        return _equals(cache, tree)
    if tree.operator == "!=":
        return ~_equals(cache, tree) & _labelled(cache, tree)
    if tree.operator in WITHIN:
        return _within(cache, tree)
    return _compares(cache, tree)


def condition_columns(cache: Cache) -> list[str]:
    """The names of what can be asked for."""
    ids = [] if cache.ids is None else ["id"]
    return list(dict.fromkeys([*cache.label_names, *cache.column_names, "text", *ids]))


def column_values(cache: Cache, column: str, most: int) -> list[str]:
    """The different values of a column, [] where there are more than ``most``, or too much to look through."""
    if column in cache.label_names:
        names = cache.labels(column)[1]
    else:
        strings = _strings(cache, column)
        names = coded(strings)[1] if len(strings.data) <= MOST_COMPLETED else []
    return names if len(names) <= most else []


def _strings(cache: Cache, column: str) -> Strings:
    """A column that is not one of labels."""
    if column in cache.column_names:
        return cache.column(column)
    if column == "text":
        return cache.texts
    assert cache.ids is not None
    return cache.ids


WITHIN = {"contains": "match_substring", "starts with": "starts_with"}  # of pyarrow.compute


def _within(cache: Cache, condition: Condition) -> np.ndarray:
    """bool [N] for contains and starts with."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column, value = condition.column, condition.value
    if not value:
        raise EmbedcacheError(f"--where {column} {condition.operator}: nothing follows: write a word, or a part of one")

    def meets(strings: pa.Array) -> np.ndarray:
        return np.asarray(getattr(pc, WITHIN[condition.operator])(strings, value, ignore_case=True))

    if column not in cache.label_names:
        return meets(_arrow(_strings(cache, column), pa.large_string()))
    codes, classes = cache.labels(column)
    found = meets(pa.array(classes, pa.large_string()))
    if codes.ndim == 2:
        return np.asarray((codes[:, found] == 1).any(axis=1))
    return np.append(found, False)[codes]  # -1: the last


def _arrow(strings: Strings, kind: pa.DataType) -> pa.Array:
    """A view of them."""
    import pyarrow as pa

    buffers = [None, pa.py_buffer(strings.offsets), pa.py_buffer(strings.data)]
    return pa.Array.from_buffers(kind, len(strings), buffers)


def _labelled(cache: Cache, tree: Tree) -> np.ndarray:
    """bool [N]: the rows that have a label in every label column that the tree asks for."""
    if not isinstance(tree, Condition):
        parts = (tree.part,) if isinstance(tree, Not) else tree.parts
        return np.logical_and.reduce([_labelled(cache, part) for part in parts])
    if tree.column not in cache.label_names:
        return np.ones(cache.rows, dtype=bool)
    return ~unlabelled(cache.labels(tree.column)[0])


def _compares(cache: Cache, condition: Condition) -> np.ndarray:
    """bool [N] for < <= > >=."""
    column, value = condition.column, condition.value.strip()
    if column not in cache.label_names:
        codes, values = coded(_strings(cache, column))
    elif cache.holds_lists(column):
        raise EmbedcacheError(f"--where {column}{condition.operator}{value}: {column} holds lists; use = or !=")
    else:
        codes, values = cache.labels(column)
    commas = has_decimal_commas(values, column)
    asked = _measure(value, commas)
    if asked is None:
        raise EmbedcacheError(
            f"--where {column}{condition.operator}{value}: {value!r} is neither a number (12.5) nor a date (2010-12-31)"
        )
    compare: Callable[[Any, Any], bool] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}[
        condition.operator
    ]

    measured = [_measure(text, commas) for text in values]
    alike = [type(found) is type(asked) for found in measured]
    filled = next((text for text in values if text.strip()), None)
    if filled is not None and not any(alike):
        kind = "date like 2010-12-31" if isinstance(asked, date) else "number"
        raise EmbedcacheError(
            f"--where {column}{condition.operator}{value}: no row has a {kind} in {column!r}, the first has "
            f"{' '.join(filled.split())[:40]!r}; =, contains and starts with compare texts as they are written"
        )
    holds = [same and compare(found, asked) for found, same in zip(measured, alike, strict=True)]
    return np.append(np.array(holds, dtype=bool), False)[codes]  # -1: the last


def _measure(text: str, commas: bool) -> float | date | None:
    """A number, which may have a decimal comma, or an ISO date."""
    with suppress(ValueError):
        number = float(point(text) if commas and "," in text else text)
        return None if math.isnan(number) else number
    with suppress(ValueError):
        return date.fromisoformat(text.strip()[:10])
    return None


def coded(strings: Strings) -> tuple[np.ndarray, list[str]]:
    """Codes int32 [N] and the values that they number."""
    import pyarrow as pa

    coded = _arrow(strings, pa.large_binary()).dictionary_encode()
    return coded.indices.to_numpy(), [value.decode(errors="replace") for value in coded.dictionary.to_pylist()]


def not_blank(texts: Strings) -> np.ndarray:
    """bool [N]: the texts that are more than white space."""
    return ~blank_rows((texts.data, texts.offsets))


def _equals(cache: Cache, condition: Condition) -> np.ndarray:
    """bool [N]: rows whose label or kept value is the one asked, or whose list has it.

    A value without quotes may have blanks around it, or be written after == in place of =.
    """
    column, value = condition.column, condition.value
    is_label = column in cache.label_names
    bare = [] if condition.quoted else [value.strip(), value.removeprefix("=").strip()]
    for asked in dict.fromkeys([value, *bare]):
        same = _same_label(cache, column, asked) if is_label else _same_bytes(_strings(cache, column), asked)
        if same.any():
            return same
    if is_label and cache.holds_lists(column) and value.strip().startswith("["):
        raise EmbedcacheError(
            f"--where {column}={value.strip()}: {column} holds lists, a condition asks for one label of them: write "
            f"{column}=LABEL (several of these mean any of them), or {column}=[] for the rows without any"
        )
    known = cache.labels(column)[1] if is_label else coded(_strings(cache, column))[1]
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
    other = re.search(
        r"(?:,|\band\b|\bor\b)\s*([^,=<>]+?)\s*(?:!?=|[<>])", value
    )  # a second condition, on a column that is not there?
    also = f"; there is no column '{other[1]}'" if other else ""
    return EmbedcacheError(f"no row has {column}={value}{meant}; values of {column}: {shown}{also}")
