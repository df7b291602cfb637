"""zero-shot: the command that labels rows by what the labels are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from embedcache.commands.common import (
    COUNT,
    DerivedHelp,
    check_json,
    device_option,
    emit,
    formats_written,
    journal_option,
    json_option,
    reading_options,
    tell,
    trust_option,
    unless_written_to,
)
from embedcache.commands.progress import progress_bar
from embedcache.commands.types import ClassNames, DerivedChoice, NumberInRange
from embedcache.encoder.poolings import MODEL, POOLINGS


def _methods() -> Sequence[str]:
    from embedcache.prompting.methods import AUTO, METHODS

    return (AUTO, *METHODS)


@click.command(
    cls=DerivedHelp,
    words={"formats": formats_written},
    short_help="Label a table or a cache by what the labels are called.",
)
@click.argument("input", metavar="INPUT|CACHE")
@click.option(
    "--labels",
    type=ClassNames(),
    required=True,
    help='"name: description; name: description", or @FILE with one label a line.',
)
@click.option("-o", "--output", metavar="OUT", help="The table to write, - for standard output.")
@click.option("--model", help="A model's folder or Hugging Face name.  [default: the encoder of CACHE]")
@click.option(
    "--method",
    type=DerivedChoice(_methods),
    default="auto",
    show_default=True,
    help="How to label.",
)
@click.option("--template", help="The text around a text or a label, with {text}, [MASK], {label}, {labels}.")
@click.option(
    "--shots",
    type=NumberInRange(int, 0),
    default=0,
    show_default=True,
    help="Nearest labelled rows of CACHE in each prompt (masked, causal).",
)
@click.option(
    "--calibrate/--no-calibrate",
    default=True,
    show_default=True,
    help="Divide out what the model says of texts without content (masked, causal).",
)
@click.option("--pooling", type=click.Choice([*POOLINGS, MODEL]), help="The vectors of similarity.")
@click.option("--max-length", type=COUNT, help="The most tokens of a prompt.  [default: what suits the model]")
@click.option("--label", help="The column of known labels, for the scores.  [default: label, if there is one]")
@journal_option("--labels-from")
@click.option("--group", metavar="COL", help="Rows with the same value count as one observation in the intervals.")
@click.option("--as", "column", default="predicted", show_default=True, metavar="NAME", help="Name of the new columns.")
@click.option("--where", multiple=True, help="Only rows of CACHE that meet a condition; may be repeated.")
@click.option("--text", default="text", show_default=True, help="The column of texts in INPUT.")
@reading_options("in INPUT")
@device_option
@trust_option
@json_option
def zero_shot(as_json: bool, **options: Any) -> None:
    """Label every row of INPUT or CACHE with labels that are only named and described. Nothing is trained.

    All columns are kept, followed by "predicted" and
    "predicted_probability". Where labels are known, accuracy and macro F1 are
    shown with 95% intervals. OUT is a {formats} file; a stream is JSON lines.
    Without -o the first rows are shown. A stopped command continues where it was.

    \b
    Methods:
      similarity   the nearest description, by vectors; of a CACHE, no encoding
      masked       the word that a masked language model puts into a gap
      entailment   the hypothesis that follows, by a model of inference (NLI)
      causal       the label that a causal language model finds likeliest

    \b
      embedcache zero-shot CACHE --labels "fresh: a good film; rotten: a bad film"
      ... --model bert-base-uncased --labels "fresh: good | great; rotten: bad"
      ... --model MODEL --shots 4     with the four nearest labelled rows
      embedcache zero-shot new.csv --model MODEL --labels @labels.txt -o out.csv
    """
    from embedcache.commands.show import zero_shot as show_zero_shot
    from embedcache.prompting.job import zero_shot as run

    check_json(as_json, options["output"])
    with progress_bar("labelling") as progress:
        report = run(progress=progress, tell=tell, **options)
    with unless_written_to(options["output"]):
        if as_json:
            emit(report.to_dict())
        else:
            show_zero_shot.labelled(report)
