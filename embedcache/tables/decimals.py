"""Numbers in cells: with a decimal point, or where all cells of a column show it, a decimal comma."""

from __future__ import annotations

import re
from collections.abc import Iterable

from embedcache.errors import EmbedcacheError, note

WHOLE = re.compile(r"[+-]?\d+")
COMMA = re.compile(r"[+-]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+(?:[eE][+-]?\d+)?")  # 3,5 and 1.234,5
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")  # as 1,234, which may be a thousand


def has_decimal_commas(cells: Iterable[str], column: str) -> bool:
    """Whether every cell that is not blank is a whole number or has a decimal comma, and at least one surely has.

    Raises:
        EmbedcacheError: each comma may also stand between thousands.
    """
    unclear, certain = "", ""
    for cell in map(str.strip, cells):
        if not cell or WHOLE.fullmatch(cell):
            continue
        if not COMMA.fullmatch(cell):
            return False
        if THOUSANDS.fullmatch(cell):
            unclear = unclear or cell
        else:
            certain = certain or cell
    if unclear and not certain:
        raise EmbedcacheError(
            f"column {column!r} holds {unclear!r}, which may be {point(unclear)} or {unclear.replace(',', '')}: write "
            "its numbers with a point, as in 1234.5"
        )
    if certain:
        note(f"column {column!r} is read with decimal commas: {certain} is {point(certain)}")
    return bool(certain)


def point(cell: str) -> str:
    """A number with a decimal comma, as Python writes it."""
    return cell.replace(".", "").replace(",", ".")
