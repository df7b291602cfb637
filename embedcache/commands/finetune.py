"""finetune: the command that makes a run whose head comes with layers of the encoder."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import COUNT, NAMES, device_option, emit, json_option, labels_option, trust_option
from embedcache.commands.progress import progress_bar
from embedcache.commands.run_options import (
    check_split,
    compute_option,
    split_options,
    sweep_options,
    sweep_type,
    task_option,
)
from embedcache.commands.types import NumberInRange
from embedcache.heads.spec import SWEPT
from embedcache.runs.settings_shown import TUNED

RATE = "Learning rates of the layers.  [default: 1e-4; lora, adapter 1e-3; full 3e-5]"
ABOVE_0 = NumberInRange(float, 0, above=True)
OWN = {name: setting for name, setting in TUNED.items() if name not in ("train", "pooling", "width")}
LIKE_HEADS = {name: setting for name, setting in SWEPT.items() if name not in ("lr", "hidden", "dropout")}


@click.command(short_help="Train the encoder's last layers, or all of it, with a head, into RUN.")
@click.argument("cache")
@click.option("-o", "--output", "run", required=True, metavar="RUN", help="The run folder to create.")
@click.option(
    "--train",
    type=NAMES,
    default="last",
    show_default=True,
    metavar="WAY,...",
    help="last or top:K, from token states that extract --tokens K stored; lora, adapter or full, from the texts; "
    "lora:top:K, adapter:top:K.",
)
@click.option("--from", "from_run", metavar="RUN", help="Start from this run's best head.  [default: one is trained]")
@click.option("--label", help="The label column.  [default: label, or the only one]")
@labels_option
@task_option
@click.option("--lr", type=sweep_type(SWEPT["lr"].values, ranges=False), help=RATE)
@sweep_options({**OWN, **LIKE_HEADS}, ranges=False)
@click.option("--rank", type=sweep_type(TUNED["width"].values, ranges=False), help=TUNED["width"].help)
@click.option("--alpha", type=ABOVE_0, help="Scales LoRA by alpha / rank.  [default: 2 rank]")
@click.option("--targets", type=NAMES, help="Linear layers that LoRA is added to.  [default: all]")
@split_options
@click.option(
    "--early-stop",
    type=NumberInRange(int, 0),
    metavar="N",
    help="Stop after N epochs without improvement.  [default: 2]",
)
@click.option("--pooling", type=NAMES, help="Which vector the head reads.  [default: model, else cls; for last both]")
@click.option("--engine", type=click.Choice(["auto", "native", "torch"]), default="auto", show_default=True)
@device_option
@compute_option
@click.option("--threads", type=COUNT, help="[default: every core that this process may use]")
@click.option(
    "--accumulate", type=COUNT, default=1, metavar="N",
    help="Compute each step in N parts: less memory, the same result but for rounding and dropout.  [default: 1]",
)  # fmt: skip
@click.option("--gradient-checkpointing", is_flag=True, help="Less memory, more time, where all layers are trained.")
@click.option("--model", help="The encoder, if it is not where the cache found it.")
@trust_option
@click.option("--resume", is_flag=True, help="Continue an interrupted finetune of RUN.")
@json_option
def finetune(as_json: bool, cache: str, run: str, **options: Any) -> None:
    """Train layers of the encoder together with a head, for every combination.

    The last layers are trained from token states in the cache: the layers
    below never run again. Each configuration starts from the best head.

    \b
      embedcache extract T.csv -o C.h5 --tokens 2      keep what the last 2 read
      embedcache finetune C.h5 -o RUN                  the last layer
      ... --train last,top:2 --lr 3e-5,1e-4 --seed 0,1,2
      ... --train lora --rank 8,16                     from the texts
      ... --from HEADS                                 start from that run's head
      ... --resume                                     after Ctrl-C, or a kill
    """
    from embedcache.commands.show import run as show_heads
    from embedcache.finetune.job import finetune as tune
    from embedcache.report.train_run import write_documents
    from embedcache.runs.folder import run_lock

    check_split(options)

    def tell(line: str) -> None:
        click.echo(f"Note: {line}", err=True)

    with run_lock(run):  # the documents belong to this run, even if others wait for its place
        with progress_bar("training", "rows") as progress:
            report = tune(cache, run, progress=progress, tell=tell, **options)
        written = write_documents(run, tell)
    if as_json:
        emit({**report.to_dict(), "documents": written})
    else:
        show_heads.finetune(report, written)
