"""Label values as codes: collected in batches, classes sorted at the end.

A column of single labels becomes codes [N]. A column of lists becomes a matrix [N, C], which may be too large for
memory: it is written to an unnamed file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np

from embedcache.cache.spool_file import UnnamedFile
from embedcache.common.labels import Codes, Labels, label_of, unlabelled

__all__ = [
    "Codes",
    "LabelCoder",
    "Labels",
    "chunks",
    "in_order",
    "label_counts",
    "label_of",
    "unlabelled",
    "valid_codes",
]

CHUNK_BYTES = 1 << 24  # of a matrix that is made or looked at together


class LabelCoder:
    """Codes of one label column. None is a missing label; where there are tuples, every other value is one."""

    def __init__(self) -> None:
        self._index: dict[str | None, int] = {None: 0}
        self._codes: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []  # of each row's tuple; -1: missing
        self.multilabel = False

    @property
    def classes(self) -> int:
        """How many different labels there are so far."""
        return len(self._index) - 1

    def add(self, values: Sequence[str | tuple[str, ...] | None]) -> None:
        self.multilabel = self.multilabel or any(isinstance(value, tuple) for value in values)
        self._lengths.append(np.array([-1 if value is None else len(value) for value in values], np.int32))
        index = self._index
        flat = chain.from_iterable(value or () for value in values) if self.multilabel else values
        codes = [index.setdefault(cast("str | None", label), len(index)) for label in flat]
        self._codes.append(np.array(codes, np.int32))

    def finish(self, folder: Path) -> tuple[np.ndarray, list[str]]:
        """The codes and the sorted classes; as numbers when all of them are integers.

        Codes are int32 [N], -1: missing. Of tuples they are int8 [N, C]: 1 where the row has the label, else 0, all -1
        where missing; a map of an unnamed file in ``folder``.
        """
        names = [name for name in self._index if name is not None]
        classes = in_order(names)
        place = {name: code for code, name in enumerate(classes)}
        renumber = np.array([-1, *(place[name] for name in names)], np.int32)
        if not self.multilabel:
            codes = np.concatenate(self._codes) if self._codes else np.empty(0, np.int32)
            return renumber[codes], classes
        file = UnnamedFile(folder, "the labels")
        for part in self._matrix(renumber, len(classes)):
            file.write(part)
        return file.finish().view(np.int8).reshape(sum(map(len, self._lengths)), len(classes)), classes

    def _matrix(self, renumber: np.ndarray, classes: int) -> Iterator[np.ndarray]:
        """int8 [n, classes], so many rows at a time."""
        lengths = np.concatenate(self._lengths)
        flat = np.concatenate(self._codes)
        flat = renumber[flat[flat > 0]]  # 0: from batches before the first tuple, of missing labels alone
        ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64)
        for start, stop in chunks(len(lengths), classes):
            part = np.zeros((stop - start, classes), np.int8)
            counts = np.maximum(lengths[start:stop], 0)
            end = ends[stop - 1]
            part[np.repeat(np.arange(stop - start), counts), flat[end - counts.sum() : end]] = 1
            part[lengths[start:stop] < 0] = -1
            yield part


def in_order(names: Iterable[str]) -> list[str]:
    """The different names in the order of their codes: sorted, as numbers when all of them are integers."""
    classes = sorted(set(names))
    if all(name.removeprefix("-").isdecimal() for name in classes):
        classes.sort(key=int)
    return classes


def label_counts(codes: np.ndarray, classes: int) -> np.ndarray:
    """int64 [classes]: how many rows have each class."""
    if codes.ndim == 1:
        return np.bincount(codes[codes >= 0], minlength=classes)
    counts = np.zeros(classes, np.int64)
    for start, stop in chunks(*codes.shape):
        counts += (codes[start:stop] > 0).sum(axis=0)
    return counts


def valid_codes(codes: np.ndarray, classes: int) -> bool:
    """Whether codes number the classes, or a matrix holds 0, 1 and whole rows of -1."""
    if codes.ndim == 1:
        return not codes.size or bool(codes.min() >= -1 and codes.max() < classes)
    for start, stop in chunks(*codes.shape):
        part = codes[start:stop]
        missing = unlabelled(part)
        if part.size and (part.max() > 1 or (part[~missing] < 0).any() or (part[missing] != -1).any()):
            return False
    return True


def chunks(rows: int, width: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of so many rows of ``width`` bytes as are looked at together."""
    step = max(1, CHUNK_BYTES // max(width, 1))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))
