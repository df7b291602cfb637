""".npy and .npz: arrays of NumPy. Python objects in them are never loaded."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from embedcache.errors import EmbedcacheError
from embedcache.tables.source import existing_file, one_line
from embedcache.tables.stream import Table
from embedcache.vectors.formats.arrays import Array, ArraysFile
from embedcache.vectors.formats.base import VectorFile, VectorFormat, file_of

ERRORS = (ValueError, OSError, EOFError, KeyError, NotImplementedError, SyntaxError, zipfile.BadZipFile, zlib.error)


class Npy(VectorFormat):
    suffixes = (".npy",)
    what = "an array [N, D] of NumPy"

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return NpyFile(table, column)


class Npz(VectorFormat):
    suffixes = (".npz",)
    what = "arrays of NumPy; those with one dimension are columns"

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return NpzFile(table, column)


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    try:
        yield
    except ERRORS as error:
        raise EmbedcacheError(f"{name}: not NumPy's, or damaged ({one_line(error)}): write it again") from error


def _header(file: Any) -> tuple[Array, bool]:
    """The array that begins here, and whether its columns lie together; the file is at its first number then."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_column, dtype = read(file)
    return Array(dtype, tuple(shape)), by_column


class NpyFile(ArraysFile):
    """Read, not mapped, so that memory does not grow with the file."""

    def __init__(self, table: Table, column: str | None) -> None:
        self._path = existing_file(Path(file_of(table)))
        with _in_words(str(table)), self._path.open("rb") as file:
            array, self._by_column = _header(file)
            self._start = file.tell()
        super().__init__(str(table), {column or "vectors": array}, column)
        self.column = ""
        if self._path.stat().st_size < self._start + int(np.prod(array.shape)) * array.dtype.itemsize:
            raise EmbedcacheError(
                f"{table} is cut short: {array.dtype} {list(array.shape)} needs more bytes: copy it again"
            )

    def batches(self, first: int = 0) -> Iterator[np.ndarray]:
        return self.rows(first) if not self._by_column else self._mapped(first)

    def rows(self, first: int) -> Iterator[np.ndarray]:
        yield from super().batches(first)

    def read(self, name: str, first: int, stop: int, size: int) -> Iterator[np.ndarray]:
        dtype, (_, dim) = self.array
        with self._path.open("rb") as file:
            file.seek(self._start + first * dim * dtype.itemsize)
            for start in range(first, stop, size):
                count = min(size, stop - start) * dim
                part = np.fromfile(file, dtype, count)
                if len(part) < count:
                    raise EmbedcacheError(f"{self.name} was cut short while it was read: run again")
                yield part.reshape(-1, dim)

    def _mapped(self, first: int) -> Iterator[np.ndarray]:
        rows, _ = self.array.shape
        array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        for start in range(first, rows, 1024):
            yield np.ascontiguousarray(array[start : start + 1024])

    def values(self, name: str) -> Any:
        raise AssertionError("an .npy file holds one array")


class NpzFile(ArraysFile):
    """An archive of .npy files, unpacked as it is read."""

    def __init__(self, table: Table, column: str | None) -> None:
        self._path = existing_file(Path(file_of(table)))
        arrays: dict[str, Array] = {}
        self._by_column: set[str] = set()
        with _in_words(str(table)), zipfile.ZipFile(self._path) as archive:
            for member in archive.namelist():
                with archive.open(member) as file:
                    array, by_column = _header(file)
                key = member.removesuffix(".npy")
                arrays[key] = array
                if by_column and len(array.shape) > 1:
                    self._by_column.add(key)
        super().__init__(str(table), arrays, column)
        if self.column in self._by_column:
            raise EmbedcacheError(
                f"{table}: {self.column} lies column by column (Fortran's order): save numpy.ascontiguousarray of it"
            )

    def read(self, name: str, first: int, stop: int, size: int) -> Iterator[np.ndarray]:
        dtype, (_, dim) = self.array
        with _in_words(self.name), zipfile.ZipFile(self._path) as archive, archive.open(f"{name}.npy") as file:
            _header(file)
            for start in range(0, stop, size):
                count = min(size, stop - start) * dim
                data = file.read(count * dtype.itemsize)
                part = np.frombuffer(data, dtype, count).reshape(-1, dim)
                if start + size > first:
                    yield part[max(0, first - start) :]

    def values(self, name: str) -> Any:
        with _in_words(self.name), np.load(self._path, allow_pickle=False) as archive:
            values = archive[name]
        return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values
