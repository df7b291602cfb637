"""drift: the command that compares new rows with those of a cache."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    device_option,
    emit,
    json_option,
    labels_option,
    pooling_option,
    reading_options,
    trust_option,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import NumberInRange


@click.command(short_help="Say whether new rows are like those of CACHE.")
@click.argument("cache")
@click.argument("new", metavar="TABLE|CACHE")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), default=-1, show_default=True)
@click.option("--where", multiple=True, help="Only old rows that meet a condition; may be repeated.")
@labels_option
@click.option("--text", help="The column of texts in TABLE.  [default: as in CACHE, else text]")
@reading_options("in TABLE")
@click.option("--model", help="The encoder's folder, where it has moved.")
@device_option
@trust_option
@json_option
def drift(as_json: bool, cache: str, new: str, **options: Any) -> None:
    """Say whether the rows of TABLE, or of another CACHE, are like those of CACHE.

    A head learns to tell new rows from old ones; how well it does on rows that it did not learn from (AUC, 0.5: not at
    all) says how far they differ. The rows, words and columns that tell them apart follow, and the share that each
    class is likely to have among the new rows.

    \b
      embedcache drift reviews.h5 october.csv
      embedcache drift reviews.h5 october.h5 --json
      embedcache drift reviews.h5 october.csv --where "year=2025"
    """
    from embedcache.commands.show import drift as show_drift
    from embedcache.drift.job import compare_rows

    with progress_bar("encoding") as progress:
        report = compare_rows(cache, new, progress=progress, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_drift.drift(report)
