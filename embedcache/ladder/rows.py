"""The one split of a ladder, and the test rows on which all its rungs are scored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedcache.cache import Cache
from embedcache.cache.strings import first_rows
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.labelling.opened import NONE
from embedcache.runs.data import Data, load_data
from embedcache.runs.predictions import FILE
from embedcache.runs.sides import Dealing, deal
from embedcache.runs.split import Split, rows_digest


@dataclass(frozen=True)
class AskedRows:
    """What is learned, and how the rows are dealt; arguments of ``train_run``.

    labels: the journal over the labels of a cache, up to the entry where the ladder was begun, or "none".
    """

    label: str | None
    task: Any
    group: str | None
    seed: int
    val: float
    test: float
    labels: str = NONE

    def options(self) -> dict[str, Any]:
        """As keywords of train_run and finetune, which have seeds of their own."""
        asked = asdict(self)
        return {"split": asked.pop("seed"), **asked}


@dataclass(frozen=True)
class CommonRows:
    """What every rung learns from and is scored on.

    Attributes:
        data: the column. split: its sides. groups: int64 [n], of the test rows; None without --group.
    """

    data: Data
    split: Split
    groups: np.ndarray | None

    @classmethod
    def read(cls, cache: Cache, asked: AskedRows) -> CommonRows:
        """The rows as train_run deals them.

        Raises:
            EmbedcacheError: a column that is not there or cannot be learned; a side without rows.
        """
        data = load_data(cache, asked.label, None, -1, asked.group, asked.task)
        split, _ = deal(cache, data, Dealing(asked.seed), asked.val, asked.test)
        for name, rows in (("validation", split.val), ("test", split.test)):
            if not len(rows):
                raise EmbedcacheError(
                    f"{cache.path}: no {name} rows among {int(data.labelled.sum()):,} labelled ones; add rows, or take "
                    "a larger share with --val and --test"
                )
        groups = None if data.keys is None else first_rows(np.ascontiguousarray(data.keys[split.test]))
        return cls(data, split, groups)

    @property
    def y(self) -> np.ndarray:
        """The targets of the test rows."""
        return self.data.y[self.split.test]

    @property
    def digest(self) -> str:
        """Of the numbers of all rows, side by side."""
        return "-".join(rows_digest(side) for side in (self.split.train, self.split.val, self.split.test))

    def coded(self, names: list[Any]) -> np.ndarray:
        """Predictions that are spelled as labels, in the form of y."""
        kind = kind_of(self.data.kind)
        if not kind.has_classes:
            return np.array(names, np.float64)[:, None]
        number = {name.encode("utf-8", "replace").decode(): i for i, name in enumerate(self.data.classes)}
        if kind.exclusive:
            return np.array([number[name] for name in names], np.int64)
        table = np.zeros((len(names), len(number)), np.int64)
        for row, some in zip(table, names, strict=True):
            row[[number[name] for name in some]] = 1
        return table

    def of_run(self, run: Path) -> np.ndarray:
        """What a run said of the test rows when it was made, in the form of y.

        Raises:
            EmbedcacheError: its test rows are others.
        """
        table = pq.read_table(run / FILE, columns=["row", "side", "predicted"])
        table = table.filter(pc.equal(table["side"], "test"))
        if not np.array_equal(table["row"].to_numpy(), self.split.test):
            raise EmbedcacheError(f"{run} was scored on other test rows; remove it, and run the ladder again")
        return self.coded(table["predicted"].to_pylist())
