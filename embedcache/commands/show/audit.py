"""What people read on the screen after audit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, make_table, plural, print_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from embedcache.audit import AuditReport
    from embedcache.audit.count import ClassCount
    from embedcache.audit.report import AuditRow, Duplicates

SHOWN = 10
SHOWN_COPIES = 3
TEXT = 120
LONG = 14  # characters of a label, with which the text has no room beside all columns


def audit(report: AuditReport, output: str | None) -> None:
    """The first of each kind."""
    click.echo(
        f"{report.cache}: {report.judged:,} of {plural(report.rows, 'row')} judged by {cell(report.label, 40)} "
        f"({len(report.classes):,} classes; {report.folds} folds, {report.neighbours} neighbours); "
        f"{report.seconds:.1f} s"
    )
    for why, rows in report.not_judged.items():
        click.echo(f"  {rows:,} {why}: not judged")
    _labels(report)
    _duplicates(report)
    _outliers(report)
    click.echo("")
    for note in report.notes:
        click.echo(f"Note: {cell(note)}")
    if output is None:
        click.echo("-o audit.csv writes all of it to a file.")
    else:
        from embedcache.audit.report import beside_table
        from embedcache.common.whole_file import output_target

        whole = "" if output_target(output) is None else f", {beside_table(output)} the whole report"
        click.echo(f"{output} has all of it{whole}.")


def _labels(report: AuditReport) -> None:
    errors = report.errors
    low, high = errors.interval
    click.echo(
        f"\nLabel errors: about {errors.estimate:,} of {report.judged:,} rows (95% interval {low:,} to {high:,})"
    )
    if not report.labels:
        return
    print_tables(_per_class(errors.per_class))
    click.echo(_how_far(report))
    shown = report.labels[:SHOWN]
    wide = max(len(visible(name)) for one in shown for name in (one.label or "", one.suggested)) > LONG
    sure = ["wrong", "p", *([] if wide else ["heads", "neighb", "words"])]
    table = make_table("row", "label", "suggested", *sure, "text", right=["row", *sure])
    for one in shown:
        said = (one.wrong, one.probability, one.heads, one.neighbours, one.words)[: len(sure)]
        table.add_row(
            str(one.row),
            cell(visible(one.label or ""), 30),
            cell(visible(one.suggested), 30),
            *("-" if p is None else f"{p:.3f}" for p in said),
            cell(one.text, TEXT),
        )
    print_tables(table)
    each = "" if wide else "; then what heads, neighbours\nand words each make of it"
    click.echo(f"wrong: the chance that the label is an error. p: of the row's own label{each}.")
    click.echo("Hard texts have a low p without being wrong.")


def _per_class(classes: Sequence[ClassCount]) -> Table:
    """Print the classes with the most errors."""
    table = make_table("labelled", "rows", "errors", "interval", right=["rows", "errors", "interval"])
    for one in sorted(classes, key=lambda one: -one.estimate)[:SHOWN]:
        low, high = one.interval
        table.add_row(cell(visible(one.label), 30), f"{one.rows:,}", f"{one.estimate:,}", f"{low:,} to {high:,}")
    return table


def _how_far(report: AuditReport) -> str:
    errors = report.errors
    if not errors.read:
        return "No errors are expected: the rows below are the hardest ones."
    found = f"about {errors.expected:,.0f} errors are expected among them"
    first = f" ({errors.expected_first:,.0f} among the first {errors.estimate:,})" if errors.estimate else ""
    return f"Worst first; read the first {errors.read:,}: {found}{first}. {report.found['label']:,} rows are listed."


def _duplicates(report: AuditReport) -> None:
    found = report.found
    across = f"; {found['across']:,} across {cell(report.split, 40)}" if report.split else ""
    click.echo(
        f"\nDuplicates: {plural(found['duplicate'], 'group')}; {found['conflict']:,} with different labels{across}"
    )
    if not report.duplicates:
        return
    table = make_table("group", "kind", "row", "label", *(["side"] if report.split else []), "text", right=["group"])
    for number, group in enumerate(report.duplicates[:SHOWN], 1):
        for i, one in enumerate(_differing_first(group)[:SHOWN_COPIES]):
            name = (str(number), group.kind) if not i else ("", "")
            side = [cell(one.split or "", 20)] if report.split else []
            table.add_row(*name, str(one.row), cell(visible(one.label or ""), 30), *side, cell(one.text, TEXT))
        if len(group.rows) > SHOWN_COPIES:
            rest = f"and {plural(len(group.rows) - SHOWN_COPIES, 'row')} more"
            table.add_row("", "", "", "", *([""] if report.split else []), rest)
    print_tables(table)


def _differing_first(group: Duplicates) -> list[AuditRow]:
    """The rows, one of each side and label before the others."""
    seen: set[tuple[str | None, str | None]] = set()
    first: list[AuditRow] = []
    rest: list[AuditRow] = []
    for one in group.rows:
        (rest if (one.split, one.label) in seen else first).append(one)
        seen.add((one.split, one.label))
    return [*first, *rest]


def _outliers(report: AuditReport) -> None:
    limit = "" if report.outlier_score is None else f" further than {report.outlier_score:.2f} from their neighbors"
    click.echo(f"\nOutliers: {report.found['outlier']:,} rows{limit}")
    if not report.outliers:
        return
    table = make_table("row", "distance", "label", "text", right=["row", "distance"])
    for one in report.outliers[:SHOWN]:
        table.add_row(str(one.row), f"{one.score:.3f}", cell(visible(one.label or ""), 30), cell(one.text, TEXT))
    print_tables(table)
