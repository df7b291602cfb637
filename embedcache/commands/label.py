"""label: the command with which people label a cache in the browser."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import json_option
from embedcache.commands.serving import serve_with, serving_options
from embedcache.commands.types import ClassNames


@click.command(short_help="Label CACHE in the browser: the most useful rows first, heads trained meanwhile.")
@click.argument("cache")
@click.option("--label", metavar="COL", help="The column to label, or a new one.  [default: RUN's, or the only one]")
@click.option(
    "--labels-of",
    type=ClassNames(),
    help='More classes, or all where nothing has a label: "name: description; name: description", or @FILE.',
)
@click.option("--group", metavar="COL", help="Rows with the same value take turns, and stay on one side of a fold.")
@click.option(
    "--task",
    type=click.Choice(["classification", "multilabel", "regression"]),
    help="One class a row, a list of labels, or a number.  [default: RUN's, or the column's]",
)
@click.option("--label-token", envvar="EMBEDCACHE_LABEL_TOKEN", show_envvar=True, help="A token that may only label.")
@serving_options
@json_option
def label(as_json: bool, **options: Any) -> None:
    """Label CACHE in the browser. Ctrl-C stops it.

    The page shows one row at a time, and why: labels that are likely wrong, rows that the heads are unsure of, rows
    unlike any labelled one, rare classes, rows drawn by chance. A key gives a label. Heads are trained again meanwhile,
    and a panel says how good they are and when to stop. Labels go to a journal beside CACHE, which itself is not
    changed: embedcache labels writes the corrected table, and other commands read the journal.

    \b
      embedcache label reviews.h5 --run heads
      embedcache label new.h5 --labels-of "fresh: a good film; rotten: a bad film"
      embedcache label reviews.h5 --host 0.0.0.0 --token A --label-token B
    """
    from embedcache.serve.job import label_cache

    serve_with(label_cache, as_json=as_json, does="labels", **options)
