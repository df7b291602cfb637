"""Arrays side by side: those with two dimensions are vectors, those with one are columns of the same rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from embedcache.tables.memory import Frame
from embedcache.vectors.formats.base import VectorFile, check_numbers, choose, rows_together

if TYPE_CHECKING:
    from embedcache.tables.stream import Table


class Array(NamedTuple):
    """An array in a file: its type and its shape."""

    dtype: np.dtype
    shape: tuple[int, ...]


class ArraysFile(VectorFile):
    """A file of named arrays, of which those of one dimension and N entries are columns."""

    def __init__(self, name: str, arrays: Mapping[str, Array], asked: str | None) -> None:
        super().__init__(name)
        found = [
            key
            for key, one in arrays.items()
            if (len(one.shape) == 2 and one.dtype.kind in "fiu") or one.dtype.kind == "O"
        ]
        found = [asked] if asked is not None and asked in arrays else found
        self.column = choose(name, found, asked, list(arrays), "array [N, D]")
        self.array = arrays[self.column]
        check_numbers(f"{name}: {self.column}", *self.array)
        self._columns = [
            key for key, one in arrays.items() if one.shape == self.array.shape[:1] and self.is_column(one.dtype)
        ]

    def is_column(self, dtype: np.dtype) -> bool:
        return dtype.kind in "USbiuf"

    @property
    def table(self) -> Table | None:
        import pyarrow as pa

        if not self._columns:
            return None
        return Frame(self.name, pa.table({name: self.values(name) for name in self._columns}))

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        rows, dim = self.array.shape
        size = rows_together(dim, self.array.dtype.itemsize)
        return self.read(self.column, first, rows, size)

    @abstractmethod
    def read(self, name: str, first: int, stop: int, size: int) -> Iterator[np.ndarray]:
        """The rows from ``first`` on, ``size`` at a time."""

    @abstractmethod
    def values(self, name: str) -> Any:
        """An array of one dimension, as Arrow takes it."""


class ArrayInMemory(VectorFile):
    """Vectors [N, D] of NumPy, torch or whatever gives an array."""

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__("the array")
        check_numbers(self.name, vectors.dtype, vectors.shape)
        self.vectors = vectors

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        size = rows_together(self.vectors.shape[1], self.vectors.dtype.itemsize)
        for start in range(first, len(self.vectors), size):
            yield np.asarray(self.vectors[start : start + size])
