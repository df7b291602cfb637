"""What import and vectors print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.commands.show.cache import row_notes
from embedcache.common.screen import cell, plural

if TYPE_CHECKING:
    from embedcache.extraction.job import ExtractReport
    from embedcache.vectors.write import VectorsReport


def imported(report: ExtractReport) -> None:
    done = f"imported at {report.rows_per_second:,.0f} rows/s"
    same = f", {report.duplicates:,} with the text of an earlier row" if report.duplicates else ""
    click.echo(f"{report.cache}: {plural(report.rows, 'row')} {done}{same}; {report.seconds:.1f} s in all")
    row_notes(report)


def written(report: VectorsReport) -> None:
    what = f"{report.rows:,} vectors of {report.dim} x {report.dtype} ({report.pooling})"
    beside = f", with {', '.join(report.columns)}" if report.columns else ""
    click.echo(cell(f"{report.output}: {what}{beside}; {report.seconds:.1f} s"))
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")
