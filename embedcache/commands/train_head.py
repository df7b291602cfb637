"""train-head: the command that makes a run."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import COUNT, NAMES, device_option, emit, json_option, labels_option
from embedcache.commands.progress import progress_bar
from embedcache.commands.run_options import check_split, split_options, sweep_options, task_option
from embedcache.commands.types import CommaList, NumberInRange, SideBySide
from embedcache.encoder.poolings import MODEL, POOLINGS
from embedcache.heads.spec import SWEPT

POOLED = CommaList(SideBySide(click.Choice([*POOLINGS, MODEL])))
LAYERED = CommaList(SideBySide(NumberInRange(int, -1000)))


@click.command("train-head", short_help="Train a bank of heads on CACHE, into RUN.")
@click.argument("cache")
@click.option("-o", "--output", "run", required=True, metavar="RUN", help="The run folder to create.")
@click.option("--from", "from_run", metavar="RUN", help="Start from the best head of RUN: rows or classes were added.")
@click.option("--label", type=NAMES, help="Label columns; each gets its own heads.  [default: label, or the only one]")
@labels_option
@task_option
@click.option(
    "--hierarchy",
    metavar="COL>COL|SEP",
    help="Classes in a tree: label columns from the top down, or what separates the levels of one column.",
)
@click.option("--recipe", type=click.Choice(["default", "article"]), default="default", show_default=True)
@sweep_options(SWEPT)
@click.option("--random", type=COUNT, metavar="N", help="Draw N combinations, each with every --seed, instead of all.")
@click.option("--batch-size", type=COUNT, help="Rows in a training step.")
@click.option(
    "--epochs", type=COUNT, help="Epochs; setting it turns the automatic choices off.  [default: by the rows]"
)
@split_options
@click.option("--weight", metavar="COL", help="Numbers from 0 up that multiply each row's loss.")
@click.option("--standardize/--no-standardize", default=None, help="Zero mean, unit variance for every feature.")
@click.option(
    "--early-stop",
    type=NumberInRange(int, 0),
    metavar="N",
    help="Stop a head after N epochs without improvement.  [default: by the rows]",
)
@click.option(
    "--pooling", type=POOLED, help="Vectors to try; cls+mean: side by side.  [default: model where stored, else cls]"
)
@click.option(
    "--layers", "layer", type=LAYERED, default=-1, show_default=True, help="Layers to try; -1+-4: side by side."
)
@click.option("--engine", type=click.Choice(["auto", "native", "torch"]), default="auto", show_default=True)
@device_option
@click.option(
    "--compute", type=click.Choice(["auto", "float32", "bfloat16", "tf32"]), default="auto", show_default=True
)
@click.option("--threads", type=COUNT, help="[default: every core that this process may use]")
@click.option("--resume", is_flag=True, help="Keep the heads that RUN or an interrupted training of RUN already has.")
@json_option
def train_head(as_json: bool, cache: str, run: str, **options: Any) -> None:
    """Train a head for every combination of the comma lists, all at once.

    What you do not set comes from the recipe. The default recipe follows the
    number of rows: epochs, early stopping, folds below 1,000 rows, four heads.

    \b
      embedcache train-head C.h5 -o RUN --lr 1e-4,1e-3 --seed 0,1,2   six heads
      ... --lr 1e-5:1e-2 --dropout 0,0.3 --random 50   drawn from range and list
      ... --schedule cosine,linear --warmup 0.1 --label-smoothing 0,0.1
      ... --label genre,stars                          both columns, in one bank
      ... --label stars --task regression              numbers, not classes
      ... --label genre,stars --task stars=regression  classes and numbers
      ... --hierarchy "genre>subgenre"                 a tree of classes
      ... --split-column part                          of train, val, test
      ... --pooling cls,mean,cls+mean --layers -1,-4   which vectors to read
      ... --weight trust                               rows count by a column
      ... --from OLD                                   rows were added since
      ... --resume                                     after Ctrl-C, or for more
    """
    from embedcache.commands.show import run as show_heads
    from embedcache.report.train_run import write_documents
    from embedcache.runs.folder import run_lock
    from embedcache.runs.job import train_head as train
    from embedcache.runs.sweep import Range

    check_split(options)
    ranges = [name for name, value in options.items() if isinstance(value, Range)]
    if ranges and not options["random"]:
        name = ranges[0].replace("_", "-")
        raise click.UsageError(f"--{name} {options[ranges[0]]} is a range: draw from it with --random N")

    def tell(line: str) -> None:
        click.echo(f"Note: {line}", err=True)

    with run_lock(run):  # the documents belong to this run, even if others wait for its place
        with progress_bar("training", "head-rows", steps="head-epochs") as progress:
            report = train(cache, run, progress=progress, tell=tell, **options)
        written = write_documents(run, tell)
    if as_json:
        emit({**report.to_dict(), "documents": written})
    else:
        show_heads.train_head(report, written)
