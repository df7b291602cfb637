"""What drift prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, make_table, print_tables

if TYPE_CHECKING:
    from embedcache.drift.job import DriftReport, TellingRow
    from embedcache.drift.labels import LabelShift

ROWS, CLASSES = 5, 20  # shown; --json has all


def drift(report: DriftReport) -> None:
    low, high = report.interval
    told = "they differ" if report.differs else "no difference that chance could not make"
    sides = f"{cell(report.new)} ({report.rows_new:,} rows) beside {cell(report.old)} ({report.rows_old:,} rows)"
    click.echo(f"{sides}: {told}")
    click.echo(f"A head tells new rows from old ones with AUC {report.auc:.3f} (95% interval {low:.3f} to {high:.3f})")
    if report.differs:
        _rows("New rows that look least like the old ones:", report.telling_new)
        _rows("Old rows that look least like the new ones:", report.telling_old)
    if report.words:
        table = make_table("word", "old texts", "new texts", right=["old texts", "new texts"])
        for word in report.words:
            table.add_row(cell(word.word, 40), f"{word.old:.1%}", f"{word.new:.1%}")
        print_tables(table)
    for one in report.labels:
        _labels(one)
    if report.columns:
        values = "most different values, old and new"
        table = make_table("column", "p", "", values, right=["p"], text=values)
        for column in report.columns:
            unit = "g" if column.test != "chi-squared" else ".1%"
            pairs = (f"{cell(v, 25) or '(blank)'} {old:{unit}}, {new:{unit}}" for v, old, new in column.values)
            p = "<0.001" if column.p < 0.001 else f"{column.p:.3f}"
            table.add_row(cell(column.column, 30), p, "differs" if column.differs else "", "; ".join(pairs))
        print_tables(table)
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def _rows(title: str, rows: Sequence[TellingRow]) -> None:
    click.echo(f"\n{title}")
    for row in rows[:ROWS]:
        click.echo(f"  row {row.row:,}: {cell(row.text, 100)}")


def _labels(one: LabelShift) -> None:
    if not one.stable:
        click.echo(
            f"\n{cell(one.column)}: no estimate of the classes' shares among the new rows: the head, right on "
            f"{one.accuracy:.1%} of the old rows, tells the {len(one.classes):,} classes apart too poorly"
        )
        return
    click.echo(
        f"\n{cell(one.column)}: shares among the new rows, estimated (expectation maximization; the head is right on "
        f"{one.accuracy:.1%} of the old rows)"
    )
    known = any(share.new is not None for share in one.classes)
    table = make_table("class", "old", "new, estimated", "95% interval", *(["new, labelled"] if known else []))
    for share in sorted(one.classes, key=lambda share: -abs(share.estimate - share.old))[:CLASSES]:
        low, high = share.interval
        given = ["" if share.new is None else f"{share.new:.1%}"] if known else []
        estimate = (f"{share.old:.1%}", f"{share.estimate:.1%}", f"{low:.1%} to {high:.1%}")
        table.add_row(cell(visible(share.label), 40), *estimate, *given)
    print_tables(table)
