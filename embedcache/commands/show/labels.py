"""What labels and relabel print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, make_table, plural, print_tables

if TYPE_CHECKING:
    from embedcache.labelling.corrected import LabelsReport
    from embedcache.labelling.relabel import RelabelReport

SHOWN = 10  # kinds of changes, people


def labels(report: LabelsReport) -> None:
    if report.labels_from is not None:
        changed = ", ".join(f"{count:,} in {cell(name, 40)}" for name, count in report.changed.items() if count)
        click.echo(f"Rows with another label than in the file: {changed or 'none'}")
        table = make_table("column", "before", "after", "rows", right=["rows"])
        for name, changes in report.changes.items():
            for before, after, count in changes[:SHOWN]:
                table.add_row(cell(name, 30), _shown(before), _shown(after), f"{count:,}")
        if table.row_count:
            print_tables(table)
        if len(report.people) > 1:
            people = [f"{cell(who, 30) or '(nobody)'} {count:,}" for who, count in report.people.items()]
            click.echo(f"Labels by {', '.join(people[:SHOWN])}{', ...' if people[SHOWN:] else ''}")
        disputed = {name: count for name, count in report.disagreements.items() if count}
        if disputed:
            where = ", ".join(f"{count:,} in {cell(name, 30)}" for name, count in disputed.items())
            click.echo(f"Texts on which people differ: {where} (--also disagreement writes what each gave)")
    if report.output is not None:
        click.echo(f"{report.output}: {plural(report.rows, 'row')}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def relabel(report: RelabelReport) -> None:
    name = Path(report.journal).name
    by = f" by {cell(report.who, 40)}" if report.who else ""
    same = f"; {report.unchanged:,} are as they were" if report.unchanged else ""
    click.echo(f"{name}: {plural(report.written, 'label')}{by} in {cell(report.label, 40)} written{same}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def _shown(label: str | None) -> str:
    return "(none)" if label is None else cell(visible(label), 30)
