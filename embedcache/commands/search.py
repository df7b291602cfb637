"""search: the command that finds neighbours."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    COUNT,
    NAMES,
    check_json,
    device_option,
    emit,
    json_option,
    labels_option,
    pooling_option,
    reading_options,
    tell,
    trust_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import NumberInRange

ROW = NumberInRange(int, 0)


@click.command(short_help="Find the rows of CACHE that are most similar to a text.")
@click.argument("cache")
@click.argument("query", required=False)
@click.option("--row", type=ROW, multiple=True, help="Similar to this row of CACHE; may be repeated.")
@click.option("--like", multiple=True, metavar="TEXT", help="Also similar to this text; may be repeated.")
@click.option("--unlike", multiple=True, metavar="TEXT", help="Unlike this text; may be repeated.")
@click.option("--unlike-row", type=ROW, multiple=True, help="Unlike this row of CACHE; may be repeated.")
@click.option("--file", "file", help="A table or text file of queries, instead of QUERY; - for standard input.")
@click.option("-o", "--output", metavar="OUT", help="The table for the answers to --file, - for standard output.")
@click.option("--text", default="text", show_default=True, help="The column of queries in --file.")
@click.option("--vector", metavar="COL", help="The column of vectors in --file, in place of texts.")
@reading_options("in --file")
@click.option("-k", type=COUNT, default=10, show_default=True, help="Number of results.")
@click.option("--where", multiple=True, help="Only rows that meet a condition; may be repeated.")
@click.option("--show", "columns", type=NAMES, help="Columns on the screen.  [default: labels, and what fits]")
@click.option("--dedupe", is_flag=True, help="Leave out near-duplicates of a better result.")
@labels_option
@click.option("--index", metavar="INDEX", help="What embedcache index wrote.  [default: that of CACHE, if any]")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), help="[default: -1, or that of INDEX]")
@click.option("--center/--no-center", default=None, help="Subtract the mean of all rows first.")
@device_option
@trust_option
@json_option
def search(as_json: bool, cache: str, output: str | None, columns: tuple[str, ...] | None, **options: Any) -> None:
    """Find the rows of CACHE that are most similar to a text, by cosine.

    With --row N: the neighbours of a row of CACHE, without the row itself; this needs no encoder. Rows with
    a blank text are never found. Without an index of CACHE (embedcache index) every row is compared.

    \b
      embedcache search reviews.h5 "the battery died after a week"
      embedcache search reviews.h5 --row 7 -k 20 --dedupe
      ... --where "label=positive and year>=2010"    and, or, not, ( )
      ... --where "genre=war or stars<3"             = != < <= > >= on columns
      ... --where 'text contains "the end"'          starts with, in (a, b)
      ... --show genre,stars                         kept columns beside texts
      ... --like "too slow" --unlike "too long"      several examples
      ... --file questions.csv -o answers.csv        many queries at once
      ... --file vectors.npy                         vectors of CACHE's encoder
    """
    from embedcache.commands.show import search as show
    from embedcache.search.file import search_file
    from embedcache.search.job import search_cache

    check_json(as_json, output)
    named = [name for name in ("query", "row", "file") if options[name] not in (None, ())]
    if len(named) > 1:
        raise click.UsageError("give one of QUERY, --row N, --file F; more examples go into --like TEXT")
    if not named and not options["like"]:
        raise click.UsageError("give one of QUERY, --row N, --like TEXT, --file F")
    if options["file"] is not None and any(options[name] for name in ("like", "unlike", "unlike_row")):
        raise click.UsageError("--file F cannot be combined with --like and --unlike")
    if output is None:
        report = search_cache(cache, **options)
        if as_json:
            emit(report.to_dict())
        else:
            show.search(report, columns)
        return
    if options["file"] is None:
        raise click.UsageError("-o OUT goes with --file F")
    for name in ("query", "row", "like", "unlike", "unlike_row"):
        del options[name]
    with progress_bar("searching", "queries") as progress:
        written = search_file(cache, options.pop("file"), output, progress=progress, tell=tell, **options)
    with unless_written_to(output):
        if as_json:
            emit(written.to_dict())
        else:
            show.searched_file(written)
