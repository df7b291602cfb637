"""train-head: the command that makes a run."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import COUNT, NAMES, device_option, emit, json_option, pooling_option
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import CommaList, DerivedChoice, NumberInRange, SweepList, TaskList
from embedcache.heads import settings
from embedcache.heads.settings import LARGEST, Choice, ClassWeights, Values, Whole
from embedcache.heads.spec import SWEPT

FRACTION = NumberInRange(float, 0, 1)


def sweep_options(command: Any) -> Any:
    """An option for each setting of heads that has a help text, in the order of a sweep."""
    for name, setting in reversed(SWEPT.items()):
        if setting.help:
            kind = _option_type(setting.option or setting.values, bool(setting.scale))
            command = click.option(f"--{name.replace('_', '-')}", type=kind, help=setting.help)(command)
    return command


def _option_type(values: Values, ranges: bool) -> CommaList:
    """A comma list of what a setting may be, or a range where it can be drawn from one."""
    if isinstance(values, Choice | ClassWeights):
        return CommaList(choices=values.choices)
    assert isinstance(values, Whole | settings.Number)
    if isinstance(values, Whole):
        number = NumberInRange(int, values.low, values.high + 1)
    else:
        number = NumberInRange(float, values.low, None if values.high == LARGEST else values.high, above=values.above)
    return SweepList(number) if ranges else CommaList(number)


def choices() -> list[str]:
    from embedcache.runs.scores import CHOICES

    return [name.replace("_", "-") for name in CHOICES]


@click.command("train-head", short_help="Train a bank of heads on CACHE, into RUN.")
@click.argument("cache")
@click.option("-o", "--output", "run", required=True, metavar="RUN", help="The run folder to create.")
@click.option("--label", type=NAMES, help="Label columns; each gets its own heads.  [default: label, or the only one]")
@click.option(
    "--task",
    type=TaskList(),
    default="auto",
    show_default=True,
    help="auto, classification, multilabel or regression, for all label columns or by their names. auto: multilabel "
    "where a column holds lists, else classification.",
)
@click.option("--recipe", type=click.Choice(["default", "article"]), default="default", show_default=True)
@sweep_options
@click.option("--random", type=COUNT, metavar="N", help="Draw N combinations, each with every --seed, instead of all.")
@click.option("--batch-size", type=COUNT, help="Rows in a training step.")
@click.option(
    "--epochs", type=COUNT, help="Epochs; setting it turns the automatic choices off.  [default: by the rows]"
)
@click.option("--val", type=FRACTION, help="Share of the rows to validate on.")
@click.option("--test", type=FRACTION, help="Share of the rows to score the chosen head on, once.")
@click.option(
    "--folds",
    type=NumberInRange(int, 2),
    metavar="K",
    help="K folds instead of --val; the best head is trained again on all.",
)
@click.option("--group", help="Rows with the same value in this column stay on one side of the split.")
@click.option(
    "--split",
    type=NumberInRange(int, 0, 2**63),
    metavar="SEED",
    help="Seed that assigns texts to the splits.  [default: 42]",
)
@click.option("--split-column", metavar="COL", help="The column that says train, val or test.")
@click.option("--same-split", metavar="RUN", help="Splits as in RUN; texts new to it are assigned as it did.")
@click.option(
    "--choose",
    type=DerivedChoice(choices),
    default="loss",
    show_default=True,
    help="The validation score that chooses the epoch and the head.",
)
@click.option("--standardize/--no-standardize", default=None, help="Zero mean, unit variance for every feature.")
@click.option(
    "--early-stop",
    type=NumberInRange(int, 0),
    metavar="N",
    help="Stop a head after N epochs without improvement.  [default: by the rows]",
)
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), default=-1, show_default=True)
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
      ... --split-column part                          of train, val, test
      ... --resume                                     after Ctrl-C, or for more
    """
    from embedcache.commands.show import run as show_heads
    from embedcache.report.train_run import write_documents
    from embedcache.runs.folder import run_lock
    from embedcache.runs.job import train_head as train
    from embedcache.runs.sweep import Range

    chosen = [name for name in ("split", "split_column", "same_split") if options[name] is not None]
    if len(chosen) > 1:
        both = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise click.UsageError(f"{both}: give one of them")
    if options["test"] is not None and chosen and chosen[0] != "split":
        raise click.UsageError(f"--test and --{chosen[0].replace('_', '-')}: give one of them")
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
