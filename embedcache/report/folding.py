"""A page that is read from top to bottom in a minute: what few read stays behind a line that opens it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from embedcache.report.blocks import Folded, Grid, Mistakes, Section

LONG_TABLE, FIRST_ROWS = 10, 6  # rows of a table that is shown whole, and of one that is not
FIRST_MISTAKES = 5
BEHIND = {"recipe": "Every setting", "versions": "Cache, encoder and versions"}  # sections of which all is


def fold(sections: Sequence[Section]) -> list[Section]:
    """The sections with the rest of long tables and lists folded."""
    return [replace(section, blocks=_section(section)) for section in sections]


def _section(section: Section) -> list[Any]:
    if section.id in BEHIND:
        return [Folded(BEHIND[section.id], section.blocks)]
    return [part for block in section.blocks for part in _block(block)]


def _block(block: Any) -> list[Any]:
    if isinstance(block, Grid) and not block.folded and len(block.rows) > LONG_TABLE:
        rest = replace(block, rows=block.rows[FIRST_ROWS:], caption=f"{block.caption}, from row {FIRST_ROWS + 1} on")
        return [replace(block, rows=block.rows[:FIRST_ROWS]), Folded(f"{len(rest.rows)} more rows", [rest])]
    if isinstance(block, Mistakes) and len(block.items) > FIRST_MISTAKES + 1:
        rest_of = replace(block, items=block.items[FIRST_MISTAKES:], start=FIRST_MISTAKES + 1)
        return [replace(block, items=block.items[:FIRST_MISTAKES]), Folded(f"{len(rest_of.items)} more", [rest_of])]
    return [block]
