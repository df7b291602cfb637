"""Numbers in cells: with a decimal point, or where all cells of a column show it, a decimal comma."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from embedcache.errors import EmbedcacheError, note

WHOLE = re.compile(r"[+-]?\d+")
COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+(?:[eE][+-]?\d+)?")  # 3,5 and 1.234,5
MANY = 20  # different values: more are said to be amounts
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # as 1,234, which may be a thousand


def as_numbers(cells: Sequence[str]) -> np.ndarray | None:
    """All of them as finite numbers, float64, with decimal points, or surely with decimal commas; else None."""
    try:
        found = np.array([float("nan" if "_" in cell else cell) for cell in cells])
    except ValueError:
        commas = _commas(cells)
        if commas is None or not commas.certain:
            return None
        found = np.array([float(point(cell.strip())) for cell in cells])
    return found if len(found) and np.isfinite(found).all() else None


def amounts(classes: Sequence[str]) -> np.ndarray | None:
    """The values of a column's classes where they are rather amounts: more than MANY, all numbers; else None."""
    return as_numbers(classes) if len(classes) > MANY else None


def has_decimal_commas(cells: Iterable[str], column: str) -> bool:
    """Whether every cell that is not blank is a whole number or has a decimal comma, and at least one surely has.

    Raises:
        EmbedcacheError: each comma may also stand between thousands.
    """
    commas = _commas(cells)
    if commas is None:
        return False
    unclear, certain = commas
    if unclear and not certain:
        raise EmbedcacheError(
            f"column {column!r} holds {unclear!r}, which may be {point(unclear)} or {unclear.replace(',', '')}: write "
            "its numbers with a point, as in 1234.5"
        )
    if certain:
        note(f"column {column!r} is read with decimal commas: {certain} is {point(certain)}")
    return bool(certain)


class _Commas(NamedTuple):
    """The first cell of each kind, or "": with a comma that may stand between thousands, and with a decimal comma."""

    unclear: str
    certain: str


def _commas(cells: Iterable[str]) -> _Commas | None:
    """None where a cell that is not blank is neither a whole number nor one with a comma."""
    unclear, certain = "", ""
    for cell in map(str.strip, cells):
        if not cell or WHOLE.fullmatch(cell):
            continue
        if not COMMA.fullmatch(cell):
            return None
        if THOUSANDS.fullmatch(cell):
            unclear = unclear or cell
        else:
            certain = certain or cell
    return _Commas(unclear, certain)


def point(cell: str) -> str:
    """A number with a decimal comma, as Python writes it."""
    return cell.replace(".", "").replace(",", ".")
