"""extract: the command that makes a cache."""

from __future__ import annotations

from typing import Any

import click

from embedcache.commands.common import (
    COUNT,
    NAMES,
    DerivedHelp,
    emit,
    formats_read,
    json_option,
    reading_options,
    tell,
    trust_option,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import CommaList, NumberInRange, ShardNumber
from embedcache.encoder.poolings import MODEL, POOLINGS

LAYERS = CommaList(NumberInRange(int, -1000))


@click.command(cls=DerivedHelp, words={"formats": formats_read}, short_help="Embed every text once, into CACHE.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", "cache", required=True, metavar="CACHE", help="The HDF5 file to create or continue.")
@click.option("--model", default="bert-base-uncased", show_default=True, help="A model name on the Hub, or a folder.")
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@click.option("--label", "labels", type=NAMES, help="Label columns.  [default: label, where there is one]")
@click.option("--id", "id", help="Column with an id for each row.")
@click.option("--keep", type=NAMES, default=(), help="Other columns to keep, for --where, --group and search.")
@click.option(
    "--max-length",
    type=COUNT,
    help="Tokens per text; longer texts are truncated.  [default: the model's own, with its vectors; else 250]",
)
@click.option(
    "--chunk/--no-chunk",
    default=None,
    help="Read longer texts in chunks of --max-length tokens and store the mean of their vectors.",
)
@click.option(
    "--pooling",
    type=CommaList(choices=("auto", *POOLINGS, MODEL)),
    default="auto",
    show_default=True,
    help=f"Vectors to store: {MODEL}, the one that the model's authors prescribe; "
    f"{'; '.join(f'{name}, {one.help}' for name, one in POOLINGS.items())}. auto is {MODEL} and cls where the model "
    "prescribes a vector (modules.json), else cls.",
)
@click.option(
    "--prompt",
    metavar="NAME|TEXT",
    help="Put before every text: one of the model's prompts, or a text.  [default: the model's own, with its vectors]",
)
@click.option("--task", metavar="NAME", help="Merge the model's adapter for this task into its weights (Jina v3).")
@click.option("--dims", type=COUNT, help="Keep the first dimensions of the model's vectors (Matryoshka), normalized.")
@click.option("--force-dims", is_flag=True, help="Do so even if the model does not declare these dimensions.")
@click.option("--layers", type=LAYERS, default="-1", show_default=True, help="Layers to store; -1 is the last.")
@click.option(
    "--tokens",
    type=COUNT,
    metavar="K",
    help="Also keep what the last K layers read of every token, to tune them later: gigabytes, in files beside CACHE.",
)
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16", "int8"]),
    default="auto",
    show_default=True,
    help="What to compute in; int8 (CPUs) is the fastest and rounds the most.",
)
@click.option(
    "--store",
    type=click.Choice(["float16", "float32", "int8"]),
    default="float16",
    show_default=True,
    help="Type of the stored vectors; int8, with a scale for each row, takes half of float16.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N], cuda:0,cuda:1 or cuda:all.")
@click.option(
    "--workers", type=COUNT, help="Number of Ray processes that encode (on this machine unless --ray is given)."
)
@click.option("--ray", metavar="ADDRESS|local", help="Encode on a Ray cluster, or on this machine's cores or GPUs.")
@click.option("--batch-tokens", type=COUNT, help="Tokens in a batch, padding included.  [default: by device]")
@click.option("--shard", type=ShardNumber(), help="Only part I of N of the rows, into a CACHE of its own; see merge.")
@click.option("--na", type=NAMES, help='Labels that mean "not labelled"; "default" adds to the usual ones.')
@reading_options("in INPUT")
@click.option("--overwrite", is_flag=True, help="Replace a CACHE made by another encoder or from other texts.")
@trust_option
@json_option
def extract(as_json: bool, inputs: tuple[str, ...], cache: str, **options: Any) -> None:
    """Run the frozen encoder over every text once and keep the vectors.

    INPUT is a {formats} file; - is standard input (JSON lines). Several are read one after another.
    A stopped run continues where it was; texts that CACHE already holds are not encoded again.

    \b
      embedcache extract reviews.csv -o reviews.h5 --keep movie
      ... --pooling cls,mean         these vectors and no others
      ... --tokens 2                 and what the last two layers read
      ... --prompt query             the model's prompt of that name
      ... --na default,None,-        None and - mean "not labelled", like NA
      ... --device cuda:all          every GPU of this machine
      ... --ray local --workers 4    four processes on this machine
      ... --ray 10.0.0.1:6379        every GPU, or every core, of a Ray cluster
      ... --shard 3/8                one of eight jobs; then merge
    """
    from embedcache.commands.show import cache as show
    from embedcache.extraction.job import extract as run

    try:
        with progress_bar("encoding") as progress:
            report = run(inputs, cache, progress=progress, tell=tell, **options)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(show.interrupted_writing(cache)) from None
    if as_json:
        emit(report.to_dict())
    else:
        show.extract(report)
