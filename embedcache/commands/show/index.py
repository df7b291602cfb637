"""What people read on the screen of `embedcache index`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from embedcache.common.display import human_bytes
from embedcache.common.screen import plural
from embedcache.index.kind import IndexPlan

if TYPE_CHECKING:
    from embedcache.index.job import IndexReport


def plan(plan: IndexPlan) -> None:
    """To stderr, before anything is built."""
    if plan.kind == "exact":
        click.echo(f"exact: {plan.why}", err=True)
        return
    time = f"{plan.seconds:.0f} s" if plan.seconds < 120 else f"{plan.seconds / 60:.0f} min"
    memory = human_bytes(plan.bytes)
    click.echo(f"{plan.kind}: {plan.why}; about {time} and {memory} of memory are needed", err=True)


def made(report: IndexReport) -> None:
    what = {"built": "built", "extended": f"{plural(report.added, 'row')} added", "kept": "up to date, nothing to do"}
    size = f"{report.kind} index of {plural(report.rows, 'row')} of {report.dim}"
    parts = [size, what[report.action], human_bytes(report.bytes), f"{report.seconds:.1f} s in all"]
    click.echo(f"{report.index}: {', '.join(parts)}")
    if report.kind == "exact":
        click.echo("  every row is compared: recall 1; the vectors stay in the cache")
        return
    asked, measured = report.recall["asked"], report.recall["measured"]
    click.echo(
        f"  recall@10 {measured:.4f} (asked {asked:g}) of {report.held_out:,} held-out rows against exact search"
    )
    if not report.reached:
        click.echo(f"  {asked:g} is more than {report.kind} reaches here: --kind auto picks one that does")
    settings = ", ".join(f"{name} {value}" for name, value in report.parameters.items())
    click.echo(f"  {settings}")
