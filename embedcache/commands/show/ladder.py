"""What ladder prints: the rungs in a table, where to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, make_score_table, number, plural, print_tables
from embedcache.ladder.page import between, costs, p_value, seeds
from embedcache.runs.scores import title

if TYPE_CHECKING:
    from embedcache.ladder.outcome import LadderReport


def ladder(report: LadderReport) -> None:
    """The scores, the costs, where to stop."""
    rows = report.rows
    groups = "" if report.test_groups is None else f" in {plural(report.test_groups, 'group')} of {report.group}"
    click.echo(f"{report.input}: {rows['train']:,} train, {rows['val']:,} val, {rows['test']:,} test rows{groups}")
    several = len(report.seeds) > 1
    spread = [f"of {len(report.seeds)} seeds"] if several else []
    scores = make_score_table(
        "rung", "trained", "parameters", f"test {title(report.metric)}", *spread, "95% interval", "gain", "p",
        left=["rung", "trained"], wraps="trained",
    )  # fmt: skip
    spent = make_score_table(
        "rung",
        "once",
        "own, a seed" if several else "own",
        "planned",
        "peak memory",
        "disk",
        "predictions/s",
        "load",
        left=["rung"],
    )
    for one in report.rungs:
        scores.add_row(
            cell(one.name, 50), one.trained, f"{one.parameters:,}", number(one.test_score),
            *([seeds(one)] if several else []), between(one.interval), number(one.gain, "+.4f"),
            p_value(one.p_over_previous),
        )  # fmt: skip
        spent.add_row(cell(one.name, 50), *costs(one))
    print_tables("", scores, "", spent)
    click.echo(f"Stop at {report.stop_at}: {report.rule}.")
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")
    click.echo(f"{report.page}: the ladder as a page; ladder.json beside it")
