"""Texts and small tables that are safe to show: in a terminal, on a page, in a notebook. Standard library alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import Any

ROWS = 10  # of a notebook's table
LENGTH = 200  # characters of a cell


def one_line(text: str) -> str:
    """Without line breaks, and with control characters (a terminal would obey them) made visible.

    The same for the marks that turn the direction of writing: with them a text shows what it does not say.
    """
    return "".join(
        char if char.isprintable() or char in "\u200c\u200d" else "\N{REPLACEMENT CHARACTER}"
        for char in " ".join(text.split())
    )


def shorten(text: str, length: int = LENGTH) -> str:
    """One line of at most ``length`` characters; a cut one ends in an ellipsis."""
    line = one_line(text[: 4 * length])
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def html_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], more: str = "") -> str:
    """A table of at most ten rows for ``_repr_html_``: everything escaped, no style or script of its own.

    Numbers stand on the right. ``more``: a line under it; a note says where rows are left out.
    """
    body = list(islice(rows, ROWS + 1))
    said = [more] if more else []
    if len(body) > ROWS:
        said.append(f"the first {ROWS} rows")
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in columns)
    lines = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in body[:ROWS])
    caption = (
        f'<caption style="caption-side: top; text-align: start; white-space: nowrap"><b>{_text(title)}</b></caption>'
    )
    under = f"<p>{_text('; '.join(said))}</p>" if said else ""
    thead = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<div><table>{caption}{thead}<tbody>{lines}</tbody></table>{under}</div>"


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f'<td dir="auto" style="text-align: start">{_text("-" if value is None else value)}</td>'
    number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return f'<td style="text-align: right">{number}</td>'


def _text(value: Any) -> str:
    return escape(shorten(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))


def human_bytes(count: float) -> str:
    """A number of bytes as people say it: 1.2 GB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"
