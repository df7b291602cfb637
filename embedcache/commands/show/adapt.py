"""What adapt prints."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import click

from embedcache.common.screen import cell, plural

if TYPE_CHECKING:
    from embedcache.pretraining.job import AdaptReport


def adapted(report: AdaptReport, told: Collection[str] = ()) -> None:
    """Where the model is, and what it has learnt. told: notes that stand on the screen already."""
    resumed = f", after {report.resumed:,} steps of an interrupted command" if report.resumed else ""
    click.echo(
        f"{report.model}: {cell(report.base)} trained on {plural(report.texts, 'text')}, {report.tokens:,} tokens in "
        f"{plural(report.epochs, 'epoch')} ({plural(report.steps, 'step')}{resumed}); {report.seconds:.1f} s in all"
    )
    click.echo(
        f"  perplexity of {plural(report.held_out, 'held-out text')}: {_perplexity(report.perplexity_before)} before, "
        f"{_perplexity(report.perplexity_after)} after"
    )
    for line in report.notes:
        if line not in told:
            click.echo(f"Note: {cell(line)}")


def _perplexity(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
