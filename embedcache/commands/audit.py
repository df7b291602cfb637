"""audit: the command that looks for what is wrong with the rows themselves."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    COUNT,
    check_json,
    device_option,
    emit,
    json_option,
    labels_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import CommaList, NumberInRange
from embedcache.encoder.poolings import MODEL, POOLINGS


@click.command(short_help="List CACHE's likely label errors, duplicates and outliers.")
@click.argument("cache")
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="A table to write (.csv, .parquet ...; - for standard output), and a .json with the whole report.",
)
@click.option("--label", help="The label column.  [default: label, or the only one]")
@labels_option
@click.option(
    "--folds",
    type=NumberInRange(int, 2, 101),
    default=5,
    show_default=True,
    help="Number of folds in which heads are trained.",
)
@click.option(
    "--seed",
    type=CommaList(NumberInRange(int, 0, 2**31)),
    default="0",
    show_default=True,
    help="Seeds of heads and folds; the results of several are averaged.",
)
@click.option("--group", help="Rows with the same value in this column do not judge each other's labels.")
@click.option("--split", help="A column with the sides of a split, such as train and test.")
@click.option("--run", help="A RUN of train-head, whose sides are the split.")
@click.option("-k", "--neighbours", type=NumberInRange(int, 1, 1001), default=20, show_default=True)
@click.option(
    "--near",
    type=NumberInRange(float, 0, 1.0001),
    default=0.9,
    show_default=True,
    help="Cosine at which texts that share half of their wording count as near-duplicates.",
)
@click.option("--top", type=COUNT, metavar="N", help="List at most N of each kind.  [default: all; 10 on the screen]")
@click.option(
    "--pooling", type=click.Choice([*POOLINGS, MODEL]), help="[default: model where it is stored, else mean, else cls]"
)
@click.option("--layers", "layer", type=NumberInRange(int, -1000), default=-1, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "native", "torch"]), default="auto", show_default=True)
@device_option
@click.option("--threads", type=COUNT, help="[default: every core that this process may use]")
@json_option
def audit(as_json: bool, cache: str, **options: Any) -> None:
    """List rows of CACHE with a likely wrong label, texts that occur more than once, and texts unlike any other.

    Heads, neighbours and words judge a row's label without having seen it, or its copies.

    \b
      embedcache audit reviews.h5
      embedcache audit reviews.h5 -o audit.csv     all that is found, as a table
      ... --label genre --group movie    a film's rows do not judge each other
      ... --seed 0,1,2                   three times the heads, steadier
      ... --split part                   duplicates across train and test
      ... --run RUN                      or across the sides of that run
    """
    from embedcache.audit import audit_cache
    from embedcache.commands.show import audit as show_audit

    if options["split"] is not None and options["run"] is not None:
        raise click.UsageError("--split and --run: give one of them")
    check_json(as_json, options["output"])
    with progress_bar("auditing") as progress:
        report = audit_cache(cache, progress=progress, **options)
    with unless_written_to(options["output"]):
        if as_json:
            emit(report.to_dict())
        else:
            show_audit.audit(report, options["output"])
