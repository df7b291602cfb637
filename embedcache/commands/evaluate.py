"""evaluate: the command that scores runs on rows whose labels are known."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import device_option, emit, json_option, labels_option, reading_options, trust_option
from embedcache.commands.progress import progress_bar


@click.command(short_help="Score RUN on a table or a cache with known labels.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN... TABLE|CACHE")
@click.option("--label", help="The column of known labels.  [default: the label column of RUN]")
@labels_option
@click.option("-o", "--output", metavar="FILE", help="An HTML page to write.")
@click.option("--text", help="The column of texts in TABLE.  [default: as in RUN's cache, else text]")
@click.option("--group", metavar="COL", help="Rows with the same value count as one observation in the intervals.")
@click.option("--where", multiple=True, help="Only rows of a CACHE that meet a condition; may be repeated.")
@click.option("--unseen", is_flag=True, help="Leave out rows whose text or group a run was trained on.")
@click.option(
    "--baselines/--no-baselines", default=True, show_default=True, help="Also train TF-IDF on the run's training rows."
)
@reading_options("in TABLE")
@click.option("--model", help="The encoder's folder, where it has moved.")
@device_option
@trust_option
@json_option
def evaluate(as_json: bool, runs: tuple[str, ...], **options: Any) -> None:
    """Score the best head of each RUN on rows that it should not have seen.

    The rows come from a TABLE, which is encoded, or from a CACHE of the same encoder, which is not. Scores have 95%
    intervals. Several runs, and the baselines, are compared on the same rows.

    \b
      embedcache evaluate RUN test.csv --label stars
      embedcache evaluate RUN test.csv -o evaluation.html
      embedcache evaluate RUN-A RUN-B test.csv --group author
      embedcache evaluate RUN reviews.h5 --where "year=2026" --unseen
    """
    from embedcache.commands.show import evaluation as show_evaluation
    from embedcache.evaluation import evaluate as run

    if len(runs) < 2:
        raise click.UsageError("give one RUN or several, and after them the TABLE or CACHE with known labels")
    with progress_bar("encoding") as progress:
        report = run(runs[:-1], runs[-1], progress=progress, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_evaluation.evaluation(report)
