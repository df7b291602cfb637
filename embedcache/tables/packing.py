"""What a file may be packed by: a class each, and one line in PACKINGS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, ClassVar


class Packing(ABC):
    """One way to pack a file.

    Attributes:
        suffix: the last of its files' names.
        sign: the bytes with which its files begin.
        name: for messages.
    """

    suffix: ClassVar[str]
    sign: ClassVar[bytes]
    name: ClassVar[str]

    @abstractmethod
    def unpacked(self, path: Path) -> Any:
        """The bytes that are packed in a file, as a binary file."""

    @abstractmethod
    def packed(self, file: BinaryIO) -> AbstractContextManager[Any]:
        """Packs into ``file``, which stays open; the same bytes for the same table, at whatever time."""


class Gzip(Packing):
    suffix, sign, name = ".gz", b"\x1f\x8b", "gzip"

    def unpacked(self, path: Path) -> Any:
        import gzip

        return gzip.open(path, "rb")

    def packed(self, file: BinaryIO) -> AbstractContextManager[Any]:
        import gzip

        return gzip.GzipFile("", "wb", 6, file, mtime=0)


class Bzip2(Packing):
    suffix, sign, name = ".bz2", b"BZh", "bzip2"

    def unpacked(self, path: Path) -> Any:
        import bz2

        return bz2.open(path, "rb")

    def packed(self, file: BinaryIO) -> AbstractContextManager[Any]:
        import bz2

        return bz2.open(file, "wb")


class Zstandard(Packing):
    suffix, sign, name = ".zst", b"\x28\xb5\x2f\xfd", "zstd"

    def unpacked(self, path: Path) -> Any:
        import pyarrow as pa

        return BufferedReader(pa.input_stream(str(path), compression="zstd"))

    def packed(self, file: BinaryIO) -> AbstractContextManager[Any]:
        import pyarrow as pa

        found: AbstractContextManager[Any] = pa.CompressedOutputStream(pa.PythonFile(KeptOpen(file), mode="w"), "zstd")
        return found


PACKINGS: dict[str, Packing] = {packing.suffix: packing for packing in (Gzip(), Bzip2(), Zstandard())}


class KeptOpen:
    """A file that Arrow may close without closing it."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self.write, self.flush = file.write, file.flush

    def close(self) -> None:
        self.closed = True
