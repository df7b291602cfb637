"""What adapt prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, plural

if TYPE_CHECKING:
    from embedcache.pretraining.job import AdaptReport


def adapted(report: AdaptReport) -> None:
    """Where the model is, and what it has learnt."""
    resumed = f", after {report.resumed:,} steps of an interrupted command" if report.resumed else ""
    click.echo(
        f"{report.model}: {cell(report.base)} trained on {plural(report.texts, 'text')}, {report.tokens:,} tokens in "
        f"{plural(report.epochs, 'epoch')} ({plural(report.steps, 'step')}{resumed}); {report.seconds:.1f} s in all"
    )
    click.echo(
        f"  perplexity of {plural(report.held_out, 'held-out text')}: {report.perplexity_before:,.4g} before, "
        f"{report.perplexity_after:,.4g} after"
    )
    for line in report.notes:
        click.echo(f"Note: {cell(line)}")
