"""The rows that are labelled: those of a table, which are encoded, or those of a cache, which are not."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from embedcache.common.progress import Progress
from embedcache.prediction.predicted import Labeller, PredictedRows
from embedcache.tables.read import open_source, source_digest
from embedcache.tables.rows import TEXT_COLUMN, Columns, read_rows
from embedcache.tables.stream import Table
from embedcache.tables.whole import layout_of, whole_columns
from embedcache.tables.write import TableLayout

FILE_ROWS = 2048  # rows of a table that are encoded, in batches of like length, and saved at a time
WRITTEN_ROWS = 8192  # of a cache, that are written at a time
HDF5 = b"\x89HDF\r\n\x1a\n"  # how a cache begins


class RowSource(ABC):
    """Rows that are labelled.

    Attributes:
        name: for messages. layout: of all columns. rows: how many there are.
        are_encoded: whether the encoder is needed.
        mixed: columns whose values have no type in common, see ``tables.whole``.
        labels_from: of a cache, what lies over its labels: ``Cache.labels_from``.
        text: the column of the texts.
    """

    name: str
    layout: TableLayout
    rows: int
    are_encoded = True
    mixed: Sequence[str] = ()
    labels_from: dict[str, Any] | None = None
    text: str = TEXT_COLUMN

    def check(self, labeller: Labeller) -> None:  # noqa: B027 - a table's texts suit every labeller
        """Raises EmbedcacheError where these rows cannot be labelled so; called first."""

    @abstractmethod
    def key(self, labeller: Labeller) -> str:
        """What identifies these rows: a digest of their content."""

    @abstractmethod
    def parts(self, labeller: Labeller, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        """The predictions of the rows after the first ``skip``, which are those of whole parts."""

    @abstractmethod
    def whole(self) -> Iterator[list[Any]]:
        """All columns of all rows, batch by batch."""

    def counting(self, done: int, progress: Progress) -> Callable[[np.ndarray], None]:
        """What hears of each batch of rows, after ``done`` of them, and tells ``progress``."""

        def tell(batch: np.ndarray) -> None:
            nonlocal done
            done += len(batch)
            progress(done, self.rows, done)

        return tell


class TableRows(RowSource):
    """Those of a table, read to its end once so that a broken row is found before the work begins."""

    def __init__(self, table: Table, text: str, **how: Any) -> None:
        """how: encoding, separator and sheet of ``read_rows``. Raises EmbedcacheError where it cannot be read."""
        self.name, self.table, self.text, self._how = str(table), table, text, how
        self.rows = self._characters = 0
        for texts in self._texts():
            self.rows += len(texts)
            self._characters += sum(map(len, texts))
        self._source = open_source(table, **how)
        self.layout, self.mixed = layout_of(self._source)

    def key(self, labeller: Labeller) -> str:
        return json.dumps(
            [
                "table",
                source_digest(self._source),
                self.text,
                self._how,
                FILE_ROWS,
                list(self._source.format.suffixes[:1]),
            ]
        )

    def parts(self, labeller: Labeller, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        done = seen = 0  # characters, rows
        for texts in self._texts():
            before, seen = seen, seen + len(texts)
            if before < skip:
                done += sum(map(len, texts))
                continue
            rows = before

            def tell(batch: np.ndarray, texts: list[str] = texts) -> None:
                nonlocal done, rows
                done, rows = done + sum(len(texts[i]) for i in batch), rows + len(batch)
                progress(done, self._characters, rows)

            yield labeller.texts(texts, tell)

    def whole(self) -> Iterator[list[Any]]:
        return whole_columns(self._source, self.layout, FILE_ROWS)

    def _texts(self) -> Iterator[list[str]]:
        for part in read_rows([self.table], Columns(self.text), batch_rows=FILE_ROWS, **self._how):
            yield part.texts.to_pylist()


class CacheRows(RowSource):
    """Those of a cache, all or where conditions are met; a context, so that the cache is closed."""

    are_encoded = False

    def __init__(self, path: str | Path, where: Sequence[str], labels: str | Path | None = None) -> None:
        """labels: see ``open_labelled``.

        Raises EmbedcacheError where the cache cannot be opened, or no row meets the conditions.
        """
        import pyarrow as pa

        from embedcache.cache.where import rows_where
        from embedcache.labelling import open_labelled

        self.name, self.cache = str(path), open_labelled(path, labels)
        self.labels_from = self.cache.labels_from
        self.numbers = np.flatnonzero(rows_where(self.cache, where)) if where else np.arange(self.cache.rows)
        self.rows = len(self.numbers)
        first = self._columns(self.numbers[:1])
        types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in first.schema.types]
        types = [pa.string() if pa.types.is_large_string(kind) else kind for kind in types]
        self.layout = TableLayout(first.schema.names, types)

    def __enter__(self) -> CacheRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cache.close()

    def check(self, labeller: Labeller) -> None:
        labeller.check(self.cache)

    def key(self, labeller: Labeller) -> str:
        rows = blake2b(np.ascontiguousarray(self.numbers).data, digest_size=16).hexdigest()
        return json.dumps(["cache", labeller.cache_key(self.cache), rows, labeller.cache_rows])

    def parts(self, labeller: Labeller, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        tell = self.counting(skip, progress)
        for start in range(skip, self.rows, labeller.cache_rows):
            yield labeller.cached(self.cache, self.numbers[start : start + labeller.cache_rows], tell)

    def whole(self) -> Iterator[list[Any]]:
        for start in range(0, self.rows, WRITTEN_ROWS):
            yield self._columns(self.numbers[start : start + WRITTEN_ROWS]).columns

    def _columns(self, numbers: np.ndarray) -> Any:
        """An Arrow table: the rows' numbers, then everything that the cache has of them but vectors."""
        import pyarrow as pa

        from embedcache.common.frames import free_names

        table = self.cache.to_arrow(numbers)
        names = free_names(["row"], table.schema.names)
        return table.rename_columns([names[name] for name in table.schema.names]).add_column(
            0, "row", pa.array(numbers, pa.int64())
        )


def is_cache(path: Any) -> bool:
    """Whether a file is HDF5, which is told from its first bytes."""
    if not isinstance(path, (str, Path)):
        return False  # a table in memory
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(len(HDF5)) == HDF5
    except OSError:
        return False
