"""The command line: parse, call one verb, print. Heavy packages are imported inside the commands that need them."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from embedcache import __version__, show, show_heads
from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import SCHEDULES
from embedcache.heads.sweep import Range
from embedcache.options import CommaList, Number, Part, SweepList
from embedcache.progress import progress_bar
from embedcache.screen import one_line

FRACTION = Number(float, 0, 1)
RATE = Number(float, 0, above=True)
COUNT = Number(int, 1)
LAYERS = CommaList(Number(int, -1000))
NAMES = CommaList()
POOLINGS = CommaList(choices=("cls", "mean"))


class Commands(click.Group):
    """Turns every failure into one line on stderr: exit 1 for failed work, 2 for wrong usage, no traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt as stop:
            default = "Interrupted: nothing is half written; the same command starts again."
            click.echo(one_line(str(stop)) or default, err=True)
            ctx.exit(1)
        except BrokenPipeError:
            raise
        except Exception as error:
            if os.environ.get("EMBEDCACHE_DEBUG"):
                raise
            click.echo(f"Error: {_one_line(error)}", err=True)
            ctx.exit(1)


def _one_line(error: Exception) -> str:
    if isinstance(error, EmbedcacheError):
        return one_line(str(error))
    if isinstance(error, MemoryError):
        return "out of memory; use fewer --threads or a smaller batch"
    if isinstance(error, OSError) and error.strerror:
        where = f" {one_line(str(error.filename))}" if error.filename else ""
        return f"{error.strerror}:{where}; check that the path exists, is yours to use and has space"
    text = one_line(str(error)) or "no message"
    return f"{type(error).__name__}: {text} (unexpected: EMBEDCACHE_DEBUG=1 shows where)"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="embedcache")
def main() -> None:
    """Embed labelled texts once, train hundreds of heads in seconds, search the neighbours."""
    # Read when torch loads. Waiting threads that spin cost PyTorch most of its speed where others use the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")(command)


def emit(document: Any) -> None:
    click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """What Ctrl-C saves is saved, too, where a batch system ends the work."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda[:N].")
trust_option = click.option(
    "--trust-remote-code",
    is_flag=True,
    help="Run Python code that comes with the model. Only for models you trust.",
)


@main.command(short_help="Embed every text once, into CACHE.")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option("-o", "--output", "cache", required=True, metavar="CACHE", help="The HDF5 file to make or go on with.")
@click.option("--model", default="bert-base-uncased", show_default=True, help="A name on the hub, or a folder.")
@click.option("--text", default="text", show_default=True, help="The column of texts.")
@click.option("--label", "labels", type=NAMES, help="Label columns.  [default: label, where there is one]")
@click.option("--id", "id", help="A column that names each row.")
@click.option("--keep", type=NAMES, default=(), help="Other columns to keep, for --where, --group and search.")
@click.option("--max-length", type=COUNT, default=250, show_default=True, help="Tokens per text; longer ones are cut.")
@click.option("--pooling", type=POOLINGS, default="cls", show_default=True, help="cls, mean or both.")
@click.option("--layers", type=LAYERS, default="-1", show_default=True, help="Layers to store; -1 is the last.")
@click.option(
    "--dtype",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
)
@click.option("--store", type=click.Choice(["float16", "float32"]), default="float16", show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda[:N], cuda:0,cuda:1 or cuda:all.")
@click.option("--workers", type=COUNT, help="Encode in so many processes, by Ray (here, if --ray is not given).")
@click.option("--ray", metavar="ADDRESS|local", help="Encode on a Ray cluster, or on this machine's cores or GPUs.")
@click.option("--batch-tokens", type=COUNT, help="Tokens in a batch, padding counted.  [default: by device]")
@click.option("--shard", type=Part(), help="Only part I of N of the rows, into a CACHE of its own; see merge.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of text files.")
@click.option("--overwrite", is_flag=True, help="Replace a CACHE of another encoder or of other texts.")
@trust_option
@json_option
def extract(as_json: bool, inputs: tuple[str, ...], cache: str, **options: Any) -> None:
    """Run the frozen encoder over every text once and keep the vectors.

    INPUT is a .csv, .tsv, .jsonl, .parquet or .txt file (also .gz, .zst, .bz2); several are read one after another.
    A stopped run goes on where it was; texts that CACHE already holds are not encoded again.

    \b
      embedcache extract reviews.csv -o reviews.h5 --keep movie --pooling cls,mean
      ... --device cuda:all                  every GPU of this machine
      ... --ray local --workers 4            four processes on this machine
      ... --ray 10.0.0.1:6379                every GPU, or every core, of a Ray cluster
      ... --shard 3/8                        one of eight jobs of a batch scheduler; then merge
    """
    from embedcache.extract import extract as run

    try:
        with _sigterm_as_ctrl_c(), progress_bar("encoding") as progress:
            report = run(inputs, cache, progress=progress, **options)
    except KeyboardInterrupt:
        click.echo(show.interrupted_extract(cache), err=True)
        sys.exit(1)
    if as_json:
        emit(report.to_dict())
    else:
        show.extract(report)


@main.command(short_help="Join the caches of all shards.")
@click.argument("shards", nargs=-1, required=True, metavar="SHARD...")
@click.option("-o", "--output", "cache", required=True, metavar="CACHE", help="The HDF5 file to make.")
@click.option("--overwrite", is_flag=True, help="Replace a CACHE of something else.")
@json_option
def merge(as_json: bool, shards: tuple[str, ...], cache: str, overwrite: bool) -> None:
    """Join what `extract --shard I/N` made into the one CACHE that extract without a shard makes.

    \b
      embedcache extract reviews.csv -o part-1.h5 --shard 1/3        three jobs of a batch scheduler
      embedcache extract reviews.csv -o part-2.h5 --shard 2/3
      embedcache extract reviews.csv -o part-3.h5 --shard 3/3
      embedcache merge part-*.h5 -o reviews.h5

    Nothing is encoded. Where shards are not finished, CACHE has what there is, and the exit code is 1: run their
    extract again, then merge again.
    """
    from embedcache.merging import merge as run

    report = run(shards, cache, overwrite=overwrite)
    if as_json:
        emit(report.to_dict())
    elif report.complete:
        show.merge(report)
    if not report.complete:
        raise EmbedcacheError(show.incomplete_merge(report))


@main.command()
@click.argument("cache")
@json_option
def info(as_json: bool, cache: str) -> None:
    """What CACHE holds."""
    from embedcache.cache import open_cache

    with open_cache(cache) as opened:
        document = opened.info()
    if as_json:
        emit(document)
    else:
        show.info(document)


@main.command()
@click.argument("cache")
@json_option
def verify(as_json: bool, cache: str) -> None:
    """Check every byte of CACHE against its checksums."""
    from embedcache.cache import verify as run

    report = run(cache)
    if as_json:
        emit(report.to_dict())
    else:
        show.verify(cache, report)
    if report.damaged:
        raise EmbedcacheError(show.damage(cache, report))


@main.command("train-head", short_help="Train a bank of heads on CACHE, into RUN.")
@click.argument("cache")
@click.option("-o", "--output", "run", required=True, metavar="RUN", help="The folder to make.")
@click.option(
    "--label", type=NAMES, help="Label columns, each with heads of its own.  [default: label, or the only one]"
)
@click.option(
    "--task",
    type=click.Choice(["auto", "classification", "multilabel", "regression"]),
    default="auto",
    show_default=True,
    help="auto: multilabel where a label column holds lists, else classification.",
)
@click.option("--recipe", type=click.Choice(["default", "article"]), default="default", show_default=True)
@click.option("--hidden", type=SweepList(Number(int, 0, 65537)), help="Hidden units; 0 is a linear probe.")
@click.option("--lr", type=SweepList(RATE), help="Learning rates.")
@click.option("--dropout", type=SweepList(FRACTION))
@click.option("--weight-decay", type=SweepList(Number(float, 0)))
@click.option("--label-smoothing", type=SweepList(FRACTION), help="Share of a label that is spread over all of them.")
@click.option(
    "--schedule", type=CommaList(choices=SCHEDULES), help="Of the learning rate: constant, linear or cosine, down to 0."
)
@click.option("--warmup", type=SweepList(FRACTION), help="Share of the steps in which the rate rises from 0.")
@click.option(
    "--class-weight",
    type=CommaList(choices=("none", "balanced")),
    help="Of the training loss. Heads are chosen by one validation loss: weighted if all are balanced, else plain.",
)
@click.option("--seed", type=CommaList(Number(int, 0, 2**63)))
@click.option("--random", type=COUNT, metavar="N", help="Draw N combinations, each with every --seed, in place of all.")
@click.option("--batch-size", type=COUNT)
@click.option("--epochs", type=COUNT)
@click.option("--val", type=FRACTION, help="Share of the rows to validate on.")
@click.option("--test", type=FRACTION, help="Share of the rows to score the chosen head on, once.")
@click.option(
    "--folds", type=Number(int, 2), metavar="K", help="K folds in place of --val; the best is trained again on all."
)
@click.option("--group", help="Rows with the same value in this column stay on one side of the split.")
@click.option("--standardize/--no-standardize", default=None, help="Zero mean, unit variance for every feature.")
@click.option("--early-stop", type=Number(int, 0), metavar="N", help="Stop a head after N epochs without gain.")
@click.option("--pooling", type=click.Choice(["cls", "mean"]), help="[default: cls, or the only one stored]")
@click.option("--layers", "layer", type=Number(int, -1000), default=-1, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "native", "torch"]), default="auto", show_default=True)
@device_option
@click.option(
    "--compute", type=click.Choice(["auto", "float32", "bfloat16", "tf32"]), default="auto", show_default=True
)
@click.option("--threads", type=COUNT, help="[default: every core that this process may use]")
@click.option("--resume", is_flag=True, help="Keep the heads that RUN or an interrupted training of it has already.")
@json_option
def train_head(as_json: bool, cache: str, run: str, **options: Any) -> None:
    """Train a head for every combination of the comma lists, all at once.

    What is not named comes from the recipe.

    \b
      embedcache train-head C.h5 -o RUN --lr 1e-4,1e-3 --seed 0,1,2      six heads
      ... --lr 1e-5:1e-2 --hidden 32:1024 --dropout 0,0.3 --random 50    fifty drawn from ranges and lists
      ... --schedule cosine,linear --warmup 0.1 --label-smoothing 0,0.1 --class-weight none,balanced
      ... --label genre,stars                                            heads for both columns, in one bank
      ... --label stars --task regression                                numbers, not classes
      ... --resume                                                       after Ctrl-C, or with more settings
    """
    from embedcache.heads.job import train_head as train

    ranges = [name for name, value in options.items() if isinstance(value, Range)]
    if ranges and not options["random"]:
        name = ranges[0].replace("_", "-")
        raise click.UsageError(f"--{name} {options[ranges[0]]} is a range: draw from it with --random N")
    with _sigterm_as_ctrl_c(), progress_bar("training", "head-rows", steps="head-epochs") as progress:
        report = train(
            cache, run, progress=progress, tell=lambda line: click.echo(f"Note: {line}", err=True), **options
        )
    if as_json:
        emit(report.to_dict())
    else:
        show_heads.train_head(report)


@main.command()
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@click.option("--input", "input", help="A table to label instead of TEXT.")
@click.option("-o", "--output", help="Where the labelled table goes (.csv); with --input.")
@click.option("--text", default="text", show_default=True, help="The column of texts in --input.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of a text file in --input.")
@click.option("--model", help="The encoder's folder, where it has moved.")
@click.option("--calibrated", is_flag=True, help="Divide the logits by the temperature fitted on the validation rows.")
@device_option
@trust_option
@json_option
def predict(as_json: bool, run: str, texts: tuple[str, ...], **options: Any) -> None:
    """Label texts with the best head of RUN, or of each of its label columns."""
    from embedcache.predict import Classifier, predict_file

    load = {name: options.pop(name) for name in ("device", "model", "trust_remote_code", "calibrated")}
    source, output = options["input"], options["output"]
    if bool(texts) == bool(source):
        raise click.UsageError("give texts, or --input FILE with -o OUT.csv (one of the two)")
    if bool(source) != bool(output):
        raise click.UsageError("--input FILE and -o OUT.csv go together")
    classifier = Classifier.load(run, **load)
    if source:
        with progress_bar("labelling") as progress:
            report = predict_file(classifier, progress=progress, **options)
        if as_json:
            emit(report.to_dict())
        else:
            show.predicted_file(report)
        return
    predictions = classifier.predict(texts)
    if as_json:
        emit([prediction.to_dict() for prediction in predictions])
    else:
        show.predictions(predictions)


@main.command(short_help="Write RUN's encoder and best head as one model.")
@click.argument("run")
@click.option("--to", required=True, type=click.Choice(["torch", "onnx", "sentence-transformers"]))
@click.option("-o", "--output", required=True, metavar="OUT", help="The folder to make.")
@click.option("--model", help="The encoder's folder, where it has moved.")
@click.option("--overwrite", is_flag=True, help="Replace an export that is at OUT.")
@trust_option
@json_option
def export(as_json: bool, run: str, **options: Any) -> None:
    """Write the encoder and the best head of RUN as one model, that needs no embedcache.

    \b
      torch                   model.pt2, for torch.export.load
      onnx                    model.onnx, for ONNX Runtime and others
      sentence-transformers   a folder that SentenceTransformer(OUT) opens

    What is written is opened again and compared; OUT/README.md has the few lines that use it.
    """
    from embedcache.export import export_run

    report = export_run(run, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show.export(report)


@main.command()
@click.argument("cache")
@click.argument("query", required=False)
@click.option("--row", type=Number(int, 0), help="Neighbours of this row of CACHE.")
@click.option("--file", "file", help="A table, or lines, of queries instead of one.")
@click.option("--text", default="text", show_default=True, help="The column of queries in --file.")
@click.option("--encoding", default="utf-8", show_default=True, help="Of a text file in --file.")
@click.option("-k", type=COUNT, default=10, show_default=True, help="How many neighbours.")
@click.option("--where", multiple=True, help='Only rows with "label=positive", or "label!=positive"; may be repeated.')
@click.option("--pooling", type=click.Choice(["cls", "mean"]), help="[default: cls, or the only one stored]")
@device_option
@trust_option
@json_option
def search(as_json: bool, cache: str, query: str | None, row: int | None, file: str | None, **options: Any) -> None:
    """Find the rows of CACHE that are most like a text.

    Exact, by cosine. With --row N: the neighbours of a row of CACHE, without itself.
    """
    from embedcache.search import search_cache

    if sum(given is not None for given in (query, row, file)) != 1:
        raise click.UsageError("give one of QUERY, --row N, --file F")
    report = search_cache(Path(cache), query=query, row=row, file=file, **options)
    if as_json:
        emit(report.to_dict())
    else:
        show.search(report)


if __name__ == "__main__":
    main()
