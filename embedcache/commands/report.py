"""report: the command that shows the results of a run, as one page and on the screen."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import check_json, emit, json_option, labels_option, unless_written_to


@click.command(short_help="Write RUN's report: one page about all its heads.")
@click.argument("run")
@click.option(
    "-o", "--output", metavar="FILE", help="The page to write, - for standard output.  [default: RUN/report.html]"
)
@click.option("--cache", help="The run's cache, if it has moved; the mistakes' texts come from it.")
@labels_option
@click.option("--audit", metavar="FILE", help="Output of audit -o to include.  [default: RUN/audit.json, if any]")
@json_option
def report(as_json: bool, run: str, output: str | None, **options: Any) -> None:
    """Write one HTML page that needs no network: scores, leaderboard, learning curves, mistakes with their texts.

    Without -o the same is shown here, as tables.

    \b
      embedcache report RUN                    RUN/report.html, and tables
      embedcache report RUN -o report.html     the page alone
      embedcache report RUN --cache moved.h5   where the cache is now
      embedcache report RUN --audit audit.csv  what audit found, too
      embedcache report RUN --labels none      not what people said since
      embedcache report RUN --json             what the page shows, as data
    """
    from embedcache.commands.show import run as show_heads
    from embedcache.report import write_report

    check_json(as_json, output)
    written = write_report(run, output, **options)
    with unless_written_to(output):
        if as_json:
            emit(written.to_dict())
        else:
            show_heads.report(written, tables=output is None)
