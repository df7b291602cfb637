"""What a page is made of: sections of blocks that page.html knows how to show. Plain data; the page escapes it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass
class Facts:
    """Names and what they are."""

    kind: ClassVar[str] = "facts"
    pairs: list[tuple[str, str]]


@dataclass
class Cards:
    """The few numbers that people look for first: (what, number, more)."""

    kind: ClassVar[str] = "cards"
    cards: list[tuple[str, str, str]]


@dataclass
class Paragraph:
    """A paragraph."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass
class Notes:
    """What a person should know before trusting the numbers."""

    kind: ClassVar[str] = "notes"
    notes: list[str]


@dataclass
class Grid:
    """Cells are shown as they are; words: the columns of texts, which stand on the left and may wrap."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: list[list[Any]]
    words: Sequence[int] = (0,)
    folded: bool = False  # the numbers behind a picture


@dataclass
class Figure:
    """A picture (plots), what it shows for those who cannot see it, and the line under it."""

    kind: ClassVar[str] = "figure"
    svg: str
    description: str
    caption: str


@dataclass
class FigureRow:
    """Figures beside each other, as far as the page is wide enough."""

    kind: ClassVar[str] = "row"
    figures: list[Figure]


@dataclass
class Matrix:
    """A confusion matrix of few classes, as a table; shares: of the row's class, what shades a cell."""

    kind: ClassVar[str] = "matrix"
    caption: str
    names: list[str]
    titles: list[str]
    counts: list[list[int]]
    shares: list[list[float]]


@dataclass
class Mistakes:
    """Texts with what was predicted: (head line, small print, text or None).

    The head line in parts, by turns a name from the data and words of ours, so that no name can rearrange the line.
    """

    kind: ClassVar[str] = "mistakes"
    items: list[tuple[list[str], str, str | None]]
    start: int = 1  # the number of the first


@dataclass
class Folded:
    """Blocks behind a line that opens them."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: list[Any]


@dataclass
class Section:
    """id: unique on the page."""

    title: str
    id: str
    blocks: list[Any] = field(default_factory=list)


@dataclass
class Chapter:
    """One label column; title: None where there is only one."""

    title: str | None
    id: str
    sections: list[Section]


def count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def seconds(value: float | None) -> str:
    if value is None:
        return "-"
    if value < 120:
        return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"
    return f"{value / 60:.1f} min"
