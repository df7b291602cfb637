"""What a journal says of a cache: which label counts, per column and text, and where people differ."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.labels import in_order
from embedcache.cache.strings import Strings
from embedcache.common.labels import Codes, Labels
from embedcache.labelling.entry import LabelEntry, Value
from embedcache.labelling.journal import LabelJournal


@dataclass
class Given:
    """What people gave to one text in one column.

    Attributes:
        entry: the label that counts: the last one that is not undone.
        by: each person's last label.
    """

    entry: LabelEntry
    by: dict[str, LabelEntry]

    @property
    def label(self) -> Value:
        """The label that counts; None: it has none."""
        return self.entry.after

    @property
    def disagreement(self) -> bool:
        """Whether people's last labels differ. The order of a list does not matter."""
        return len({_plain(entry.after) for entry in self.by.values()}) > 1


@dataclass(frozen=True)
class Origin:
    """What was read: the journal, how many entries of it, the digest of their lines, sentences on skipped lines."""

    path: Path
    entries: int
    digest: str
    notes: tuple[str, ...] = ()


@dataclass
class _History:
    entries: list[LabelEntry] = field(default_factory=list)
    given: Given | None = None
    skipped: frozenset[str] = frozenset()


class Overlay:
    """The labels of a journal, by column and content hash. All rows of a cache with the same text get them.

    Attributes:
        entries: how many entries went into it.
        origin: the journal, as far as it was read; None of entries from elsewhere.
    """

    def __init__(self, entries: Iterable[LabelEntry] = (), origin: Origin | None = None) -> None:
        self.entries, self.origin = 0, origin
        self._columns: dict[str, dict[str, _History]] = {}
        self.add(entries)

    @classmethod
    def of(cls, journal: LabelJournal, upto: int | None = None) -> Overlay:
        """What a journal says, up to the entry of that number. Raises EmbedcacheError where it cannot be read."""
        journal.read()
        number = len(journal) if upto is None else min(upto, len(journal))
        found = journal.read(upto=number)  # others may append meanwhile
        notes = [note for note, one in zip(journal.notes(), journal.damaged, strict=True) if one.line <= number + 1]
        return cls(found, Origin(journal.path, number, journal.digest(number), tuple(notes)))

    @classmethod
    def beside(cls, cache: str | os.PathLike[str]) -> Overlay:
        """What the journal beside a cache says; nothing, where there is none."""
        return cls.of(LabelJournal.beside(cache))

    def add(self, entries: Iterable[LabelEntry]) -> None:
        """Entries that came later. Costs no more than the texts that they are of."""
        changed: dict[int, _History] = {}
        for entry in entries:
            self.entries += 1
            history = self._columns.setdefault(entry.column, {}).setdefault(entry.row_hash, _History())
            history.entries.append(entry)
            changed[id(history)] = history
        for history in changed.values():
            standing = _standing(history.entries)
            labels = [entry for entry in standing if entry.action == "label"]
            history.given = Given(labels[-1], {entry.who: entry for entry in labels}) if labels else None
            last = {entry.who: entry.action for entry in standing if entry.action in ("label", "skip")}
            history.skipped = frozenset(who for who, action in last.items() if action == "skip")

    @property
    def columns(self) -> list[str]:
        """The columns that have a label, in the order in which they first came."""
        return [name for name, histories in self._columns.items() if any(one.given for one in histories.values())]

    def labels(self, column: str) -> dict[str, Given]:
        """Content hash -> what people gave, for the texts that have a label that counts."""
        return {key: one.given for key, one in self._columns.get(column, {}).items() if one.given is not None}

    def given(self, column: str, row_hash: str) -> Given | None:
        """What people gave to one text."""
        return self._history(column, row_hash).given

    def history(self, column: str, row_hash: str) -> list[LabelEntry]:
        """The entries of one text that are not undone, without the undos: labels, skips and comments."""
        return [entry for entry in _standing(self._history(column, row_hash).entries) if entry.action != "undo"]

    def skipped(self, column: str) -> dict[str, frozenset[str]]:
        """Content hash -> who skipped the text and has not labelled it since."""
        return {key: one.skipped for key, one in self._columns.get(column, {}).items() if one.skipped}

    @property
    def people(self) -> Counter[str]:
        """How many texts and columns each person has a label in."""
        return Counter(who for column in self.columns for given in self.labels(column).values() for who in given.by)

    def disagreements(self, column: str) -> dict[str, Given]:
        """Content hash -> what people gave, for the texts on which their last labels differ."""
        return {key: given for key, given in self.labels(column).items() if given.disagreement}

    def classes(self, column: str) -> list[str]:
        """The names that people gave, each once, in the order in which they first came."""
        found = (name for given in self.labels(column).values() for name in names_of(given.label))
        return list(dict.fromkeys(found))

    def holds_lists(self, column: str) -> bool:
        """Whether people gave lists in this column."""
        return any(isinstance(given.label, tuple) for given in self.labels(column).values())

    def rows(self, cache: Cache, column: str) -> tuple[np.ndarray, list[Given]]:
        """Which rows of a cache have labels of this column: int64 [n] row numbers, and for each what was given."""
        labels = self.labels(column)
        halves = np.frombuffer(bytes.fromhex("".join(labels)), np.uint64)[::2]
        rows = np.flatnonzero(np.isin(np.ascontiguousarray(cache.hashes).view(np.uint64)[:, 0], halves))
        given = [labels.get(row.tobytes().hex()) for row in cache.hashes[rows]]
        there = np.array([one is not None for one in given], bool)
        return rows[there], [one for one in given if one is not None]

    def apply(self, cache: Cache, column: str) -> Labels:
        """The column as people have corrected it: that of the file, with the labels that count in their places.

        Classes are in the order in which ``extract`` would put them. A label that does not fit the column, a list where
        there is one label a row or the other way round, changes nothing; see ``unfit``.

        Returns:
            Codes and classes, as ``Cache.labels`` has them; of a column that the file does not have all rows are new.
        """
        lists = cache.own_holds_lists(column) if column in cache.own_label_names else self.holds_lists(column)
        if column in cache.own_label_names:
            codes, names = cache.own_labels(column)
        else:
            codes, names = np.full((cache.rows, 0) if lists else cache.rows, -1, np.int8 if lists else np.int32), []
        rows, given = self.rows(cache, column)
        fits = np.array([_fits(one.label, lists) for one in given], bool)
        rows, given = rows[fits], [one for one, fit in zip(given, fits.tolist(), strict=True) if fit]
        new = [name for one in given for name in names_of(one.label)]
        classes = in_order([*names, *new])
        place = {name: code for code, name in enumerate(classes)}
        if lists:
            return Labels(_matrix(codes, [place[name] for name in names], rows, given, place), classes)
        renumber = np.array([*(place[name] for name in names), -1], np.int32)  # its last entry is for code -1
        corrected = renumber[np.asarray(codes)]
        corrected[rows] = [-1 if one.label is None else place[names_of(one.label)[0]] for one in given]
        return Labels(corrected.view(Codes), classes)

    def apply_to_cells(self, cache: Cache, column: str) -> Strings:
        """The cells of a kept column, such as one of numbers, as people have corrected them."""
        rows, given = self.rows(cache, column)
        own = cache.own_column(column)
        new = [", ".join(names_of(one.label)).encode() for one in given]
        lengths = np.diff(own.offsets)
        lengths[rows] = [len(cell) for cell in new]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        parts, start = [], 0
        for row, cell in zip(rows.tolist(), new, strict=True):
            parts += [own.data[own.offsets[start] : own.offsets[row]], np.frombuffer(cell, np.uint8)]
            start = row + 1
        parts.append(own.data[own.offsets[start] :])
        return Strings(np.concatenate(parts), offsets, own.name)

    def describe(self, cache: Cache) -> dict[str, Any]:
        """Where the labels come from and what they do to a cache, as JSON types.

        Returns:
            journal (the path), entries and digest (of its lines) say what was read; labels: how many of the labels that
            count are of texts of this cache, elsewhere: how many are not; columns: column -> labels; people,
            disagreements: of the cache's texts; notes: sentences on what was left out.
        """
        origin, notes = self.origin, [] if self.origin is None else list(self.origin.notes)
        columns: dict[str, int] = {}
        people: set[str] = set()
        disagreements = every = 0
        for name in self.columns:
            there = {one.entry.row_hash: one for one in self.rows(cache, name)[1]}
            every += len(self.labels(name))
            if there:
                columns[name] = len(there)
            people.update(who for one in there.values() for who in one.by)
            disagreements += sum(one.disagreement for one in there.values())
            if unfit := self.unfit(cache, name):
                notes.append(_does_not_fit(cache, name, unfit))
        labels = sum(columns.values())
        return {
            "journal": None if origin is None else str(origin.path),
            "entries": self.entries if origin is None else origin.entries,
            "digest": None if origin is None else origin.digest,
            "labels": labels,
            "elsewhere": every - labels,
            "columns": columns,
            "people": len(people),
            "disagreements": disagreements,
            "notes": notes,
        }

    def unfit(self, cache: Cache, column: str) -> int:
        """How many rows have a label that does not fit the column of the file, and keep the file's."""
        if column not in cache.own_label_names:
            return 0
        lists = cache.own_holds_lists(column)
        return sum(not _fits(one.label, lists) for one in self.rows(cache, column)[1])

    def _history(self, column: str, row_hash: str) -> _History:
        return self._columns.get(column, {}).get(row_hash, _History())


def _does_not_fit(cache: Cache, column: str, rows: int) -> str:
    holds, given = ("lists", "single labels") if cache.own_holds_lists(column) else ("one label a row", "lists")
    return f"{rows:,} rows keep the label of the file: column {column!r} holds {holds}, and people gave {given}"


def names_of(label: Value) -> tuple[str, ...]:
    """The names of a label: one of a class or a number, any of a list, none of None."""
    if label is None or isinstance(label, tuple):
        return label or ()
    return (label if isinstance(label, str) else json.dumps(label),)


def _standing(entries: list[LabelEntry]) -> list[LabelEntry]:
    """Those that no later entry undoes, where an undo that is undone itself does nothing."""
    undone: set[str] = set()
    standing = []
    for entry in reversed(entries):
        if entry.id not in undone:
            standing.append(entry)
            if entry.undoes is not None:
                undone.add(entry.undoes)
    return standing[::-1]


def same_label(first: Value, second: Value) -> bool:
    """Whether two labels are one. The order of a list does not matter."""
    return _plain(first) == _plain(second)


def _plain(label: Value) -> Value | frozenset[str]:
    return frozenset(label) if isinstance(label, tuple) else label


def _fits(label: Value, lists: bool) -> bool:
    return label is None or isinstance(label, tuple) == lists


def _matrix(
    codes: np.ndarray, places: list[int], rows: np.ndarray, given: list[Given], place: dict[str, int]
) -> np.ndarray:
    """int8 [N, C] of lists: the file's, with the labels of these rows in their places."""
    missing = (codes[:, :1] < 0).any(axis=1) if codes.shape[1] else np.ones(len(codes), bool)
    matrix = np.zeros((len(codes), len(place)), np.int8)
    matrix[:, places] = codes
    matrix[missing] = -1
    for row, one in zip(rows.tolist(), given, strict=True):
        matrix[row] = -1 if one.label is None else 0
        matrix[row, [place[name] for name in names_of(one.label)]] = 1
    return matrix.view(Codes)
