"""Which texts and groups a run has learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embedcache.cache.strings import hash_texts
from embedcache.runs.folder import Run
from embedcache.runs.predictions import StoredSides
from embedcache.runs.sides import load_sides
from embedcache.runs.split import SIDES


@dataclass(frozen=True)
class Learnt:
    """What a run trained on, or chose by (all sides but test), among n rows.

    Attributes:
        texts: bool [n], rows whose very text it was. None: the run does not store its sides.
        column: by which the run was split, None where it keeps no groups.
        groups: bool [n], rows of a group of which some row was; None without ``column``, or where the rows have none.
        different: how many such groups there are.
    """

    texts: np.ndarray | None
    column: str | None = None
    groups: np.ndarray | None = None
    different: int = 0

    @property
    def any(self) -> np.ndarray | None:
        """bool [n]: by text or by group."""
        if self.texts is None or self.groups is None:
            return self.texts
        return np.asarray(self.texts | self.groups)

    def none_of(self, rows: int) -> Learnt:
        """The same of ``rows`` rows that the run has not learned from."""
        unknown = np.zeros(rows, bool)
        return replace(self, texts=unknown, groups=None if self.groups is None else unknown, different=0)

    def groups_report(self) -> dict[str, Any] | None:
        """For JSON: column, rows of groups that it learned from, their share, and how many such groups; or None."""
        if self.groups is None:
            return None
        share = float(self.groups.mean())
        return {"column": self.column, "rows": int(self.groups.sum()), "share": share, "groups": self.different}


def group_column(run: Run) -> str | None:
    """The column by which a run of one label column was split."""
    return (run.info.get("split") or {}).get("group")


def learnt_by(run: Run, hashes: np.ndarray, columns: Mapping[str, Sequence[str]]) -> Learnt:
    """What a run has learned of these rows. hashes: uint8 [n, 16] of the texts; columns: name -> n values.

    Raises:
        EmbedcacheError: the stored sides are damaged.
    """
    stored = load_sides(run)
    if stored is None:
        return Learnt(None)
    rows = np.flatnonzero((stored.side >= 0) & (stored.side != SIDES.index("test")))
    texts = {stored.hashes[row].tobytes() for row in rows}
    found = Learnt(np.array([key.tobytes() in texts for key in hashes], bool))
    column = group_column(run)
    if column is None or stored.groups is None:
        return found
    if column not in columns:
        return replace(found, column=column)
    return _with_groups(found, column, columns[column], stored, rows)


def _with_groups(found: Learnt, column: str, values: Sequence[str], stored: StoredSides, rows: np.ndarray) -> Learnt:
    """rows: those that the run has learned from."""
    learnt = {stored.groups[row] for row in rows} if stored.groups is not None else set()
    different = list(dict.fromkeys(value for value in values if value))
    keys = hash_texts([value.encode("utf-8", "surrogatepass") for value in different])
    known = {value for value, key in zip(different, keys, strict=True) if key.tobytes().hex() in learnt}
    return replace(found, column=column, groups=np.array([value in known for value in values]), different=len(known))
