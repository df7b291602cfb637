"""Label a table, or the rows of a cache, with the best heads of a run, into another table."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.frames import refuse_frame
from embedcache.common.progress import Progress, Tell, no_progress, no_tell
from embedcache.common.reading import Reading
from embedcache.common.resume import all_parts
from embedcache.common.whole_file import Output, check_output, open_output
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.rows import (
    VERSION,
    CacheRows,
    PredictedBlocks,
    PredictedRows,
    RowSource,
    TableRows,
    is_cache,
)
from embedcache.runs.folder import Run
from embedcache.tables.formats.values import json_value, listed
from embedcache.tables.stream import stored
from embedcache.tables.write import OutputFormat, TableLayout, output_format

COLUMN = "predicted"
SHOWN = 10  # first rows in a report


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
    kind = None if output is None else output_format(output)
    with ExitStack() as ends:
        rows: RowSource
        if is_cache(input):
            rows = ends.enter_context(CacheRows(input, [where] if isinstance(where, str) else list(where)))
        elif where:
            raise EmbedcacheError(f"{input} is not a cache: --where filters rows of a cache")
        else:
            table = ends.enter_context(stored(input))
            if output is not None:
                check_output(output, input)
            rows = TableRows(table, text, encoding=encoding, separator=separator, sheet=sheet)
        if not isinstance(run, Classifier):
            options: dict[str, Any] = {"model": model, "trust_remote_code": trust_remote_code, "calibrated": calibrated}
            run = Classifier.load(run, device, encode=rows.are_encoded, **options)
        rows.check(run)
        names = new_names(run, column)
        if taken := [name for name in names if name in rows.layout.names]:
            raise EmbedcacheError(f"{rows.name} has a column '{taken[0]}' already: choose another name with --as NAME")
        place = None if output is None else ends.enter_context(open_output(output))
        say = tell or no_tell
        for note in run.notes:
            say(note)
        if kind is not None and kind.writer.has_types:
            for name in rows.mixed:
                say(f"column '{name}' holds values of several types: strings stay, all others become JSON")
        job = _Job(run, rows, names, progress or no_progress, say)
        first: list[dict[str, Any]] = []
        if place is None or kind is None:
            first = job.show()
        else:
            job.write(place, kind)
    labels, read = job.counts, job.reading
    return FileReport(
        input=rows.name,
        output=None if place is None else place.name,
        rows=rows.rows,
        truncated=read.truncated if read else 0,
        labels=next(iter(labels.values())),
        columns=labels,
        seconds=time.perf_counter() - start,
        predicted=names,
        resumed=job.resumed,
        first=first,
        text=text if rows.are_encoded else "text",
        reading=read.to_dict() if read else {},
        notes=read.notes(advise=False) if read else [],
    )


def new_names(classifier: Classifier, column: str = COLUMN) -> list[str]:
    """The columns that a prediction is written into."""
    names = []
    for label, run in classifier.run.columns.items():
        name = f"{column}_{label}" if len(classifier.run.columns) > 1 else column
        names += [name] if _is_number(run) else [name, f"{name}_probability"]
    return names


class _Job:
    """The work of one call: counts and resumed as in the report, reading of the texts that were encoded."""

    def __init__(
        self,
        classifier: Classifier,
        rows: RowSource,
        names: list[str],
        progress: Progress,
        tell: Tell,
    ) -> None:
        self.classifier, self.rows, self.names, self.progress, self.tell = classifier, rows, names, progress, tell
        self.resumed = 0
        self.reading: Reading | None = None
        columns = classifier.run.columns
        self._classes = {label: [] if _is_number(run) else run.classes for label, run in columns.items()}
        places = np.cumsum([0, *(1 if _is_number(run) else 2 for run in columns.values())]).tolist()
        self._places = dict(zip(columns, places, strict=False))  # of each label column's labels in PredictedRows
        self._found: dict[str, Counter[str]] = {label: Counter() for label in columns}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Label column -> class -> rows."""
        return {label: {name: self._found[label][name] for name in names} for label, names in self._classes.items()}

    def show(self) -> list[dict[str, Any]]:
        """Label all rows and return the first."""
        found: list[dict[str, Any]] = []
        names = [*self.rows.layout.names, *self.names]
        for columns in self._columns(PredictedBlocks(self._made(0))):
            if wanted := SHOWN - len(found):
                cells = [map(json_value, listed(one[:wanted])) for one in columns]
                found += [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
        return found

    def write(self, place: Output, kind: OutputFormat) -> None:
        """Label all rows into ``place``."""
        layout, vector = self.rows.layout, np.zeros((1, self.classifier.run.best.dim), np.float32)
        types = [*(layout.types or ()), *(one.type for one in PredictedRows.of(self.classifier, vector).columns)]
        parts, self.resumed = all_parts(
            place,
            self._made,
            PredictedRows.from_bytes,
            key=self._key,
            total=self.rows.rows,
            what="rows are labelled",
            tell=self.tell,
        )
        with kind.open(place, TableLayout([*layout.names, *self.names], types, layout.metadata)) as writer:
            for columns in self._columns(PredictedBlocks(parts)):
                writer.write(columns)

    def _columns(self, parts: PredictedBlocks) -> Iterator[list[Any]]:
        """All columns of all rows, the new ones last."""
        for columns in self.rows.whole():
            new = parts.take(len(columns[0]))
            self._count(new)
            yield [*columns, *new]
        self.reading = parts.reading

    def _made(self, skip: int) -> Iterator[PredictedRows]:
        return self.rows.parts(self.classifier, skip, self.progress)

    def _count(self, new: list[Any]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for label, place in self._places.items():
            if self._classes[label]:
                labels = new[place]
                flat = pc.list_flatten(labels) if pa.types.is_list(labels.type) else labels
                for one in pc.value_counts(flat).to_pylist():
                    self._found[label][one["values"]] += one["counts"]

    def _key(self) -> str:
        """What decides the predictions."""
        one = self.classifier
        return self.rows.key() + json.dumps([VERSION, one.digest, one.calibrated, getattr(one.encoder, "device", None)])


def _is_number(run: Run) -> bool:
    return not kind_of(run.best.kind).has_classes
