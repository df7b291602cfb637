""".h5: datasets of HDF5; those with one dimension are columns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.tables.source import existing_file, one_line
from embedcache.tables.stream import Table
from embedcache.vectors.formats.arrays import Array, ArraysFile
from embedcache.vectors.formats.base import VectorFile, VectorFormat, file_of


class Hdf5Vectors(VectorFormat):
    suffixes = (".h5", ".hdf5")
    what = "datasets of HDF5; those with one dimension are columns"

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return Hdf5File(table, column)


class Hdf5File(ArraysFile):
    def __init__(self, table: Table, column: str | None) -> None:
        self.name, self._path = str(table), existing_file(Path(file_of(table)))
        arrays: dict[str, Array] = {}
        self._strings: set[str] = set()
        with self._opened() as file:
            import h5py

            if file.attrs.get("format") == "embedcache":
                raise EmbedcacheError(f"{table} is a cache already: use it as it is, or write its vectors out first")

            def see(name: str, one: Any) -> None:
                if isinstance(one, h5py.Dataset):
                    if h5py.check_string_dtype(one.dtype):
                        self._strings.add(name)
                        arrays[name] = Array(np.dtype("U1"), one.shape or ())
                    else:
                        arrays[name] = Array(one.dtype, one.shape or ())

            file.visititems(see)
        super().__init__(self.name, arrays, column)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        import h5py

        try:
            with h5py.File(self._path, "r") as file:
                yield file
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            raise EmbedcacheError(f"{self.name}: not HDF5, or damaged ({one_line(error)}): write it again") from error

    def read(self, name: str, first: int, stop: int, size: int) -> Iterator[np.ndarray]:
        with self._opened() as file:
            for start in range(first, stop, size):
                yield file[name][start : min(start + size, stop)]

    def values(self, name: str) -> Any:
        with self._opened() as file:
            return file[name].asstr()[:].tolist() if name in self._strings else file[name][:]
