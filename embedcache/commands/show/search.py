"""What people read on the screen after search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, label_text, make_console, make_table, plural, print_tables
from embedcache.errors import EmbedcacheError

if TYPE_CHECKING:
    from embedcache.search.file import SearchFileReport
    from embedcache.search.job import SearchReport
    from embedcache.search.searcher import Found

WIDEST_CELL, NARROWEST_TEXT, GAP = 40, 40, 3  # characters


def search(report: SearchReport, columns: Sequence[str] | None = None) -> None:
    """The answers; ``columns`` beside the texts, by default id, labels and what fits of the kept ones."""
    for answer in report.answers:
        values = _shown_columns(answer.results, columns)
        table = make_table("rank", "score", "row", *values, "text", right=["rank", "score", "row"])
        for place, found in enumerate(answer.results):
            cells = [cell(of[place], WIDEST_CELL) for of in values.values()]
            table.add_row(str(found.rank), f"{found.score:.3f}", str(found.row), *cells, cell(found.text, 300))
        what = "" if answer.row is None else f"row {answer.row}: "
        print_tables(cell(f"{what}{answer.query}", 300), table)
        if len(answer.results) < report.k:
            click.echo(f"{plural(len(answer.results), 'row')}: no more can be found ({report.k} were asked for).")
        hidden = [name for name in _kept(answer.results) if name not in values]
        if hidden and columns is None:
            click.echo(f"Not shown: {cell(', '.join(hidden), 200)} (--show names columns).")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def searched_file(report: SearchFileReport) -> None:
    found = f"{plural(report.found, 'row')} found for {plural(report.queries, 'query')}".replace("querys", "queries")
    click.echo(f"{report.output}: {found} in {report.seconds:.1f} s")
    if report.blank:
        click.echo(f"  {report.blank:,} blank, without an answer")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def _kept(results: Sequence[Found]) -> list[str]:
    """Kept columns whose names are not those of labels, which are shown as such."""
    return [name for name in results[0].columns if name not in results[0].labels] if results else []


def _shown_columns(results: Sequence[Found], columns: Sequence[str] | None) -> dict[str, list[str]]:
    """Column -> what is shown of it, for each row."""
    if not results:
        return {}
    with_id = any(found.id is not None for found in results)
    names = list(columns) if columns is not None else [*(["id"] if with_id else []), *results[0].labels]
    values = {name: [_value(found, name) for found in results] for name in names}
    if columns is None:
        taken = sum(map(_width, values.items())) + sum(len(name) + GAP for name in ("rank", "score", "row"))
        room = make_console().width - NARROWEST_TEXT - taken
        for name in _kept(results):
            of = [_value(found, name) for found in results]
            if any(of) and (width := _width((name, of))) <= room:
                values[name], room = of, room - width
    return values


def _value(found: Found, name: str) -> str:
    """A row's label or labels, kept value or id. Raises EmbedcacheError for another name."""
    if name in found.labels:
        return label_text(found.labels[name])
    if name in found.columns:
        return found.columns[name]
    if name == "id" and found.id is not None:
        return found.id
    known = ", ".join([*found.labels, *found.columns, *([] if found.id is None else ["id"])]) or "none"
    raise EmbedcacheError(f"--show {name}: no such column in the cache; choose from {known}")


def _width(column: tuple[str, list[str]]) -> int:
    name, values = column
    return max(min(cell(one).cell_len, WIDEST_CELL) for one in (name, *values)) + GAP
