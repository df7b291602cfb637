"""Label a table, or the rows of a cache, by what the labels are called; nothing is trained."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embedcache.common.encoder_schema import imported_name
from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.common.screen import plural
from embedcache.errors import EmbedcacheError
from embedcache.labelling.opened import notes_of
from embedcache.prediction.labelling import COLUMN, Labelling, open_rows
from embedcache.prediction.rows import CacheRows, RowSource
from embedcache.prompting.examples import Examples
from embedcache.prompting.labels import NamedLabels, TextLabel, read_labels
from embedcache.prompting.method import AskedPrompt, Method
from embedcache.prompting.methods import AUTO, METHODS, Similarity, automatic
from embedcache.prompting.scores import KnownScores, known_labels


@dataclass(frozen=True)
class ZeroShotReport:
    """What zero_shot did.

    Attributes:
        input: the table or cache. output: the table that was written; None: nothing was.
        method, model, template: what labelled. shots: examples in each prompt. calibrated: whether by content-free
            texts.
        encoded: rows whose texts a model read; 0 where the vectors of a cache were used.
        truncated: texts that were cut. labels: rows per label.
        scores: where labels are known, else None.
        reading: tokens that were not read, or not known, see ``common.reading.Reading``; {} where nothing was encoded.
        labels_from: of a cache, the journal that was read, see docs/labelling.md.
        notes: what of it matters, in words.
        predicted: the names of the new columns.
        resumed: rows of ``rows`` that an earlier, interrupted command had labelled.
        first: where nothing was written, the first ten rows, with the columns of the input and the new ones.
        text: which of these columns has the texts.
    """

    input: str
    output: str | None
    rows: int
    method: str
    model: str
    template: str
    shots: int
    calibrated: bool
    encoded: int
    truncated: int
    labels: dict[str, int]
    scores: KnownScores | None
    seconds: float
    predicted: list[str] = field(default_factory=list)
    resumed: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    text: str = "text"
    reading: dict[str, Any] = field(default_factory=dict)
    labels_from: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self) | {"scores": None if self.scores is None else self.scores.to_dict()}
        if self.output is not None:
            del document["first"], document["text"]
        return document


def zero_shot(
    input: Any,
    labels: NamedLabels,
    output: str | Path | None = None,
    *,
    model: str | Path | None = None,
    method: str = AUTO,
    template: str | None = None,
    shots: int = 0,
    calibrate: bool = True,
    pooling: str | None = None,
    max_length: int | None = None,
    label: str | None = None,
    group: str | None = None,
    column: str = COLUMN,
    where: str | Sequence[str] = (),
    labels_from: str | Path | None = None,
    text: str = "text",
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> ZeroShotReport:
    """Label every row of a table, or of a cache, with labels that are only named and described.

    The output is that of ``predict_file``: all columns of the input, then ``predicted`` and ``predicted_probability``.
    Interrupted work continues in the same way. The probabilities of a row's labels add up to 1.

    Args:
        input: The table, or a cache; "-" is standard input, JSON lines.
        labels: "name: description; name: description" (several descriptions of one label with "|" between them, or the
            name alone), "@FILE" with one label a line, a list of names, or a dict of names and descriptions.
        output: The table to write, in the format of its suffix; "-" is standard output, JSON lines. None writes
            nothing, and the report has the first rows.
        model: A model's folder, or its name on the Hugging Face hub. None: the encoder of the cache.
        method: One of ``methods``: "similarity", "masked", "entailment", "causal". "auto" is what the model is made
            for, and similarity for a cache without ``model``.
        template: The text around a row's text or a label; None is the method's own.
        shots: How many of the nearest labelled rows of the cache stand as examples in each prompt.
        calibrate: Divide out what masked and causal say of content-free texts (Zhao et al. 2021).
        pooling: The vectors of similarity; None: ``model`` where there are such, else as the cache prefers, or the
            mean.
        max_length: The most tokens of a prompt; None is what suits the model.
        label: The column of known labels, to score against; None is ``label``, if there is one.
        group: Rows with one value of this column count as one observation in the intervals.
        column: The name of the new columns. It must be free.
        where: Conditions on the rows of a cache, as in a search.
        labels_from: Of a cache, a journal of labels that people gave, over its own; "none"; None: that beside it, if
            any.
        text: The column of texts.
        encoding: Encoding of a text file.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database; None is the first, or the only one.
        device: "auto", "cpu", "cuda" or "cuda:N".
        trust_remote_code: Whether to run Python code that comes with the model.
        progress: Called with (done, total, rows); done and total are characters, or rows of a cache.
        tell: Called with each note, one line.

    Raises:
        EmbedcacheError: The input cannot be read or labelled, the labels, template or model do not suit, the output
            cannot be written.
    """
    start = time.perf_counter()
    named = read_labels(labels)
    if method not in (AUTO, *METHODS):
        raise EmbedcacheError(f"no method {method!r}: choose from {', '.join((AUTO, *METHODS))}")
    conditions = [where] if isinstance(where, str) else list(where)
    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
    say = tell or no_tell
    with ExitStack() as ends:
        rows = open_rows(ends, input, output, conditions, text, labels=labels_from, **reading)
        names = [one.name for one in named]
        known, notes = known_labels(rows, label, group, text, conditions, names, labels_from, **reading)
        chosen, source = _method(rows, method, model, trust_remote_code)
        asked = AskedPrompt(
            model=source, labels=named, template=template, pooling=pooling, max_length=max_length,
            calibrate=calibrate, device=device, trust_remote_code=trust_remote_code,
            cache=rows.cache if isinstance(rows, CacheRows) else None,
            examples=_examples(rows, chosen, shots, label, named),
        )  # fmt: skip
        made = chosen(asked)
        for note in [*made.notes, *notes]:
            say(note)
        work = Labelling(made, rows, column, progress or no_progress, say, None if known is None else known.see)
        work.run(output)
        scores = None if known is None else known.scores()
    read = work.reading
    return ZeroShotReport(
        input=rows.name,
        output=work.output,
        rows=rows.rows,
        method=made.name,
        model=made.model,
        template=made.template,
        shots=shots,
        calibrated=made.calibrated,
        encoded=0 if read is None else read.texts,
        truncated=0 if read is None else read.truncated,
        labels=work.counts["label"],
        scores=scores,
        seconds=time.perf_counter() - start,
        predicted=work.names,
        resumed=work.resumed,
        first=work.first,
        text=rows.text,
        reading={} if read is None else read.to_dict(),
        labels_from=rows.labels_from,
        notes=[
            *notes_of(rows.labels_from),
            *([] if read is None else read.notes(advise=False)),
            *_notes(scores, shots),
        ],
    )


def _method(rows: RowSource, method: str, model: str | Path | None, trust: bool) -> tuple[type[Method], str]:
    """(the method, the model)."""
    own = rows.cache.encoder["source"] if isinstance(rows, CacheRows) else None
    if model is None and isinstance(rows, CacheRows) and imported_name(rows.cache.encoder) is not None:
        raise EmbedcacheError(f"the vectors of {rows.name} were imported: name the model that labels it with --model")
    if model is None and own is None:
        raise EmbedcacheError(f"{rows.name} is a table: name the model that labels it with --model")
    source = str(own if model is None else model)
    if method != AUTO:
        return METHODS[method], source
    return (Similarity if model is None else automatic(source, trust)), source


def _examples(
    rows: RowSource, method: type[Method], shots: int, label: str | None, named: Sequence[TextLabel]
) -> Examples | None:
    if not shots:
        return None
    if shots < 0:
        raise EmbedcacheError(f"shots {shots}: use 0 or more examples")
    if not isinstance(rows, CacheRows):
        raise EmbedcacheError(f"--shots takes examples from a cache, and {rows.name} is a table: extract it first")
    if not method.takes_examples:
        able = ", ".join(name for name, one in METHODS.items() if one.takes_examples)
        raise EmbedcacheError(f"--shots puts examples into a prompt, and {method.name} has none: use --method {able}")
    return Examples(rows.cache, label or "label", [one.name for one in named], shots)


def _notes(scores: KnownScores | None, shots: int) -> list[str]:
    if scores is None:
        return []
    notes = []
    if scores.unknown:
        rows = sum(scores.unknown.values())
        some = ", ".join(list(scores.unknown)[:5])
        notes.append(f"{plural(rows, 'row')} have labels that were not named ({some}): they count as wrong")
    if shots:
        notes.append(f"each prompt had {plural(shots, 'labelled neighbour')}: the scores use the labels of other rows")
    else:
        notes.append("nothing was trained: the scores are of all rows with a label, and no label was used")
    return notes
