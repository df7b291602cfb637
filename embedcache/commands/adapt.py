"""adapt: the command that trains a masked language model on unlabelled texts."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import COUNT, device_option, emit, json_option, reading_options, tell
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import NumberInRange


@click.command(short_help="Train a masked language model on unlabelled texts.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", required=True, metavar="MODEL", help="The folder to write.")
@click.option("--model", help="The encoder to train further.  [default: bert-base-uncased]")
@click.option("--from-scratch", metavar="CONFIG", help="Random weights instead: a config.json, or a folder with one.")
@click.option("--epochs", type=COUNT, default=3, show_default=True, help="Passes over the texts.")
@click.option(
    "--mask",
    type=NumberInRange(float, 0, 1, above=True),
    default=0.15,
    show_default=True,
    help="Share of the words that are masked.",
)
@click.option(
    "--lr", type=NumberInRange(float, 0, above=True), help="Learning rate.  [default: 5e-5; 5e-4 from scratch]"
)
@click.option("--batch-size", type=COUNT, default=32, show_default=True, help="Rows in a training step.")
@click.option("--max-length", type=COUNT, help="The most tokens of a row.  [default: 256]")
@click.option("--seed", type=NumberInRange(int, 0), default=0, show_default=True, help="Seed of all that is random.")
@click.option("--resume", is_flag=True, help="Continue an interrupted command.")
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@reading_options("in INPUT")
@device_option
@json_option
def adapt(as_json: bool, **options: Any) -> None:
    """Train a masked language model on the texts of INPUT, before extract encodes with it.

    Whole words are masked. About one text in twenty is held out, by its content;
    the perplexity on these is reported before and after. MODEL is a model
    folder. Needs accelerate: pip install 'embedcache[train]'.

    \b
      embedcache adapt reviews.csv -o adapted --model bert-base-uncased
      embedcache extract reviews.csv -o reviews.h5 --model adapted
      ... --resume                        after a kill
      ... --from-scratch config.json      random weights, a tokenizer of its own
    """
    from embedcache.commands.show import adapt as show_adapt
    from embedcache.pretraining.job import adapt as run

    if options["model"] is not None and options["from_scratch"] is not None:
        raise click.UsageError("--model continues a model and --from-scratch starts one: give one of them")
    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        tell(line)

    with progress_bar("training", steps="steps") as progress:
        report = run(progress=progress, tell=say, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show_adapt.adapted(report, told)
