"""Rows and a labeller in, a table with predictions out: counted, and resumed where an earlier command stopped."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.progress import Progress, Tell
from embedcache.common.reading import Reading
from embedcache.common.resume import all_parts
from embedcache.common.whole_file import Output, check_output, open_output
from embedcache.errors import EmbedcacheError
from embedcache.prediction.predicted import VERSION, Labeller, PredictedBlocks, PredictedRows
from embedcache.prediction.rows import CacheRows, RowSource, TableRows, is_cache
from embedcache.prediction.rule import REASONS
from embedcache.prediction.vector_rows import VectorRows
from embedcache.tables.formats.values import json_value, listed
from embedcache.tables.rows import column_names, text_column
from embedcache.tables.stream import stored
from embedcache.tables.write import OutputFormat, TableLayout, output_format
from embedcache.vectors.read import holds_vectors_alone

COLUMN = "predicted"
SHOWN = 10  # first rows in a report


def open_rows(
    ends: ExitStack,
    input: Any,
    output: str | Path | None,
    where: str | Sequence[str],
    text: str | None,
    vector: str | None = None,
    labels: str | Path | None = None,
    before: Callable[[], str | None] = lambda: None,
    **reading: Any,
) -> RowSource:
    """The rows of a table or a cache; what they hold open is closed with ``ends``.

    Args:
        ends: Closes it.
        input: A table (a path, an address, one in memory) or a cache; "-" is standard input.
        output: Where the labelled rows will go: refused before the table is read where that cannot be.
        where: Conditions on the rows of a cache.
        text: The column of texts of a table; None: see ``text_column``.
        vector: The column of vectors of a table; None: it has texts, but for files that hold arrays alone.
        labels: Of a cache, see ``open_labelled``.
        before: What texts were called before; asked of a table alone.
        reading: encoding, separator and sheet of a table.

    Raises:
        EmbedcacheError: They cannot be read, or not be labelled into ``output``.
    """
    if output is not None:
        output_format(output)
    is_given = vector is not None or holds_vectors_alone(input)
    if is_cache(input) and not is_given:
        return ends.enter_context(CacheRows(input, [where] if isinstance(where, str) else list(where), labels))
    if where:
        raise EmbedcacheError(f"{input} is not a cache: --where filters rows of a cache")
    if labels is not None:
        raise EmbedcacheError(
            f"{input} is not a cache: a journal of labels ({labels}) lies over those of a cache alone"
        )
    table = ends.enter_context(stored(input))
    if output is not None:
        check_output(output, input)
    if is_given:
        return VectorRows(table, vector, **reading)
    name = text if text is not None else text_column(None, before(), partial(column_names, table, **reading))
    return TableRows(table, name, **reading)


class Labelling:
    """The work of one call.

    Attributes:
        names: of the new columns. output: the table that was written; None where nothing was.
        first: the first rows where nothing was written, else [].
        counts: label column -> class -> rows. resumed: rows that an earlier, interrupted command had labelled.
        reading: what was read of the texts; None where nothing was encoded.
    """

    def __init__(
        self,
        labeller: Labeller,
        rows: RowSource,
        column: str,
        progress: Progress,
        tell: Tell,
        see: Callable[[list[Any]], None] | None = None,
    ) -> None:
        """Checks that the rows can be labelled.

        Args:
            labeller: Labels them.
            rows: Are labelled.
            column: The name of the new columns, or its beginning.
            progress: Hears how far the work is.
            tell: Hears notes.
            see: Is called with the new columns of each batch of rows, in order, Arrow arrays.

        Raises:
            EmbedcacheError: The labeller cannot label these rows, or the name of a new column is taken.
        """
        rows.check(labeller)
        self.labeller, self.rows, self.progress, self.tell = labeller, rows, progress, tell
        self.names = labeller.names(column)
        if taken := [name for name in self.names if name in rows.layout.names]:
            raise EmbedcacheError(f"{rows.name} has a column '{taken[0]}' already: choose another name with --as NAME")
        self._see = see
        self.output: str | None = None
        self.first: list[dict[str, Any]] = []
        self.resumed = 0
        self.reading: Reading | None = None
        columns = labeller.columns
        self._classes = {label: labeller.answers_of(label) for label in columns}
        places = np.cumsum([0, *(len(labeller.fields(label, label)) for label in columns)]).tolist()
        self._places = dict(zip(columns, places, strict=False))  # of each label column's labels in PredictedRows
        self._reasons = {
            label: places[i] + list(labeller.fields(label, label)).index(f"{label}_reason")
            for i, label in enumerate(columns)
            if f"{label}_reason" in labeller.fields(label, label)
        }
        self._found: dict[str, Counter[str]] = {label: Counter() for label in columns}
        self._refused: dict[str, Counter[str]] = {label: Counter() for label in self._reasons}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Label column -> class -> rows."""
        return {label: {name: self._found[label][name] for name in names} for label, names in self._classes.items()}

    @property
    def refused(self) -> dict[str, dict[str, int]]:
        """Label column -> why rows have no label -> rows; of columns whose rows may be refused."""
        return {label: {why: found[why] for why in REASONS[1:]} for label, found in self._refused.items()}

    def run(self, output: str | Path | None) -> None:
        """Label all rows into the table ``output``; with None the first ones are kept here."""
        if output is None:
            self.first = self._show()
            return
        kind = output_format(output)
        with open_output(output) as place:
            if kind.writer.has_types:
                for name in self.rows.mixed:
                    self.tell(f"column '{name}' holds values of several types: strings stay, all others become JSON")
            self._write(place, kind)
            self.output = place.name

    def _show(self) -> list[dict[str, Any]]:
        """Label all rows and return the first."""
        found: list[dict[str, Any]] = []
        names = [*self.rows.layout.names, *self.names]
        for columns in self._columns(PredictedBlocks(self._made(0))):
            if wanted := SHOWN - len(found):
                cells = [map(json_value, listed(one[:wanted])) for one in columns]
                found += [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]
        return found

    def _write(self, place: Output, kind: OutputFormat) -> None:
        """Label all rows into ``place``."""
        layout = self.rows.layout
        types = [*(layout.types or ()), *self.labeller.types()]
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
            if self._see is not None:
                self._see(new)
            yield [*columns, *new]
        self.reading = parts.reading

    def _made(self, skip: int) -> Iterator[PredictedRows]:
        return self.rows.parts(self.labeller, skip, self.progress)

    def _count(self, new: list[Any]) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for label, place in self._places.items():
            if self._classes[label]:
                labels = new[place]
                flat = pc.list_flatten(labels) if pa.types.is_list(labels.type) else labels
                _add(self._found[label], flat)
        for label, place in self._reasons.items():
            _add(self._refused[label], new[place])

    def _key(self) -> str:
        """What decides the predictions."""
        return self.rows.key(self.labeller) + json.dumps([VERSION, self.labeller.key()])


def _add(found: Counter[str], values: Any) -> None:
    """Count the values of an Arrow array."""
    import pyarrow.compute as pc

    for one in pc.value_counts(values).to_pylist():
        found[one["values"]] += one["counts"]
