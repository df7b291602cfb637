"""labels and relabel: the commands that take labels of people out of the journal, and put others into it."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    NAMES,
    check_json,
    emit,
    json_option,
    labels_option,
    reading_options,
    unless_written_to,
)


@click.command(short_help="Write CACHE's table as people have corrected it.")
@click.argument("cache")
@click.option("-o", "--output", metavar="OUT", help="A table to write (.csv, .parquet ...; - for standard output).")
@click.option("--label", type=NAMES, help="Label columns to correct.  [default: all]")
@labels_option
@click.option(
    "--also",
    type=NAMES,
    metavar="WHAT,...",
    help="Columns to write beside each label: before, who, when, disagreement, comment.",
)
@click.option("--only-changed", is_flag=True, help="Write only the rows that have another label than in CACHE.")
@click.option("--entries", is_flag=True, help="Write the journal's rows instead: who did what to which text.")
@json_option
def labels(as_json: bool, cache: str, output: str | None, **options: Any) -> None:
    """Write the table of CACHE with the labels that people gave in the places of its own; without -o: count them.

    Neither CACHE nor the journal beside it (CACHE.labels.jsonl) is changed.

    \b
      embedcache labels reviews.h5
      embedcache labels reviews.h5 -o corrected.csv
      ... -o changed.csv --only-changed --also before,who,disagreement
      ... -o journal.csv --entries           who did what, when
    """
    from embedcache.commands.show import labels as show
    from embedcache.labelling.corrected import labels as write

    check_json(as_json, output)
    report = write(cache, output, **options)
    with unless_written_to(output):
        if as_json:
            emit(report.to_dict())
        else:
            show.labels(report)


@click.command(short_help="Take labels that were given elsewhere into CACHE's journal.")
@click.argument("cache")
@click.option("--with", "table", required=True, metavar="TABLE", help="A table with labels; - for standard input.")
@click.option("--who", metavar="NAME", help="The person who gave them.  [default: the user of this system]")
@click.option("--label", help="The column of labels, in TABLE and CACHE.  [default: label, or the only one]")
@click.option("--text", help="TABLE's column of texts, where there are no ids.  [default: as in CACHE, else text]")
@click.option("--id", metavar="COL", help="TABLE's column of ids.  [default: the name of CACHE's id column]")
@click.option("--new-classes", is_flag=True, help="Take classes that the column does not have yet.")
@click.option("--confirm", is_flag=True, help="Write also labels that are as they were: somebody looked at them.")
@reading_options("of TABLE")
@json_option
def relabel(as_json: bool, cache: str, table: str, **options: Any) -> None:
    """Take the labels of TABLE into the journal beside CACHE, where they differ from those that count now.

    Rows are found by their ids, else by their texts. Blank labels say nothing. CACHE and TABLE stay as they are; every
    command that reads labels reads the journal, too.

    \b
      embedcache relabel reviews.h5 --with corrected.csv --who ada
      ... --with genres.xlsx --label genre --new-classes
      ... --with checked.csv --confirm       also what was right already
    """
    from embedcache.commands.show import labels as show
    from embedcache.labelling.relabel import relabel as take

    report = take(cache, table, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show.relabel(report)
