"""Labels as a cache has them: codes in which -1 says that a row has none, and the names that they number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class LabelWarning(UserWarning):
    """Rows without a label were left out, or -1 was taken for a class."""


class Codes(np.ndarray):
    """An array of codes of which it is known that a negative one means "no label"; parts and copies of it know it too.

    Whatever is computed from it is an ordinary array.
    """

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        plain = np.asarray(array)
        return plain if plain.ndim else plain[()]


class Labels(NamedTuple):
    """A label column of N rows: a pair (codes, classes), to be taken apart or given to ``train_heads`` as it is.

    Attributes:
        codes: int32 [N], -1 without a label; of a column of lists int8 [N, C], 1 where the row has the label, else 0,
            all -1 without labels.
        classes: the name of each code.
    """

    codes: np.ndarray
    classes: list[str]

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.classes[:8])) + (", ..." if self.classes[8:] else "")
        missing = len(self.codes) - int(np.count_nonzero(self.known))
        return f"Labels({len(self.codes):,} rows, {missing:,} without a label, classes {shown})"

    @property
    def known(self) -> np.ndarray:
        """bool [N]: the rows that have a label (an empty list is one)."""
        return ~unlabelled(self.codes)

    @property
    def names(self) -> list[str | list[str] | None]:
        """Each row's class, or list of labels; None where there is none."""
        return [label_of(code, self.classes) for code in self.codes]


def unlabelled(codes: np.ndarray) -> np.ndarray:
    """bool [N] of codes as ``Labels`` has them: the rows without a label (an empty list is one)."""
    return np.asarray(codes < 0 if codes.ndim == 1 else (codes[:, :1] < 0).any(axis=1))


def label_of(code: np.ndarray | int, classes: Sequence[str]) -> str | list[str] | None:
    """The label of one row's code, or the labels of its row [C] of a matrix."""
    if np.ndim(code):
        row = np.asarray(code)
        return None if (row < 0).any() else [classes[c] for c in np.flatnonzero(row).tolist()]
    return classes[int(code)] if code >= 0 else None
