"""What zero-shot prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.commands.show.predict import counts_of, labelled_rows
from embedcache.common.label_names import visible
from embedcache.common.screen import cell, plural
from embedcache.runs.scores import title

if TYPE_CHECKING:
    from embedcache.prompting.job import ZeroShotReport
    from embedcache.prompting.scores import KnownScores


def labelled(report: ZeroShotReport) -> None:
    """Where the labels are, how many there are of each, and how often they are right."""
    labelled_rows(report)
    click.echo(f"  {counts_of(report.labels)}")
    if report.scores is not None:
        click.echo(f"  {_scores(report.scores)}")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")


def _scores(known: KnownScores) -> str:
    said = []
    for name, score in known.scores.items():
        if score.value is not None:
            interval = "" if score.interval is None else f" ({score.interval[0]:.3f} to {score.interval[1]:.3f})"
            said.append(f"{title(name)} {score.value:.3f}{interval}")
    grouped = "" if known.groups is None else f" in {plural(known.groups, 'group')}"
    on = f"on {plural(known.rows, 'row')} with a known {cell(visible(known.label))}{grouped}"
    return f"{', '.join(said)} {on}; always the commonest label: {known.majority:.3f}"
