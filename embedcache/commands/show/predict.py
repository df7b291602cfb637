"""What predict prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from embedcache.common.label_names import visible
from embedcache.common.screen import cell, fits, label_text, make_table, plural, print_tables

if TYPE_CHECKING:
    from rich.table import Table

    from embedcache.prediction.job import FileReport
    from embedcache.prediction.predictions import Prediction
    from embedcache.prompting.job import ZeroShotReport


READABLE = 20  # characters of a text that are left in a table


def predictions(predicted: Sequence[Prediction]) -> None:
    """A table; of several label columns, one label column each."""
    columns = list(predicted[0].columns) if predicted else []
    if columns:
        table = make_table(*columns, "text")
        for one in predicted:
            shown = [_said(one.columns[column]) for column in columns]
            table.add_row(*(cell(label, 40) for label in shown), cell(one.text, 300))
        print_tables(table)
        explanations(predicted)
        return
    levels = list(dict.fromkeys(step["level"] for one in predicted for step in one.levels))
    table = make_table("label", "probability", *levels, "text", right=["probability"])
    for one in predicted:
        if levels:
            steps = {step["level"]: f"{label_text(step['label'])} {step['probability']:.3f}" for step in one.levels}
            chance = f"{one.levels[-1]['probability']:.3f}" if one.levels else "-"
            on = [cell(steps.get(level, ""), 40) for level in levels]
            table.add_row(cell(_said(vars(one))), chance, *on, cell(one.text, 300))
            continue
        of = [one.label] if isinstance(one.label, str) else one.label if isinstance(one.label, list) else []
        chances = ", ".join(f"{one.probabilities[label]:.3f}" for label in of) or "-"
        table.add_row(cell(_said(vars(one))), chances, cell(one.text, 300))
    print_tables(table)
    explanations(predicted)


def explanations(predicted: Sequence[Prediction]) -> None:
    """Of each text and label column: words with their effects, then the nearest training rows on both sides."""
    for one in predicted:
        for column, about in (one.columns or {"": vars(one)}).items():
            why = about.get("explanation")
            if why is None:
                continue
            name = f"{column}: " if column else ""
            click.echo(f"\n{cell(name + (why['label'] or 'value'), 60)}: {cell(one.text, 80)}")
            words = ", ".join(f"{cell(word['word'], 30)} {word['effect']:+.3f}" for word in why["words"])
            click.echo(f"  without each word it loses: {words or 'there are no words'}")
            if why["nearest"] and why["label"] is not None:
                click.echo(f"  {why['agreeing']} of the {why['nearest']} nearest training rows have this label")
            for title, rows in (("like", why["supporting"]), ("unlike", why["opposing"])):
                for row in rows:
                    label = cell(label_text(row["label"]), 30)
                    said = f"row {row['row']:,}, {label}, cosine {row['similarity']:.3f}"
                    click.echo(f"  {title} {said}: {cell(row['text'], 90)}")


def _said(prediction: Mapping[str, Any]) -> str:
    """The label, or why there is none."""
    reason = prediction.get("reason")
    return f"({reason})" if reason else label_text(prediction["label"])


def predicted_file(report: FileReport) -> None:
    labelled_rows(report)
    for column, labels in report.columns.items():
        if said := [*filter(None, [counts_of(labels)]), *_refused(report.refused.get(column))]:
            click.echo(f"  {cell(column)}: {'; '.join(said)}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def _refused(reasons: Mapping[str, int] | None) -> list[str]:
    """How many rows have no label, and why."""
    return [f"without a label {', '.join(f'{count:,} {why}' for why, count in reasons.items())}"] if reasons else []


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

    def of(new: Sequence[str], width: int) -> Table:
        table = make_table(*shown, *new, *text, right=numbers, text=column)
        for row in first:
            table.add_row(*(cell(_shown(row[name]), width if name in text else 40) for name in (*shown, *new, *text)))
        return table

    labels = [name for name in predicted if not name.endswith(("_probability", "_reason"))]
    fewer = [name for name in predicted if name in labels or name not in numbers[1:]]
    kept = next((some for some in (predicted, fewer) if fits(of(some, READABLE))), labels)  # what a narrow screen holds
    print_tables(of(kept, 300))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return f"{value:.3f}" if isinstance(value, float) else label_text(None if value is None else str(value))
