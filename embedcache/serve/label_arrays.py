"""The labels of one column while people give them, as arrays that keep up with the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from embedcache.active_learning.from_cache import is_by_chance, is_settled, targets_of
from embedcache.active_learning.snapshot import Label, Pool, Snapshot, label_of_row
from embedcache.cache import Cache
from embedcache.cache.labels import label_counts
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.labelling import LabelEntry, Overlay
from embedcache.labelling.overlay import names_of


class LabelArrays:
    """The rows of a cache and their labels in one column. Not for several threads at once.

    Attributes:
        column, kind: what is labelled. classes: the names, in the order in which they came; only ever appended to.
        pool: the rows. own: the labels of the cache file, in the form of Snapshot.y; y: with those of people over them.
        checked, settled, chance: bool [N], see Snapshot.
        skipped: bool [N], rows that a person skipped and nobody has labelled.
        overlay: what people gave.
    """

    def __init__(self, cache: Cache, column: str, kind: str, classes: Sequence[str], pool: Pool) -> None:
        """classes: names beside those of the cache. pool: see ``pool_of``."""
        self.cache, self.column, self.kind, self.pool = cache, column, kind, pool
        self.keys, self._first = np.unique(np.ascontiguousarray(cache.hashes).view("V16").ravel(), return_index=True)
        self.classes: list[str] = []
        self.own = self._own(classes)
        self.y = self.own.copy()
        self.checked, self.settled, self.chance, self.skipped = (np.zeros(cache.rows, bool) for _ in range(4))
        self.overlay = Overlay()

    def _own(self, classes: Sequence[str]) -> np.ndarray:
        rows, about = self.cache.rows, kind_of(self.kind)
        there = self.column in self.cache.own_label_names
        codes, names = self.cache.own_labels(self.column) if there else (np.full(rows, -1, np.int32), [])
        if not about.has_classes:
            values = np.array([*(_number(name) for name in names), np.nan], np.float32)
            self.classes = [self.column]
            return values[np.asarray(codes)][:, None]
        self.classes = list(dict.fromkeys([*names, *classes]))
        if about.has_lists and not there:
            codes = np.full((rows, 0), -1, np.int8)
        return targets_of(codes, len(self.classes), about.has_lists)

    def add(self, entries: Sequence[LabelEntry]) -> None:
        """Take in entries of the journal."""
        self.overlay.add(entries)
        for key in dict.fromkeys(entry.row_hash for entry in entries if entry.column == self.column):
            rows = self.rows_of(key)
            if len(rows):
                self._update(key, rows)

    def _update(self, key: str, rows: np.ndarray) -> None:
        given = self.overlay.given(self.column, key)
        self.checked[rows] = given is not None
        self.settled[rows] = given is not None and is_settled(given)
        self.chance[rows] = given is not None and is_by_chance(given)
        self.skipped[rows] = given is None and key in self.overlay.skipped(self.column)
        if given is None:
            self.y[rows] = self.own[rows]
            return
        try:
            self.y[rows] = self.coded(given.label)
        except EmbedcacheError:  # of another kind than the column's: the file's label stays, as Overlay.apply has it
            self.y[rows] = self.own[rows]

    def coded(self, label: Any) -> np.ndarray:
        """A label in the form of one row of y. A new name becomes a class. Raises EmbedcacheError for another kind."""
        about = kind_of(self.kind)
        if not about.has_classes:
            if not (label is None or (isinstance(label, (int, float)) and not isinstance(label, bool))):
                raise EmbedcacheError(f"column {self.column!r} holds numbers: give one, or none")
            return np.array([np.nan if label is None else label], np.float32)
        if label is not None and isinstance(label, (list, tuple)) == about.exclusive:
            holds = "one label a row" if about.exclusive else "lists of labels"
            raise EmbedcacheError(f"column {self.column!r} holds {holds}")
        if not all(isinstance(name, str) for name in (label if isinstance(label, (list, tuple)) else [label or ""])):
            raise EmbedcacheError(f"column {self.column!r} holds names of classes, not numbers")
        for name in names_of(tuple(label) if isinstance(label, list) else label):
            if name not in self.classes:
                self._add_class(name)
        if about.exclusive:
            return np.array(-1 if label is None else self.classes.index(label), np.int32)
        if label is None:
            return np.full(len(self.classes), -1, np.float32)
        return np.array([name in label for name in self.classes], np.float32)

    def _add_class(self, name: str) -> None:
        self.classes.append(name)
        if not kind_of(self.kind).exclusive:
            self.own, self.y = (
                np.concatenate([y, np.where(y[:, :1] < 0, -1, 0).astype(np.float32)], axis=1) if y.shape[1] else
                np.full((len(y), 1), -1, np.float32)
                for y in (self.own, self.y)
            )  # fmt: skip

    def rows_of(self, key: str) -> np.ndarray:
        """int64 [n]: the rows with a text of this content hash."""
        place = self._place(key)
        return np.empty(0, np.int64) if place is None else np.flatnonzero(self.pool.unit == self._first[place])

    def has(self, key: str) -> bool:
        """Whether a row has a text of this content hash."""
        return self._place(key) is not None

    def _place(self, key: str) -> int | None:
        wanted = np.frombuffer(bytes.fromhex(key), "V16")
        place = int(np.searchsorted(self.keys, wanted)[0])
        return place if place < len(self.keys) and self.keys[place] == wanted[0] else None

    def key_of(self, row: int) -> str:
        """The content hash of a row's text, as the journal has it."""
        return self.cache.hashes[row].tobytes().hex()

    def label_of(self, row: int) -> Label:
        """The label of a row, as the journal has labels."""
        return label_of_row(self.y[row], self.classes, self.kind)

    def counts(self) -> dict[str, int]:
        """Class -> rows; {} of numbers."""
        if not kind_of(self.kind).has_classes:
            return {}
        return dict(zip(self.classes, label_counts(self.y, len(self.classes)).tolist(), strict=True))

    @property
    def labelled(self) -> np.ndarray:
        """bool [N]."""
        if self.y.ndim == 2 and not self.y.shape[1]:
            return np.zeros(len(self.y), bool)
        return kind_of(self.kind).labelled(self.y)

    def snapshot(self) -> Snapshot:
        """As it is now; later labels do not change it."""
        return Snapshot(
            self.pool,
            self.y.copy(),
            tuple(self.classes),
            self.kind,
            checked=self.checked.copy(),
            settled=self.settled.copy(),
            chance=self.chance.copy(),
        )


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return np.nan
