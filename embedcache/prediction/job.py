"""Label a table, or the rows of a cache, with the best heads of a run, into another table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.frames import refuse_frame
from embedcache.common.int8_rows import as_stored
from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.index.file_format import rows_digest
from embedcache.prediction.classifier import Classifier, check_same_encoder
from embedcache.prediction.labelling import COLUMN, Labelling, open_rows
from embedcache.prediction.predicted import Finished, Labeller, PredictedRows

if TYPE_CHECKING:
    from embedcache.cache import Cache


@dataclass(frozen=True)
class FileReport:
    """What predict_file did.

    Attributes:
        input: the table or cache. output: the table that was written; None: nothing was.
        truncated: texts of more tokens than the encoder reads.
        labels: rows per label; of a regression {}. Of several columns, those of the first.
        columns: label column -> its rows per label.
        reading: tokens that were not read, or not known, see ``common.reading.Reading``; {} where nothing was encoded.
        notes: what of it matters, in words.
        predicted: the names of the new columns.
        resumed: rows of ``rows`` that an earlier, interrupted command had labelled.
        first: where nothing was written, the first ten rows, with the columns of the input and the new ones.
        text: which of these columns has the texts.
    """

    input: str
    output: str | None
    rows: int
    truncated: int
    labels: dict[str, int]
    columns: dict[str, dict[str, int]]
    seconds: float
    predicted: list[str] = field(default_factory=list)
    resumed: int = 0
    first: list[dict[str, Any]] = field(default_factory=list)
    text: str = "text"
    reading: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        document = asdict(self)
        if len(self.columns) < 2:
            del document["columns"]
        if self.output is not None:
            del document["first"], document["text"]
        return document


def predict_file(
    run: str | Path | Classifier,
    input: str | Path,
    output: str | Path | None = None,
    *,
    column: str = COLUMN,
    where: str | Sequence[str] = (),
    text: str = "text",
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    device: str = "auto",
    model: str | Path | None = None,
    trust_remote_code: bool = False,
    calibrated: bool = False,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> FileReport:
    """Label every row of a table of any kind that extract reads, or of a cache, for which nothing is encoded.

    The output has all columns of the input, in their order and with their types, followed by ``predicted`` and
    ``predicted_probability`` (a regression has only the first; each of several label columns has its own, such as
    ``predicted_genre``). Lists of labels are lists, in a CSV as JSON. For a cache the columns are ``row`` (its number),
    the id, text, labels and kept columns.

    Long work can be interrupted: what is finished is kept beside the output (in ``.OUT.partial``), and the same call
    continues after it. The output itself appears whole or not at all, and replaces a file of that name.

    Args:
        run: A run folder, or a Classifier.
        input: The table, or a cache made by the run's encoder; "-" is standard input, JSON lines.
        output: The table to write, in the format of its suffix; "-" is standard output, JSON lines. None writes
            nothing, and the report has the first rows.
        column: The name of the new columns, or its beginning. It must be free.
        where: Conditions on the rows of a cache, as in a search.
        text: The column of texts.
        encoding: Encoding of a text file.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database; None is the first, or the only one.
        device: See ``Classifier.load``; not for a Classifier, which has it already. So are the next three.
        model: See ``Classifier.load``.
        trust_remote_code: See ``Classifier.load``.
        calibrated: See ``Classifier.load``.
        progress: Called with (done, total, rows); done and total are characters, or rows of a cache.
        tell: Called with each note, one line.

    Raises:
        EmbedcacheError: The input cannot be read or labelled, the output cannot be written, or the name of a new column
            is taken.
    """
    start = time.perf_counter()
    refuse_frame(input, "predict_file")
    say = tell or no_tell
    with ExitStack() as ends:
        rows = open_rows(ends, input, output, where, text, encoding=encoding, separator=separator, sheet=sheet)
        if not isinstance(run, Classifier):
            options: dict[str, Any] = {"model": model, "trust_remote_code": trust_remote_code, "calibrated": calibrated}
            run = Classifier.load(run, device, encode=rows.are_encoded, **options)
        work = Labelling(RunLabeller(run), rows, column, progress or no_progress, say)
        for note in run.notes:
            say(note)
        work.run(output)
    labels, read = work.counts, work.reading
    return FileReport(
        input=rows.name,
        output=work.output,
        rows=rows.rows,
        truncated=read.truncated if read else 0,
        labels=next(iter(labels.values())),
        columns=labels,
        seconds=time.perf_counter() - start,
        predicted=work.names,
        resumed=work.resumed,
        first=work.first,
        text=text if rows.are_encoded else "text",
        reading=read.to_dict() if read else {},
        notes=read.notes(advise=False) if read else [],
    )


class RunLabeller(Labeller):
    """The best heads of a run: texts are encoded, rows of a cache are not."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.columns = {label: (run.best.kind, run.classes) for label, run in classifier.run.columns.items()}
        self._output = classifier.run.info["pooling"], classifier.run.info["layer"]

    def key(self) -> str:
        one = self.classifier
        return json.dumps([one.digest, one.calibrated, getattr(one.encoder, "device", None)])

    def check(self, cache: Cache) -> None:
        check_same_encoder(self.classifier.run, cache)
        cache.embeddings(*self._output)  # are there, all of them

    def cache_key(self, cache: Cache) -> str:
        return rows_digest(cache, *self._output, cache.rows)

    def texts(self, texts: list[str], tell: Finished) -> PredictedRows:
        vectors, read = self.classifier.encode_counted(texts, tell)
        return PredictedRows.of(self.classifier.answers(vectors).values(), read)

    def cached(self, cache: Cache, rows: np.ndarray, tell: Finished) -> PredictedRows:
        vectors = as_stored(cache.embeddings(*self._output)[rows], self.classifier.run.info["dtype"])
        made = PredictedRows.of(self.classifier.answers(vectors).values())
        tell(rows)
        return made
