"""ladder: the command that sets every way to learn a column side by side."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import COUNT, NAMES, device_option, emit, json_option, reading_options, trust_option
from embedcache.commands.progress import progress_bar
from embedcache.commands.run_options import FRACTION, compute_option, task_option
from embedcache.commands.types import CommaList, NumberInRange


@click.command(short_help="Every way to learn a column, on one split, in one table.")
@click.argument("input", metavar="INPUT|CACHE")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder of the ladder.")
@click.option(
    "--rungs",
    type=NAMES,
    metavar="RUNG,...",
    help="tfidf, zero-shot, head, and the ways of finetune: last, top:K, lora, adapter, full.  [default: tfidf, "
    "zero-shot, head, last, top:2, lora, full, as far as they suit]",
)
@click.option("--model", type=NAMES, default=(), metavar="A,B", help="One encoder or several, for a table.")
@click.option("--text", default="text", show_default=True, help="The column of texts in INPUT.")
@click.option("--label", help="The column to learn.  [default: label, or the only one]")
@task_option
@click.option("--labels", help='Descriptions for zero-shot, "name: description; ...".  [default: the classes\' names]')
@click.option("--max-length", type=COUNT, help="The most tokens of a text in INPUT.  [default: what suits the encoder]")
@click.option("--group", metavar="COL", help="Rows with the same value in this column stay on one side of the split.")
@click.option(
    "--seed",
    type=CommaList(NumberInRange(int, 0, 2**63)),
    default="42",
    show_default=True,
    metavar="SEED,...",
    help="Each trains every rung once; the first deals the rows, too.",
)
@click.option("--val", type=FRACTION, default=0.1, show_default=True, help="Share of the rows that choose.")
@click.option("--test", type=FRACTION, default=0.1, show_default=True, help="Share of the rows that score, once.")
@reading_options("in INPUT")
@device_option
@compute_option
@trust_option
@click.option("--resume", is_flag=True, help="Go on with the ladder in DIR; rungs may be added.")
@json_option
def ladder(as_json: bool, **options: Any) -> None:
    """Climb from the commonest class to a tuned encoder, and see where to stop.

    All rungs learn from the same rows, are chosen on the same validation rows,
    and are scored once on the same test rows. The plan, in minutes and
    gigabytes, is shown first. Each rung is a run that stays in DIR.

    \b
      embedcache ladder reviews.csv -o DIR --model M --group film
      ... --rungs tfidf,head,last,top:2      these alone
      ... --model A,B                        encoders side by side
      ... --seed 42,1,2                      three trainings, mean and spread
      ... --resume                           after Ctrl-C, or a kill
      embedcache ladder CACHE -o DIR         a cache, with extract --tokens 2
    """
    from embedcache.commands.show import ladder as show_ladder
    from embedcache.ladder.job import ladder as build

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with progress_bar("climbing") as progress:
        report = build(progress=progress, tell=tell, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_ladder.ladder(report)
