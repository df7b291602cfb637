"""search: the command that finds neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedcache import show
from embedcache.commands.common import COUNT, device_option, emit, json_option, pooling_option, trust_option
from embedcache.options import Number


@click.command()
@click.argument("cache")
@click.argument("query", required=False)
@click.option("--row", type=Number(int, 0), help="Neighbours of this row of CACHE.")
@click.option("--file", "file", help="A table, or lines, of queries instead of one.")
@click.option("--text", default="text", show_default=True, help="The column of queries in --file.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of a text file in --file.")
@click.option("-k", type=COUNT, default=10, show_default=True, help="How many neighbours.")
@click.option("--where", multiple=True, help='Only rows with "label=positive", or "label!=positive"; may be repeated.')
@pooling_option
@device_option
@trust_option
@json_option
def search(as_json: bool, cache: str, query: str | None, row: int | None, file: str | None, **options: Any) -> None:
    """Find the rows of CACHE that are most like a text.

    Exact, by cosine. With --row N: the neighbours of a row of CACHE, without itself.
    """
    from embedcache.search import search_cache

    if sum(given is not None for given in (query, row, file)) != 1:
        raise click.UsageError("give one of QUERY, --row N, --file F")
    report = search_cache(Path(cache), query=query, row=row, file=file, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show.search(report)
