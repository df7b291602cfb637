"""index: the command that builds what search reads."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import device_option, emit, json_option, pooling_option
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import DerivedChoice, NumberInRange


def kinds() -> tuple[str, ...]:
    from embedcache.index.kinds import KINDS

    return ("auto", *KINDS)


@click.command(short_help="Build an index of CACHE, for fast search among many rows.")
@click.argument("cache")
@click.option("-o", "--output", metavar="INDEX", help="[default: CACHE with the suffix .index]")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), help="[default: -1, or the only one stored]")
@click.option("--kind", type=DerivedChoice(kinds), default="auto", show_default=True, help="Kind of index.")
@click.option(
    "--recall",
    type=NumberInRange(float, 0, above=True),
    default=0.99,
    show_default=True,
    help="recall@10 to reach; 1: exact.",
)
@click.option("--center/--no-center", default=None, help="Subtract the mean of all rows first.")
@device_option
@json_option
def index(as_json: bool, cache: str, **options: Any) -> None:
    """Build an index of CACHE, which search and serve then use.

    auto is exact up to 200,000 rows, where comparing every row takes milliseconds, and approximate above. Recall is
    measured on 1,000 rows of CACHE itself and tuned to --recall. Run it again after rows were added to CACHE: only
    those are added.

    \b
      embedcache index reviews.h5                      writes reviews.index
      embedcache index reviews.h5 --recall 0.95        faster, finds less
      embedcache index reviews.h5 -o means.index --pooling mean --center
    """
    from embedcache.commands.show import index as show_index
    from embedcache.index.job import index_cache

    if options["recall"] > 1:
        raise click.BadParameter("is more than 1", param_hint="'--recall'")
    with progress_bar("indexing") as progress:
        report = index_cache(cache, options.pop("output"), progress=progress, planned=show_index.plan, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_index.made(report)
