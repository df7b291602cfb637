"""Tables and texts for a terminal or a pipe: what every report on the screen is made of."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

from embedcache.common.display import one_line
from embedcache.common.label_names import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

WIDEST = 160


def make_console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else max(100, min(shutil.get_terminal_size((100, 24)).columns, WIDEST))
    return Console(width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_tables(*tables: Table | str) -> None:
    """Text from files is printed as it is: never as markup, links or emoji codes."""
    console = make_console()
    for table in tables:
        console.print(table)


def fits(table: Table) -> bool:
    """Whether nothing of the table has to be cut or folded."""
    console = make_console()
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width


def make_table(*columns: str, right: Sequence[str] = (), text: str = "text") -> Table:
    """``text`` names the column whose cells may take several lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        title, wraps = cell(column, 40), column == text
        table.add_column(title, justify="right" if column in right else "left", overflow="fold", no_wrap=not wraps)
    return table


def make_score_table(*columns: Any, left: Sequence[str] = (), wraps: str | None = None) -> Table:
    """A table of numbers: narrow gaps, titles of two lines."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for column in columns:
        side: Any = "left" if column in left else "right"
        table.add_column(column, justify=side, overflow="fold", no_wrap=column != wraps)
    return table


def cell(text: str, length: int = 1000) -> Any:
    """A text of the user's in one line, cut to a width (of which a Chinese character takes two)."""
    from rich.text import Text

    line = Text(one_line(text[: 4 * length]))
    line.truncate(length, overflow="ellipsis")
    return line


def number(value: float | None, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def label_text(label: str | list[str] | float | None) -> str:
    """A label, several of one row, or a value; a label in quotes where it would look like another."""
    if label is None or isinstance(label, str):
        return "-" if label is None else visible(label)
    return f"{label:.6g}" if isinstance(label, float) else ", ".join(map(visible, label)) or "none"


def plural(count: int, word: str) -> str:
    return f"{count:,} {word}" + ("" if count == 1 else "s")
