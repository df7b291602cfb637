"""What train-head and finetune share: sweeps as comma lists, the split, what chooses, usage errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from embedcache.commands.types import CommaList, DerivedChoice, NumberInRange, SweepList, TaskList
from embedcache.heads import settings
from embedcache.heads.settings import LARGEST, Choice, ClassWeights, Setting, Values, Whole

FRACTION = NumberInRange(float, 0, 1)


def sweep_options(known: Mapping[str, Setting], ranges: bool = True) -> Any:
    """An option for each setting that has a help text, in their order. ranges: whether values may be drawn from one."""

    def add(command: Any) -> Any:
        for name, setting in reversed(list(known.items())):
            if setting.help:
                kind = sweep_type(setting.option or setting.values, ranges and bool(setting.scale))
                command = click.option(f"--{name.replace('_', '-')}", type=kind, help=setting.help)(command)
        return command

    return add


def sweep_type(values: Values, ranges: bool) -> CommaList:
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


compute_option = click.option(  # of what tunes layers
    "--compute", type=click.Choice(["auto", "float32", "bfloat16"]), default="auto", show_default=True,
    help="Of the layers' products; auto: bfloat16 on a GPU.",
)  # fmt: skip


def task_option(command: Any) -> Any:
    return click.option(
        "--task",
        type=TaskList(),
        default="auto",
        show_default=True,
        help="auto, classification, multilabel or regression, for all label columns or by their names. auto: "
        "multilabel where a column holds lists, else classification.",
    )(command)


SPLIT = (
    click.option("--val", type=FRACTION, help="Share of the rows to validate on."),
    click.option("--test", type=FRACTION, help="Share of the rows to score the chosen head on, once."),
    click.option(
        "--folds",
        type=NumberInRange(int, 2),
        metavar="K",
        help="K folds instead of --val; the best head is trained again on all.",
    ),
    click.option("--group", help="Rows with the same value in this column stay on one side of the split."),
    click.option(
        "--split",
        type=NumberInRange(int, 0, 2**63),
        metavar="SEED",
        help="Seed that assigns texts to the splits.  [default: 42]",
    ),
    click.option("--split-column", metavar="COL", help="The column that says train, val or test."),
    click.option("--same-split", metavar="RUN", help="Splits as in RUN; texts new to it are assigned as it did."),
    click.option(
        "--choose",
        type=DerivedChoice(choices),
        default="loss",
        show_default=True,
        help="The validation score that chooses the epoch and the head.",
    ),
)


def split_options(command: Any) -> Any:
    """Which rows train, validate and test, and what chooses."""
    for option in reversed(SPLIT):
        command = option(command)
    return command


def check_split(options: Mapping[str, Any]) -> None:
    """Raises UsageError for options of the split that exclude each other."""
    chosen = [name for name in ("split", "split_column", "same_split") if options[name] is not None]
    if len(chosen) > 1:
        both = " and ".join(f"--{name.replace('_', '-')}" for name in chosen)
        raise click.UsageError(f"{both}: give one of them")
    if options["test"] is not None and chosen and chosen[0] != "split":
        raise click.UsageError(f"--test and --{chosen[0].replace('_', '-')}: give one of them")
