"""What is known while people label: the rows, which stay as they are, and their labels at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.common.labels import label_of
from embedcache.heads.arrays import as_matrix
from embedcache.heads.kinds import kind_of

PART = 8192  # rows that are made float32 at a time
Label = str | list[str] | float | None  # a class, several, a number, or none


@dataclass(frozen=True)
class Pool:
    """N rows that may be labelled.

    Attributes:
        x: [N, D] float16, float32 or int8 with scales; a memory map is read in place.
        unit: int64 [N], from 0, equal for rows of one text: one of them is shown.
        group: int64 [N], equal for rows that stay on one side of a fold: those of one text, or author, or film.
        test: bool [N], rows that measure the heads and are never learned from.
        usable: bool [N], rows with a text and a vector; only these are shown.
    """

    x: Matrix
    unit: np.ndarray
    group: np.ndarray
    test: np.ndarray
    usable: np.ndarray

    @classmethod
    def of(
        cls,
        x: Matrix,
        unit: np.ndarray | None = None,
        group: np.ndarray | None = None,
        test: np.ndarray | None = None,
        usable: np.ndarray | None = None,
    ) -> Pool:
        """The pool of vectors: every row a text of its own, none that tests, all usable, but for what is given."""
        x = as_matrix(x)
        rows = len(x)
        unit = np.arange(rows) if unit is None else unit
        test = np.zeros(rows, bool) if test is None else test
        return cls(x, unit, unit if group is None else group, test, np.ones(rows, bool) if usable is None else usable)

    @cached_property
    def directions(self) -> np.ndarray:
        """float16 [N, D]: the vectors at unit length; zero where a row is not usable."""
        found = np.zeros(self.x.shape, np.float16)
        for start in range(0, len(self.x), PART):
            part = np.asarray(self.x[start : start + PART], np.float32)
            part = np.where(self.usable[start : start + PART, None], part, 0)
            found[start : start + PART] = part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12)
        return found

    def similar(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, D]: the directions of some rows."""
        return self.directions[rows].astype(np.float32)


def label_of_row(y: np.ndarray, classes: Sequence[str], kind: str) -> Label:
    """The label of one row of ``Snapshot.y``, as the journal has labels."""
    if not kind_of(kind).has_classes:
        return None if np.isnan(y[0]) else float(str(y[0]))  # 0.1, not 0.10000000149011612
    return None if y.shape == (0,) else label_of(y, classes)


@dataclass(frozen=True)
class Snapshot:
    """The labels of a pool at one moment.

    Attributes:
        y: as runs.data.Data has it, for rows without a label too: int32 [N] with -1, float32 [N, C] with rows of -1, or
            float32 [N, 1] with NaN.
        classes: the name of each output, also of classes that no row has yet.
        kind: of task.
        checked: bool [N], rows whose label a person has given or confirmed; they are not shown again.
        settled: bool [N], those of them that had a label before, so that their label was looked at twice. The others
            may be shown once more where their label looks wrong. Without it all checked rows are settled.
        chance: bool [N], rows that were drawn by chance: what is measured on them holds for all rows.
    """

    pool: Pool
    y: np.ndarray
    classes: Sequence[str]
    kind: str = "classification"
    checked: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    settled: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    chance: np.ndarray = field(default_factory=lambda: np.empty(0, bool))

    def __post_init__(self) -> None:
        none = np.zeros(len(self.y), bool)
        for name, default in (("checked", none), ("chance", none), ("settled", self.checked)):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, default if len(default) else none)  # frozen: only here

    @cached_property
    def labelled(self) -> np.ndarray:
        """bool [N]: rows that have a label."""
        return kind_of(self.kind).labelled(self.y)

    @cached_property
    def learned(self) -> np.ndarray:
        """int64 [n]: the rows that heads learn from."""
        return np.flatnonzero(self.labelled & self.pool.usable & ~self.pool.test)

    @cached_property
    def tested(self) -> np.ndarray:
        """int64 [n]: the rows that measure them."""
        return np.flatnonzero(self.labelled & self.pool.usable & self.pool.test)

    def label_of(self, row: int) -> Label:
        """The label of a row."""
        return label_of_row(self.y[row], self.classes, self.kind)

    @property
    def unlabelled(self) -> np.ndarray:
        """bool [N]: usable rows without a label."""
        return ~self.labelled & self.pool.usable
