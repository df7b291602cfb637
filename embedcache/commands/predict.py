"""predict: the command that labels texts, tables and caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from embedcache.commands.common import (
    DerivedHelp,
    check_json,
    device_option,
    emit,
    formats_written,
    json_option,
    reading_options,
    tell,
    trust_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar


@click.command(
    cls=DerivedHelp,
    words={"formats": formats_written},
    short_help="Label texts, a table or a cache with the best head of RUN.",
)
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]... | CACHE")
@click.option("--input", "input", help="A table to label, - for standard input.")
@click.option("-o", "--output", metavar="OUT", help="The table to write, - for standard output.")
@click.option("--as", "column", default="predicted", show_default=True, metavar="NAME", help="Name of the new columns.")
@click.option("--where", multiple=True, help="Only rows of CACHE that meet a condition; may be repeated.")
@click.option("--text", default="text", show_default=True, help="The column of texts in --input.")
@reading_options("in --input")
@click.option("--model", help="The encoder's folder, where it has moved.")
@click.option("--calibrated", is_flag=True, help="Divide the logits by the temperature fitted on the validation rows.")
@device_option
@trust_option
@json_option
def predict(as_json: bool, run: str, texts: tuple[str, ...], **options: Any) -> None:
    """Label texts with the best head of RUN, or of each of its label columns.

    Every row of --input or CACHE is labelled: all its columns are kept, followed by "predicted" and
    "predicted_probability". A CACHE must be of RUN's encoder, and is not encoded again. OUT is a {formats} file;
    a stream is JSON lines. Without -o the first rows are shown. A stopped command continues where it was.

    \b
      embedcache predict RUN "a warm and funny film" "dull"
      embedcache predict RUN --input new.csv -o labelled.csv
      embedcache predict RUN reviews.h5 -o labelled.parquet
      ... --where "label=positive"   only these rows of the cache
      ... --as sentiment     columns sentiment and sentiment_probability
      ... --calibrated       calibrated probabilities
      cat new.jsonl | embedcache predict RUN --input - -o - | head
    """
    from embedcache.commands.show import predict as show_predict

    check_json(as_json, options["output"])
    if bool(texts) == bool(options["input"]):
        raise click.UsageError("give texts, a CACHE or --input TABLE (one of them)")
    if len(texts) == 1 and _means_a_cache(texts[0]):
        options["input"] = texts[0]
    if options["input"]:
        from embedcache.prediction.job import predict_file

        with progress_bar("labelling") as progress:
            report = predict_file(run, progress=progress, tell=tell, **options)
        with unless_written_to(options["output"]):
            if as_json:
                emit(report.to_dict())
            else:
                show_predict.predicted_file(report)
        return
    from embedcache.prediction.classifier import Classifier

    _check_texts(texts, options)
    load = {name: options[name] for name in ("device", "model", "trust_remote_code", "calibrated")}
    classifier = Classifier.load(run, **load)
    vectors, read = classifier.encode_counted(list(texts))
    predictions = classifier.label(list(texts), vectors)
    for note in [*classifier.notes, *read.notes(advise=False)]:
        tell(note)
    if as_json:
        emit([prediction.to_dict() for prediction in predictions])
    else:
        show_predict.predictions(predictions)


def _means_a_cache(text: str) -> bool:
    """Whether a text is an HDF5 file, or named like one: a mistyped path must not be labelled as a text."""
    if text.lower().endswith((".h5", ".hdf5")):
        return True
    if not _is_file(text):
        return False
    from embedcache.prediction.rows import is_cache

    return is_cache(text)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long, or with a null byte: a text
        return False


def _check_texts(texts: tuple[str, ...], options: dict[str, Any]) -> None:
    if options["output"] is not None:
        raise click.UsageError("-o OUT goes with --input TABLE or a CACHE")
    if options["where"]:
        raise click.UsageError("--where goes with a CACHE")
    for text in filter(_is_file, texts):
        from embedcache.tables.read import suffixes
        from embedcache.tables.write import WRITERS

        if _means_a_cache(text):
            raise click.UsageError(f"{text} is a cache: name it alone, and its rows are labelled")
        if suffixes(Path(text))[1] in WRITERS:
            raise click.UsageError(f"{text} is a file: --input {text} labels its rows")
