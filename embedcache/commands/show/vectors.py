"""What import and vectors print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, plural

if TYPE_CHECKING:
    from embedcache.extraction.job import ExtractReport
    from embedcache.vectors.write import VectorsReport


def imported(report: ExtractReport) -> None:
    done = f"imported at {report.rows_per_second:,.0f} rows/s"
    same = f", {report.duplicates:,} with the text of an earlier row" if report.duplicates else ""
    click.echo(f"{report.cache}: {plural(report.rows, 'row')} {done}{same}; {report.seconds:.1f} s in all")
    notes = {
        f"{report.blank:,} with a blank text": report.blank,
        f"{report.dropped:,} of the old cache dropped: no longer in the input": report.dropped,
        f"{plural(report.repaired, 'damaged block')} made again": report.repaired,
        **{f"{n:,} without a value in {column!r}": n for column, n in report.missing_labels.items()},
    }
    for note, count in notes.items():
        if count:
            click.echo(f"  {note}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def interrupted(cache: str) -> str:
    """Read from the file itself, so that it is true."""
    from embedcache.cache import open_cache
    from embedcache.errors import EmbedcacheError

    again = "the same command continues from there"
    try:
        with open_cache(cache) as opened:
            missing = max(opened.missing_rows(*output) for output in opened.outputs)
            return f"Interrupted: {opened.rows - missing:,} of {opened.rows:,} rows are saved in {cache}; {again}."
    except EmbedcacheError:
        return f"Interrupted before the first vector: {cache} is unchanged; run the same command to start again."


def written(report: VectorsReport) -> None:
    what = f"{report.rows:,} vectors of {report.dim} x {report.dtype} ({report.pooling})"
    beside = f", with {', '.join(report.columns)}" if report.columns else ""
    click.echo(cell(f"{report.output}: {what}{beside}; {report.seconds:.1f} s"))
