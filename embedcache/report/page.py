"""The page: blocks and plots through jinja2, which escapes every text, into one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from typing import Any

from embedcache.common.display import one_line
from embedcache.report import plots
from embedcache.report.blocks import Chapter, Section
from embedcache.report.contents import ReportContents
from embedcache.report.ending import make_ending
from embedcache.report.folding import fold
from embedcache.report.sections import make_parts

# No script, nothing from elsewhere; the pictures in pictures (heat maps) are data: addresses.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
LONGEST = 100  # characters of a cell


def make_page(contents: ReportContents) -> str:
    """The HTML document; the same run and texts give the same bytes."""
    with plots.drawing():
        parts, ending = make_parts(contents), make_ending(contents)
    name = contents.path.resolve().name
    created = contents.info.get("created", "")
    return render("embedcache report", name, "report of the heads", f"Trained {created}", parts, ending)


def render(kind: str, heading: str, what: str, line: str, parts: Sequence[Chapter], ending: Sequence[Section]) -> str:
    """A page of sections. kind, line: above and under the heading. what: in the title, behind the heading."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    files = resources.files("embedcache.report")
    page, style = (files.joinpath(name).read_text("utf-8") for name in ("page.html", "page.css"))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = _line
    environment.filters["words"] = one_line
    environment.filters["svg"] = Markup  # of plots.py, which draws no text from the data
    return environment.from_string(page).render(
        kind=kind,
        heading=heading,
        what=what,
        line=line,
        policy=POLICY,
        style=Markup(style),
        parts=[replace(part, sections=fold(part.sections)) for part in parts],
        ending=fold(ending),
    )


def _line(value: Any) -> str:
    """A cell: one line of what a text says, without marks that would turn its direction, and not without end."""
    text = str(value)
    line = one_line(text[: 4 * LONGEST])
    return line if len(line) <= LONGEST else line[: LONGEST - 1].rstrip() + "…"
