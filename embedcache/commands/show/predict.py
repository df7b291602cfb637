"""What predict prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, label_text, make_table, plural, print_tables

if TYPE_CHECKING:
    from embedcache.prediction.job import FileReport
    from embedcache.prediction.predictions import Prediction
    from embedcache.prompting.job import ZeroShotReport


def predictions(predicted: Sequence[Prediction]) -> None:
    """A table; of several label columns, one label column each."""
    columns = list(predicted[0].columns) if predicted else []
    if columns:
        table = make_table(*columns, "text")
        for one in predicted:
            shown = [label_text(one.columns[column]["label"]) for column in columns]
            table.add_row(*(cell(label, 40) for label in shown), cell(one.text, 300))
        print_tables(table)
        return
    table = make_table("label", "probability", "text", right=["probability"])
    for one in predicted:
        of = [one.label] if isinstance(one.label, str) else one.label if isinstance(one.label, list) else []
        chances = ", ".join(f"{one.probabilities[label]:.3f}" for label in of) or "-"
        table.add_row(cell(label_text(one.label)), chances, cell(one.text, 300))
    print_tables(table)


def predicted_file(report: FileReport) -> None:
    labelled_rows(report)
    for column, labels in report.columns.items():
        if counts := counts_of(labels):
            click.echo(f"  {cell(column)}: {counts}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def labelled_rows(report: FileReport | ZeroShotReport) -> None:
    """Where the labelled rows are; without an output, the first of them."""
    rows = f"{plural(report.rows, 'row')} labelled in {report.seconds:.1f} s"
    if report.output is None:
        first_rows(report.first, report.predicted, report.text)
        click.echo(f"{report.input}: {rows}; -o OUT writes all of them, with their columns")
    else:
        click.echo(f"{report.output}: {rows}, into {', '.join(report.predicted)}")


def counts_of(labels: dict[str, int]) -> str:
    """How many rows each label has, those without any left out."""
    return ", ".join(f"{cell(visible(label), 40)} {count:,}" for label, count in labels.items() if count)


def first_rows(first: Sequence[dict[str, Any]], predicted: Sequence[str], column: str) -> None:
    """The new columns, and what tells which row it is; ``column`` has the texts."""
    names = list(first[0]) if first else []
    known = [name for name in names if name not in predicted]
    shown = [name for name in known[:1] if name != column]
    text = [name for name in (column,) if name in known]
    numbers = [name for name in predicted if name.endswith("_probability")]
    table = make_table(*shown, *predicted, *text, right=numbers, text=column)
    for row in first:
        table.add_row(*(cell(_shown(row[name]), 300 if name in text else 40) for name in (*shown, *predicted, *text)))
    print_tables(table)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.3f}" if isinstance(value, float) else label_text(None if value is None else str(value))
