"""merge: the command that joins the caches of all shards."""

from __future__ import annotations

import click

from embedcache.commands.common import (
    emit,
    json_option,
)
from embedcache.errors import EmbedcacheError


@click.command(short_help="Join the caches of all shards.")
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
@click.option("-o", "--output", "cache", required=True, metavar="CACHE", help="The HDF5 file to create.")
@click.option("--overwrite", is_flag=True, help="Replace a CACHE made from anything else.")
@json_option
def merge(as_json: bool, shards: tuple[str, ...], cache: str, overwrite: bool) -> None:
    """Join what `extract --shard I/N` made into the one CACHE that extract without a shard makes.

    \b
      embedcache extract reviews.csv -o part-1.h5 --shard 1/3    three jobs
      embedcache extract reviews.csv -o part-2.h5 --shard 2/3
      embedcache extract reviews.csv -o part-3.h5 --shard 3/3
      embedcache merge part-*.h5 -o reviews.h5

    Nothing is encoded. Where shards are not finished, CACHE has what there is, and the exit code is 1: run their
    extract again, then merge again.
    """
    from embedcache.commands.show import cache as show
    from embedcache.extraction.merge import merge as run

    report = run(shards, cache, overwrite=overwrite)
    if as_json:
        emit(report.to_dict())
    elif report.complete:
        show.merge(report)
    if not report.complete:
        raise EmbedcacheError(show.incomplete_merge(report))
