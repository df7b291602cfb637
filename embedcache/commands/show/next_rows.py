"""What next prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, make_table, print_tables
from embedcache.labelling.opened import labels_line

if TYPE_CHECKING:
    from embedcache.active_learning.job import Label, NextReport

SHOWN = 10  # rows, where no table was written
FEW = 3  # beside a table


def next_rows(report: NextReport) -> None:
    known = f"{report.labelled:,} rows with a label in {cell(report.label)}, {report.unlabelled:,} without"
    click.echo(f"{known}; heads: {cell(report.heads)}")
    if report.labels is not None:
        click.echo(labels_line(report.labels))
    if report.score is not None:
        score, interval = report.score, report.score.interval
        within = "" if interval is None else f" (95% interval {interval[0]:.3f} to {interval[1]:.3f})"
        click.echo(f"{score.metric} over the labels given, out of sample: {score.value:.3f}{within}")
    table = make_table(
        "row", "guess", "p", "label", "text, and why it is shown", right=["row", "p"], text="text, and why it is shown"
    )
    shown = SHOWN if report.output is None else FEW
    for one in report.rows[:shown]:
        p = "" if one.probability is None else f"{one.probability:.0%}"
        why = f"{cell(one.text, 100)}\n{one.queue}: {cell(one.reason, 100)}"
        table.add_row(str(one.row), _words(one.guess), p, _words(one.label), why)
    print_tables(table)
    if (more := len(report.rows) - shown) > 0:
        click.echo(f"... and {more:,} more{'' if report.output else ': -o OUT writes them all, --json prints them'}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")
    if report.output is not None:
        name = cell(report.output)
        click.echo(f"{len(report.rows):,} rows in {name}: fill in the column {cell(report.label)}")


def _words(label: Label) -> str:
    if label is None:
        return ""
    if isinstance(label, list):
        return cell(", ".join(label), 30)
    return f"{label:.4g}" if isinstance(label, float) else cell(label, 30)
