"""The rows that are labelled: those of a table, which are encoded, or those of a cache, which are not."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.progress import Progress
from embedcache.common.reading import Reading
from embedcache.prediction.classifier import Classifier, check_same_encoder
from embedcache.tables.read import content_digest, open_source
from embedcache.tables.rows import Columns, read_rows
from embedcache.tables.stream import Table
from embedcache.tables.whole import layout_of, whole_columns
from embedcache.tables.write import TableLayout

if TYPE_CHECKING:
    import pyarrow as pa

FILE_ROWS = 2048  # rows of a table that are encoded, in batches of like length, and saved at a time
CACHE_ROWS = 8192  # of a cache
HDF5 = b"\x89HDF\r\n\x1a\n"  # how a cache begins
VERSION = 2  # of what PredictedRows are saved as


@dataclass
class PredictedRows:
    """Predictions of some rows.

    Attributes:
        columns: Arrow arrays; of each label column the labels, and unless it is a regression their probabilities to
            six decimals. Lists of labels have lists of probabilities.
        reading: what the encoder read of their texts; None where nothing was encoded.
    """

    columns: list[pa.Array]
    reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @classmethod
    def of(cls, classifier: Classifier, vectors: np.ndarray, reading: Reading | None = None) -> PredictedRows:
        """vectors: [n, D]."""
        found = []
        for answer in classifier.answers(vectors).values():
            labels, *chances = answer.columns("label", probabilities=False).values()
            found += [labels, *map(_rounded, chances)]
        return cls(found, reading)

    def to_bytes(self) -> bytes:
        """As an Arrow stream."""
        import pyarrow as pa

        batch = pa.RecordBatch.from_arrays(self.columns, names=list(map(str, range(len(self.columns)))))
        batch = batch.replace_schema_metadata({"reading": json.dumps(self.reading and asdict(self.reading))})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, data: bytes) -> PredictedRows:
        """What ``to_bytes`` wrote, its checksum found right."""
        import pyarrow as pa

        batch = pa.ipc.open_stream(data).read_next_batch()
        read = json.loads(batch.schema.metadata[b"reading"])
        return cls(batch.columns, read and Reading(**{**read, "scripts": tuple(read["scripts"])}))


def _rounded(chances: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(chances.type):
        return pa.ListArray.from_arrays(chances.offsets, pc.round(chances.values, 6))
    return pc.round(chances, 6)


class PredictedBlocks:
    """Predicted rows in order, as many at a time as are asked for; ``reading``: what was read of those taken."""

    def __init__(self, parts: Iterator[PredictedRows]) -> None:
        self._parts, self._left = parts, PredictedRows([])
        self.reading: Reading | None = None

    def take(self, rows: int) -> list[pa.Array]:
        """The columns of the next rows."""
        import pyarrow as pa

        found: list[list[pa.Array]] = []
        while rows:
            if not len(self._left):
                self._left = next(self._parts)
                if (read := self._left.reading) is not None:
                    self.reading = read if self.reading is None else self.reading + read
            found.append([one[:rows] for one in self._left.columns])
            self._left = PredictedRows([one[rows:] for one in self._left.columns])
            rows -= len(found[-1][0])
        return [pa.concat_arrays(some) for some in zip(*found, strict=True)]


class RowSource(ABC):
    """Rows that are labelled.

    Attributes:
        name: for messages. layout: of all columns. rows: how many there are.
        are_encoded: whether the encoder is needed.
        mixed: columns whose values have no type in common, see ``tables.whole``.
    """

    name: str
    layout: TableLayout
    rows: int
    are_encoded = True
    mixed: Sequence[str] = ()

    def check(self, classifier: Classifier) -> None:  # noqa: B027 - a table's texts suit every encoder
        """Raises EmbedcacheError where the classifier's heads cannot read these rows; called first."""

    @abstractmethod
    def key(self) -> str:
        """What identifies these rows: a digest of their content."""

    @abstractmethod
    def parts(self, classifier: Classifier, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        """The predictions of the rows after the first ``skip``, which are those of whole parts."""

    @abstractmethod
    def whole(self) -> Iterator[list[Any]]:
        """All columns of all rows, batch by batch."""


class TableRows(RowSource):
    """Those of a table, read to its end once so that a broken row is found before the work begins."""

    def __init__(self, table: Table, text: str, **how: Any) -> None:
        """how: encoding, separator and sheet of ``read_rows``. Raises EmbedcacheError where it cannot be read."""
        self.name, self._table, self._text, self._how = str(table), table, text, how
        self.rows = self._characters = 0
        for texts in self._texts():
            self.rows += len(texts)
            self._characters += sum(map(len, texts))
        self._source = open_source(table, **how)
        self.layout, self.mixed = layout_of(self._source)

    def key(self) -> str:
        return json.dumps(
            ["table", content_digest(self._source.file), self._text, self._how, FILE_ROWS, self._source.path.suffix]
        )

    def parts(self, classifier: Classifier, skip: int, progress: Progress) -> Iterator[PredictedRows]:
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

            vectors, cut = classifier.encode_counted(texts, tell)
            yield PredictedRows.of(classifier, vectors, cut)

    def whole(self) -> Iterator[list[Any]]:
        return whole_columns(self._source, self.layout, FILE_ROWS)

    def _texts(self) -> Iterator[list[str]]:
        for part in read_rows([self._table], Columns(self._text), batch_rows=FILE_ROWS, **self._how):
            yield part.texts.to_pylist()


class CacheRows(RowSource):
    """Those of a cache, all or where conditions are met; a context, so that the cache is closed."""

    are_encoded = False

    def __init__(self, path: str | Path, where: Sequence[str]) -> None:
        """Raises EmbedcacheError where the cache cannot be opened, or no row meets the conditions."""
        import pyarrow as pa

        from embedcache.cache import open_cache
        from embedcache.cache.where import rows_where

        self.name, self.cache = str(path), open_cache(path)
        self._numbers = np.flatnonzero(rows_where(self.cache, where)) if where else np.arange(self.cache.rows)
        self.rows = len(self._numbers)
        self._vectors = np.empty((0, 0), np.float32)
        self._output = ("", 0)
        first = self._columns(self._numbers[:1])
        types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in first.schema.types]
        types = [pa.string() if pa.types.is_large_string(kind) else kind for kind in types]
        self.layout = TableLayout(first.schema.names, types)

    def __enter__(self) -> CacheRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cache.close()

    def check(self, classifier: Classifier) -> None:
        check_same_encoder(classifier.run, self.cache)
        self._output = classifier.run.info["pooling"], classifier.run.info["layer"]
        self._vectors = self.cache.embeddings(*self._output)

    def key(self) -> str:
        from embedcache.index.file_format import rows_digest

        rows = blake2b(np.ascontiguousarray(self._numbers).data, digest_size=16).hexdigest()
        return json.dumps(["cache", rows_digest(self.cache, *self._output, self.cache.rows), rows, CACHE_ROWS])

    def parts(self, classifier: Classifier, skip: int, progress: Progress) -> Iterator[PredictedRows]:
        dtype = np.dtype(classifier.run.info["dtype"])
        for start in range(skip, self.rows, CACHE_ROWS):
            numbers = self._numbers[start : start + CACHE_ROWS]
            yield PredictedRows.of(classifier, self._vectors[numbers].astype(dtype, copy=False))
            progress(start + len(numbers), self.rows, start + len(numbers))

    def whole(self) -> Iterator[list[Any]]:
        for start in range(0, self.rows, CACHE_ROWS):
            yield self._columns(self._numbers[start : start + CACHE_ROWS]).columns

    def _columns(self, numbers: np.ndarray) -> Any:
        """An Arrow table: the rows' numbers, then everything that the cache has of them but vectors."""
        import pyarrow as pa

        from embedcache.common.frames import free_names

        table = self.cache.to_arrow(numbers)
        names = free_names(["row"], table.schema.names)
        return table.rename_columns([names[name] for name in table.schema.names]).add_column(
            0, "row", pa.array(numbers, pa.int64())
        )


def is_cache(path: str | Path) -> bool:
    """Whether a file is HDF5, which is told from its first bytes."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(len(HDF5)) == HDF5
    except OSError:
        return False
