""".safetensors: tensors by name; those with one dimension are columns of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.tables.source import existing_file, one_line
from embedcache.tables.stream import Table
from embedcache.vectors.formats.arrays import Array, ArraysFile
from embedcache.vectors.formats.base import VectorFile, VectorFormat, file_of

TYPES = {
    "F64": "f8", "F32": "f4", "F16": "f2", "BF16": "f4", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1",
    "BOOL": "?",
}  # fmt: skip


class Safetensors(VectorFormat):
    suffixes = (".safetensors",)
    what = "tensors; those with one dimension are columns of numbers"

    def open(self, table: Table, column: str | None, **reading: Any) -> VectorFile:
        return SafetensorsFile(table, column)


class SafetensorsFile(ArraysFile):
    def __init__(self, table: Table, column: str | None) -> None:
        from safetensors import SafetensorError, safe_open

        self._path = existing_file(Path(file_of(table)))
        arrays: dict[str, Array] = {}
        self._brain: set[str] = set()
        try:
            with safe_open(self._path, "numpy") as file:
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    part = file.get_slice(name)
                    kind = part.get_dtype()
                    if kind in TYPES:
                        arrays[name] = Array(np.dtype(TYPES[kind]), tuple(part.get_shape()))
                    if kind == "BF16":
                        self._brain.add(name)
        except (SafetensorError, OSError) as error:
            raise EmbedcacheError(
                f"{table}: not safetensors, or damaged ({one_line(error)}): write it again"
            ) from error
        super().__init__(str(table), arrays, column)

    def read(self, name: str, first: int, stop: int, size: int) -> Iterator[np.ndarray]:
        from safetensors import safe_open

        with safe_open(self._path, "pt" if name in self._brain else "numpy") as file:
            part = file.get_slice(name)
            for start in range(first, stop, size):
                some = part[start : min(start + size, stop)]
                yield some.float().numpy() if name in self._brain else some

    def values(self, name: str) -> Any:
        from safetensors import safe_open

        with safe_open(self._path, "numpy") as file:
            return file.get_tensor(name)

    def is_column(self, dtype: np.dtype) -> bool:
        return dtype.kind in "biuf"
