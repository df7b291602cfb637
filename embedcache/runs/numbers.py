"""Columns of numbers: what a regression learns, and weights of rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.tables.decimals import has_decimal_commas, point
from embedcache.tables.rows import MISSING_LABELS

LARGEST = float(np.finfo(np.float32).max)


def numbers_of(cache: Cache, column: str) -> tuple[np.ndarray, Sequence[str]]:
    """(float64 [N], NaN where a cell is blank and infinity where it is no finite number; the cells)."""
    cells = _cells(cache, column)
    values = _numbers(cells)
    given_cells = (text for text in cells if text.strip() not in MISSING_LABELS)
    if np.isinf(values).any() and has_decimal_commas(given_cells, column):
        values = _numbers([point(text) for text in cells])
    return values, cells


def row_weights(cache: Cache, column: str, label: str, labelled: np.ndarray) -> np.ndarray:
    """float64 [N]: the weight of each row in a kept or label column; 0 in rows without a label.

    labelled: bool [N], the rows that need one. Raises EmbedcacheError for a column that is not there, and the first
    row whose cell is blank or not a finite number from 0 up.
    """
    option = f"--weight {column}"
    if column == label:
        raise EmbedcacheError(f"{option}: that is the label itself; name the column of the rows' weights")
    if column in cache.label_names and cache.holds_lists(column):
        raise EmbedcacheError(f"{option}: that column holds lists; name one with a number a row")
    if column not in (*cache.label_names, *cache.column_names):
        known = ", ".join([*cache.column_names, *(name for name in cache.label_names if name != label)])
        there = f"it has {known}" if known else f"run extract again with --keep {column}"
        raise EmbedcacheError(f"{option}: {cache.path} keeps no such column; {there}")
    values, cells = numbers_of(cache, column)
    wrong = labelled & ~((values >= 0) & np.isfinite(values))
    if wrong.any():
        row = int(wrong.argmax())
        what = "is blank" if np.isnan(values[row]) else f"has {cells[row][:40]!r}"
        raise EmbedcacheError(
            f"{option}: row {row:,} of {cache.path}, counted from 0, {what} there: give every labelled row a number "
            "from 0 up (0 leaves it out of the training)"
        )
    return np.where(labelled, values, 0.0)


def _numbers(cells: Sequence[str]) -> np.ndarray:
    """float64, NaN where a cell is blank, infinity where it is not a number."""
    return np.array([np.nan if text.strip() in MISSING_LABELS else _number(text) for text in cells], np.float64)


def _cells(cache: Cache, column: str) -> Sequence[str]:
    if column not in cache.label_names:
        return cache.column(column)
    codes, names = cache.labels(column)
    names = [*names, ""]  # its last entry is for code -1
    return [names[code] for code in codes.tolist()]


def _number(text: str) -> float:
    """Infinity for what is not a number, or too large for float32."""
    try:
        number = float("inf" if "_" in text else text)  # to Python 1_000 is a number, to people it is not
    except ValueError:
        return np.inf
    return number if abs(number) <= LARGEST else np.inf
