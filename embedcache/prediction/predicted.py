"""Predictions as they are kept and written, and what makes them: a labeller of texts and of cached rows."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.reading import Reading
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.prediction.predictions import ColumnOutputs

if TYPE_CHECKING:
    import pyarrow as pa

    from embedcache.cache import Cache

VERSION = 2  # of what PredictedRows are saved as
CACHE_ROWS = 8192  # of a cache
Finished = Callable[[np.ndarray], None]  # called with the rows of a part that a batch finished


@dataclass
class PredictedRows:
    """Predictions of some rows.

    Attributes:
        columns: Arrow arrays; of each label column the labels, and unless it is a regression their probabilities to
            six decimals, and why there is no label where rows may be refused. Lists of labels have lists of
            probabilities.
        reading: what the encoder read of their texts; None where nothing was encoded.
    """

    columns: list[pa.Array]
    reading: Reading | None = None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    @classmethod
    def of(cls, answers: Iterable[ColumnOutputs], reading: Reading | None = None) -> PredictedRows:
        """answers: of each label column, on the same n rows."""
        found = []
        for answer in answers:
            labels, *others = answer.columns("label", probabilities=False).values()
            found += [labels, *map(_rounded, others)]
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

    is_list = pa.types.is_list(chances.type)
    if not pa.types.is_floating(chances.type.value_type if is_list else chances.type):
        return chances
    if is_list:
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


class Labeller(ABC):
    """What labels rows: a run's heads, or labels that are only named.

    Attributes:
        columns: label column -> (kind of task, classes).
        cache_rows: how many rows of a cache are labelled, and saved, at a time.
    """

    columns: Mapping[str, tuple[str, list[str]]]
    cache_rows = CACHE_ROWS

    @abstractmethod
    def key(self) -> str:
        """What decides its predictions, the rows apart."""

    @abstractmethod
    def check(self, cache: Cache) -> None:
        """Raises EmbedcacheError where it cannot label the rows of a cache; called first."""

    @abstractmethod
    def cache_key(self, cache: Cache) -> str:
        """A digest of what it reads of a cache."""

    @abstractmethod
    def texts(self, texts: list[str], tell: Finished) -> PredictedRows:
        """Label texts."""

    @abstractmethod
    def cached(self, cache: Cache, rows: np.ndarray, tell: Finished) -> PredictedRows:
        """Label rows of a cache, int64 [n]."""

    def check_vectors(self, name: str, dim: int, encoder: str | None) -> None:
        """Raises EmbedcacheError where it cannot label vectors of a file, D wide, of an encoder if that is known."""
        raise EmbedcacheError(f"{name}: labels that are only named need texts, not vectors: give a table of texts")

    def vectors(self, vectors: np.ndarray, tell: Finished) -> PredictedRows:
        """Label vectors [n, D]."""
        raise NotImplementedError

    def has_classes(self, column: str) -> bool:
        """Whether it predicts labels, not numbers."""
        return kind_of(self.columns[column][0]).has_classes

    def answers_of(self, column: str) -> list[str]:
        """Every label that it may predict; [] of numbers."""
        return self.columns[column][1] if self.has_classes(column) else []

    def blank(self, column: str) -> ColumnOutputs:
        """What it says of one text, but for the values."""
        kind, classes = self.columns[column]
        return ColumnOutputs(kind, classes, np.zeros((1, len(classes) or 1), np.float32))

    def fields(self, column: str, name: str) -> dict[str, pa.DataType]:
        """The columns that its predictions of one label column are written into: their names and types."""
        return {one: values.type for one, values in self.blank(column).columns(name, probabilities=False).items()}

    def types(self) -> list[pa.DataType]:
        """The types of the columns of its PredictedRows."""
        return [kind for label in self.columns for kind in self.fields(label, label).values()]

    def names(self, column: str) -> list[str]:
        """The columns that its predictions are written into, ``column`` being their name or its beginning."""
        several = len(self.columns) > 1
        return [
            name for label in self.columns for name in self.fields(label, f"{column}_{label}" if several else column)
        ]
