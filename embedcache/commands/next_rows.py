"""next: the command that says which rows are worth labelling next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from embedcache.commands.common import (
    COUNT,
    DerivedHelp,
    check_json,
    device_option,
    emit,
    formats_written,
    json_option,
    labels_option,
    pooling_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import ClassNames, DerivedChoice, NumberInRange

if TYPE_CHECKING:
    import numpy as np

    from embedcache.cache import Cache


def _queues() -> Sequence[str]:
    from embedcache.active_learning.queue import QUEUES

    return QUEUES


def queues_in_words() -> str:
    """The queues, for the help: a line each."""
    from embedcache.active_learning.queue import SHARES
    from embedcache.active_learning.strategies import STRATEGIES

    mix = ", ".join(f"{name} {share:.0%}" for name, share in SHARES.items())
    lines = [f"mixed      {mix}", *(f"{name:10s} {one.what}" for name, one in STRATEGIES.items())]
    return "\n      ".join(lines)  # as far in as the help has it


@click.command(
    "next",
    cls=DerivedHelp,
    words={"queues": queues_in_words, "formats": formats_written},
    short_help="Say which rows of CACHE are worth labelling next.",
)
@click.argument("cache")
@click.option("--run", help="A RUN on this cache: its column, its vectors, and its test rows, which stay unseen.")
@click.option("--label", help="The label column; it may be new.  [default: the run's, label, or the only one]")
@labels_option
@click.option(
    "--labels-of",
    type=ClassNames(),
    help='Where nothing has a label: "name: description; name: description", or @FILE.',
)
@click.option("-n", "--count", type=COUNT, default=50, show_default=True, help="How many rows.")
@click.option("--queue", type=DerivedChoice(_queues), default="mixed", show_default=True, help="Which rows.")
@click.option("--group", metavar="COL", help="Rows with the same value take turns, and stay on one side of a fold.")
@click.option("-o", "--output", metavar="OUT", help="The table to write, - for standard output.")
@pooling_option
@click.option("--layers", "layer", type=NumberInRange(int, -1000), default=-1, show_default=True)
@click.option("--seed", type=NumberInRange(int, 0, 2**31), default=0, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "native", "torch"]), default="auto", show_default=True)
@device_option
@click.option("--threads", type=COUNT, help="[default: every core that this process may use]")
@json_option
def next_rows(as_json: bool, cache: str, labels_of: str | None, **options: Any) -> None:
    """List the rows of CACHE that are worth a person's time next, each with the reason and a guess.

    Heads are trained on the labels that there are, which takes a second. OUT is
    a {formats} file. Its last column is the label column: fill it in, and
    `embedcache relabel CACHE --with OUT --confirm` takes it back.

    \b
    Queues:
      {queues}

    \b
      embedcache next reviews.h5
      embedcache next reviews.h5 -n 100 -o next.csv
      embedcache next reviews.h5 --queue errors --run RUN
      embedcache next new.h5 --labels-of "fresh: a good film; rotten: a bad film"
    """
    from embedcache.active_learning.job import next_rows as choose
    from embedcache.commands.show import next_rows as show_next

    check_json(as_json, options["output"])

    def start(opened: Cache, pooling: str) -> tuple[list[str], np.ndarray]:
        from embedcache.prompting.start import start_probabilities

        assert labels_of is not None
        return start_probabilities(opened, labels_of, pooling, options["device"])

    with progress_bar("training") as progress:
        report = choose(cache, labels_of=None if labels_of is None else start, progress=progress, **options)
    with unless_written_to(options["output"]):
        if as_json:
            emit(report.to_dict())
        else:
            show_next.next_rows(report)
