"""Label values as codes: collected in batches, classes sorted at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class LabelCoder:
    """Codes of one label column; None is a missing label."""

    def __init__(self) -> None:
        self._index: dict[str | None, int] = {None: 0}
        self._codes: list[np.ndarray] = []

    @property
    def classes(self) -> int:
        """How many different labels there are so far."""
        return len(self._index) - 1

    def add(self, values: Sequence[str | None]) -> None:
        index = self._index
        self._codes.append(np.array([index.setdefault(value, len(index)) for value in values], np.int32))

    def finish(self) -> tuple[np.ndarray, list[str]]:
        """int32 codes (-1: missing) and the sorted classes; as numbers when all of them are integers."""
        names = [name for name in self._index if name is not None]
        classes = sorted(names)
        if all(name.removeprefix("-").isdecimal() for name in names):
            classes.sort(key=int)
        place = {name: code for code, name in enumerate(classes)}
        renumber = np.array([-1, *(place[name] for name in names)], np.int32)
        codes = np.concatenate(self._codes) if self._codes else np.empty(0, np.int32)
        return renumber[codes], classes
