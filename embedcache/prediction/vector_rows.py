"""Rows of which the vectors are given, so that nothing is encoded: those of a file of vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from embedcache.common.progress import Progress
from embedcache.prediction.predicted import Labeller, PredictedRows
from embedcache.prediction.rows import FILE_ROWS, RowSource
from embedcache.tables.read import open_source
from embedcache.tables.stream import Table
from embedcache.tables.whole import layout_of, whole_columns
from embedcache.tables.write import TableLayout
from embedcache.vectors.read import checked, open_vectors, scan


class VectorRows(RowSource):
    """Those of one file, with the columns that it has beside the vectors; a file without any has ``row``, the number.

    It is read to its end once, so that a bad vector is found before the work begins.
    """

    are_encoded = False

    def __init__(self, table: Table, vector: str | None, **how: Any) -> None:
        """how: encoding, separator and sheet of ``read_rows``. Raises EmbedcacheError where it cannot be read."""
        import pyarrow as pa

        self.name, self._how = str(table), how
        self.file = open_vectors(table, vector, encoding=how["encoding"])
        self.scanned = scan([self.file])
        (self.rows,) = self.scanned.rows
        self._source = None if self.file.table is None else open_source(self.file.table, **how)
        self.layout = TableLayout(["row"], [pa.int64()])
        if self._source is not None:
            self._all, self.mixed = layout_of(self._source)
            vectors = self.file.column.split(".")[0]
            self._kept = [i for i, name in enumerate(self._all.names) if name != vectors]
            types = self._all.types and [self._all.types[i] for i in self._kept]
            self.layout = TableLayout([self._all.names[i] for i in self._kept], types)

    def check(self, labeller: Labeller) -> None:
        labeller.check_vectors(self.name, self.scanned.dim, self.file.encoder)

    def key(self, labeller: Labeller) -> str:
        return json.dumps(["vectors", self.scanned.digest, self.layout.names, FILE_ROWS])

    def parts(self, labeller: Labeller, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        tell = self.counting(skip, progress)
        for vectors in self._parts(skip):
            yield labeller.vectors(vectors, tell)

    def _parts(self, first: int) -> Iterator[np.ndarray]:
        """FILE_ROWS vectors at a time."""
        held = np.empty((0, self.scanned.dim), np.float32)
        for part in checked(self.file, first, self.scanned.dim):
            held = np.concatenate([held, part]) if len(held) else part
            while len(held) >= FILE_ROWS:
                yield held[:FILE_ROWS]
                held = held[FILE_ROWS:]
        if len(held):
            yield held

    def whole(self) -> Iterator[list[Any]]:
        if self._source is None:
            for start in range(0, self.rows, FILE_ROWS):
                yield [list(range(start, min(start + FILE_ROWS, self.rows)))]
            return
        for columns in whole_columns(self._source, self._all, FILE_ROWS):
            yield [columns[i] for i in self._kept]
