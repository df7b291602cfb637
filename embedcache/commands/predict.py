"""predict: the command that labels texts, tables and caches."""

from __future__ import annotations

from contextlib import suppress
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
    labels_option,
    reading_options,
    tell,
    trust_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import NumberInRange, NumberOr


@click.command(
    cls=DerivedHelp,
    words={"formats": formats_written},
    short_help="Label texts, a table or a cache with the best head of RUN, or of several.",
)
@click.argument("run")
@click.argument("texts", nargs=-1, metavar="[TEXT]... | [RUN]... CACHE")
@click.option("--input", "input", help="A table to label, - for standard input.")
@click.option("-o", "--output", metavar="OUT", help="The table to write, - for standard output.")
@click.option("--as", "column", default="predicted", show_default=True, metavar="NAME", help="Name of the new columns.")
@click.option("--where", multiple=True, help="Only rows of CACHE that meet a condition; may be repeated.")
@labels_option
@click.option("--text", help="The column of texts in --input.  [default: as in RUN's cache, else text]")
@click.option("--vector", metavar="COL", help="The column of vectors in --input, in place of texts.")
@reading_options("in --input")
@click.option("--model", help="The encoder's folder, where it has moved.")
@click.option("--calibrated", is_flag=True, help="Divide the logits by the temperature fitted on the validation rows.")
@click.option(
    "--threshold",
    type=NumberOr(NumberInRange(float, 0, 1, above=True), "tuned"),
    metavar="tuned|P",
    help="Probability from which the second of two classes, or each of several labels, is predicted; tuned: chosen on "
    "the validation rows.  [default: 0.5]",
)
@click.option(
    "--reject",
    type=NumberOr(NumberInRange(float, 0, 1, above=True), "auto"),
    metavar="auto|P",
    help="Give no label below this calibrated probability, nor to rows unlike the training rows; auto: half of the "
    "errors.",
)
@click.option(
    "--sure",
    type=NumberInRange(float, 0, 1, above=True),
    metavar="P",
    help="Of a run with a hierarchy: answer the deepest level of at least this calibrated probability.",
)
@click.option("--explain", is_flag=True, help="Say which words carry each label, and name the training rows nearest.")
@click.option(
    "--explain-words",
    type=click.IntRange(min=1),
    metavar="N",
    help="Explain by N words of each text, those whose own vectors carry most of its label: faster, may miss some.  "
    "[default: all]",
)
@device_option
@trust_option
@json_option
def predict(as_json: bool, run: str, texts: tuple[str, ...], **options: Any) -> None:
    """Label texts with the best head of RUN, or of each of its label columns.

    Every row of --input or CACHE is labelled: all its columns are kept, followed by "predicted" and
    "predicted_probability". A CACHE must be of RUN's encoder, and is not encoded again. OUT is a {formats} file;
    a stream is JSON lines. Without -o the first rows are shown. A stopped command continues where it was.

    Several runs label the same rows, each into columns with its folder's name. What their encoders have in common
    is computed once: all of a frozen encoder, and of tuned ones the layers that none has trained.

    \b
      embedcache predict RUN "a warm and funny film" "dull"
      embedcache predict RUN --input new.csv -o labelled.csv
      embedcache predict RUN reviews.h5 -o labelled.parquet
      embedcache predict RUN RUN2 --input new.csv -o labelled.csv
      ... --where "label=positive"   only these rows of the cache
      ... --input new.npy    vectors of its encoder, in place of texts
      ... --as sentiment     columns sentiment and sentiment_probability
      ... --calibrated       calibrated probabilities
      ... --threshold tuned  thresholds that the validation rows chose
      ... --reject auto      no label where the run does not know
      ... --sure 0.8         of a hierarchy the deepest level that is sure
      ... --explain          why: words, and training rows for and against
      ... --explain-words 5  the same several times as fast, by 5 words of each
      cat new.jsonl | embedcache predict RUN --input - -o - | head
    """
    from embedcache.commands.show import predict as show_predict

    check_json(as_json, options["output"])
    runs = [run]
    if options["input"]:
        runs += _runs(texts)
    elif not texts:
        raise click.UsageError(ONE)
    elif _means_a_cache(texts[-1]) and all(map(_is_run, texts[:-1])):
        *more, options["input"] = texts
        runs += more
    if options["input"]:
        from embedcache.prediction.job import predict_file

        with progress_bar("labelling") as progress:
            report = predict_file(runs, progress=progress, tell=tell, **options)
        with unless_written_to(options["output"]):
            if as_json:
                emit(report.to_dict())
            else:
                show_predict.predicted_file(report)
        return
    from embedcache.prediction.classifier import Classifier
    from embedcache.prediction.own_vectors import chosen_words, encode_and_choose
    from embedcache.prediction.predictions import Predictions

    _check_texts(texts, options)
    names = ("device", "model", "trust_remote_code", "calibrated", "threshold", "reject", "sure")
    load = {name: options[name] for name in names}
    classifier = Classifier.load(run, **load)
    words, missing, parts = options["explain_words"], [], None
    if words is None:
        vectors, read = classifier.encode_counted(list(texts))
    else:
        vectors, read, parts = encode_and_choose(classifier, list(texts), words)
        missing = [chosen_words(words)]
    answers = classifier.answers(vectors)
    if options["explain"] or words is not None:
        answers = classifier.explain(texts, vectors, answers, parts)
        missing += [classifier.no_neighbours] if classifier.no_neighbours else []
    predictions = Predictions(texts, answers)
    for note in [*classifier.notes, *missing, *read.notes(advise=False)]:
        tell(note)
    if as_json:
        emit([prediction.to_dict() for prediction in predictions])
    else:
        show_predict.predictions(predictions)


ONE = "give texts, a CACHE or --input TABLE (one of them)"


def _runs(names: tuple[str, ...]) -> tuple[str, ...]:
    """What stands beside RUN where --input is labelled: more runs."""
    for name in names:
        if not _is_run(name):
            raise click.UsageError(f"{ONE}; {name!r} is not a run that would label it, too")
    return names


def _is_run(text: str) -> bool:
    from embedcache.runs.folder import is_run

    with suppress(ValueError):  # a null byte: a text
        return is_run(Path(text))
    return False


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
    if options["vector"] is not None:
        raise click.UsageError("--vector goes with --input TABLE")
    if options["where"]:
        raise click.UsageError("--where goes with a CACHE")
    if options["labels"] is not None:
        raise click.UsageError("--labels goes with a CACHE")
    if named := next(filter(_is_run, texts), None):
        raise click.UsageError(f"{named} is a run: several runs label the rows of --input TABLE, or of a CACHE")
    for text in filter(_is_file, texts):
        from embedcache.tables.read import suffixes
        from embedcache.tables.write import WRITERS
        from embedcache.vectors.read import holds_vectors_alone

        if _means_a_cache(text):
            raise click.UsageError(f"{text} is a cache: name it alone, and its rows are labelled")
        if suffixes(Path(text))[1] in WRITERS or holds_vectors_alone(text):
            raise click.UsageError(f"{text} is a file: --input {text} labels its rows")
