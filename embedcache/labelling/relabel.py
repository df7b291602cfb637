"""The job of `embedcache relabel`: labels that were given elsewhere come back into the journal."""

from __future__ import annotations

import difflib
import getpass
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.strings import hash_texts
from embedcache.common.label_names import quoted
from embedcache.common.labels import label_of
from embedcache.errors import EmbedcacheError
from embedcache.labelling.entry import MOST_NAME, LabelEntry, Value
from embedcache.labelling.journal import LabelJournal
from embedcache.labelling.opened import open_labelled
from embedcache.labelling.overlay import Overlay, names_of, same_label
from embedcache.tables.rows import Columns, Label, column_names, read_rows, text_column
from embedcache.tables.stream import Table, stored

NAMED = 5  # rows or classes in a note
QUEUE = "queue"  # the column of `embedcache next` that says why a row was shown


@dataclass
class RelabelReport:
    """What came back; to_dict() is what --json prints.

    Attributes:
        journal: the file. label: the column. by: "id" or "text", what the rows are found by. who: the person.
        rows: of the table. labelled: of them with a label.
        written: labels that were appended. unchanged: texts that have that label already.
        unknown: rows that the cache does not have. conflicts: texts with two different labels in the table.
        new_classes: classes that the column did not have.
    """

    journal: str
    label: str
    by: str
    who: str
    rows: int
    labelled: int
    written: int
    unchanged: int
    unknown: int
    conflicts: int
    new_classes: list[str]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def relabel(
    cache: str | Path,
    table: Any,
    *,
    who: str | None = None,
    label: str | None = None,
    text: str | None = None,
    id: str | None = None,
    new_classes: bool = False,
    confirm: bool = False,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
) -> RelabelReport:
    """Write the labels of a table into the journal beside a cache, where they differ from those that count now.

    All of them are appended at once. The cache and the table stay as they are. A column ``queue``, which ``next_rows``
    writes, is kept as what it is: why each row was shown.

    Args:
        cache: The cache file.
        table: A table of any kind that ``extract`` reads, or a data frame, with a label column and the texts or ids of
            rows of the cache. A blank label says nothing.
        who: The person who gave the labels; None: the user of this system.
        label: The column of labels, in the table and in the cache; None: "label", or the cache's only one. A name that
            the cache does not have makes a new column.
        text: The table's column of texts, by which rows are found where there are no ids; None is the one called as in
            the table of the cache, where there is one, else "text".
        id: The table's column of ids; None: one of the name of the cache's id column, if there is one.
        new_classes: Take classes that the column does not have yet.
        confirm: Write also the labels that are as they were: somebody has looked at them.
        encoding: Encoding of a text file.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database.

    Raises:
        EmbedcacheError: No row of the table is in the cache; labels do not fit the column; the journal cannot be
            written. Then nothing is written.
    """
    start = time.perf_counter()
    person = _who(who)
    reading: dict[str, Any] = {"encoding": encoding, "separator": separator, "sheet": sheet}
    with open_labelled(cache) as opened, stored(table) as source:
        column = _column(opened, label)
        names = column_names(source, **reading)
        by_id = _id_column(opened, names, id)
        if by_id is None:
            text = text_column(text, opened.text_column, lambda: names)
            if text not in names:
                raise EmbedcacheError(
                    f"{source} has neither the ids nor the texts of {opened.path.name}: it has {', '.join(names)}; "
                    "name the column of texts with --text, or that of ids with --id"
                )
        if column not in names:
            raise EmbedcacheError(f"{source} has no column {column!r} of labels: it has {', '.join(names)}")
        queued = QUEUE in names and column != QUEUE
        come = _read(opened, source, column, by_id, text, queued, reading)
        overlay = opened.source if isinstance(opened.source, Overlay) else Overlay()
        changes = _Changes(opened, overlay, column, person, confirm)
        entries = changes.entries(come.labels, come.queues)
        report = RelabelReport(
            journal=str(LabelJournal.beside(cache).path), label=column, by="text" if by_id is None else "id",
            who=person, rows=come.rows, labelled=come.labelled, written=len(entries), unchanged=changes.unchanged,
            unknown=come.unknown, conflicts=len(come.conflicts), new_classes=changes.new_classes,
            notes=[*come.notes(opened), *changes.notes()],
        )  # fmt: skip
        if come.labelled and not come.labels and not come.conflicts:
            raise EmbedcacheError(
                f"no row of {source} is in {opened.path}, by its {report.by}: is it the table of another cache?"
            )
        changes.check(new_classes)
    if entries:
        LabelJournal.beside(cache).append(entries)
    report.seconds = time.perf_counter() - start
    return report


def _who(who: str | None) -> str:
    if who is not None:
        return who
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return ""


def _column(cache: Cache, label: str | None) -> str:
    if label is not None:
        if label == cache.id_column:
            raise EmbedcacheError(f"--label {label}: that is the id column of {cache.path}, which is no label")
        return label
    known = cache.label_names
    if "label" in known or len(known) == 1:
        return "label" if "label" in known else known[0]
    has = f"has the label columns {', '.join(known)}" if known else "has no label column"
    raise EmbedcacheError(f"{cache.path} {has}: name one with --label")


def _id_column(cache: Cache, names: Sequence[str], id: str | None) -> str | None:
    """The table's column of ids; None: rows are found by their texts."""
    if id is None:
        return cache.id_column if cache.id_column in names else None
    if cache.ids is None:
        raise EmbedcacheError(f"--id {id}: {cache.path} has no ids; its rows are found by their texts")
    if id not in names:
        raise EmbedcacheError(f"--id {id}: the table has no such column; it has {', '.join(names)}")
    return id


@dataclass
class _Come:
    """What a table says: content hash -> label, of rows that the cache has."""

    by: str
    rows: int = 0
    labelled: int = 0
    unknown: int = 0
    labels: dict[str, Label] = field(default_factory=dict)
    queues: dict[str, str] = field(default_factory=dict)
    conflicts: set[str] = field(default_factory=set)
    strangers: list[str] = field(default_factory=list)  # the first rows that the cache does not have

    def add(self, key: str | None, name: str, label: Label, queue: str) -> None:
        self.rows += 1
        if label is None:
            return
        self.labelled += 1
        if key is None:
            self.unknown += 1
            self.strangers += [name] if len(self.strangers) < NAMED else []
        else:
            self.queues[key] = queue
            if self.labels.setdefault(key, label) != label:
                self.conflicts.add(key)

    def notes(self, cache: Cache) -> list[str]:
        notes = []
        if self.unknown:
            first = ", ".join(quoted(name if len(name) <= 40 else f"{name[:39]}…") for name in self.strangers)
            more = ", ..." if self.unknown > len(self.strangers) else ""
            notes.append(
                f"rows that {cache.path.name} does not have, by their {self.by}: {self.unknown:,} ({first}{more})"
            )
        if self.conflicts:
            notes.append(f"texts with two different labels in the table, left out: {len(self.conflicts):,}")
        return notes


def _read(
    cache: Cache, source: Table, column: str, by_id: str | None, text: str | None, queued: bool, reading: dict[str, Any]
) -> _Come:  # fmt: skip
    """The table's labels by content hash."""
    hashes = cache.hashes
    place: dict[str, int] = {}
    if by_id is not None:
        assert cache.ids is not None
        place = {one: row for row, one in enumerate(cache.ids)}
    there = {one.tobytes() for one in hashes} if by_id is None else set()
    come = _Come("text" if by_id is None else "id")
    columns = Columns(None if by_id else text, (column,), by_id, (QUEUE,) if queued else ())
    for part in read_rows([source], columns, **reading):
        strings: Any = part.texts if by_id is None else part.ids
        names = strings.to_pylist()
        if by_id is None:
            found = [one.tobytes() for one in hash_texts([name.encode() for name in names])]
            keys = [one.hex() if one in there else None for one in found]
        else:
            keys = [hashes[place[name]].tobytes().hex() if name in place else None for name in names]
        queues = part.keep[QUEUE].to_pylist() if queued else [""] * len(names)
        for key, name, label, queue in zip(keys, names, part.labels[column], queues, strict=True):
            come.add(key, name, label, queue.strip()[:MOST_NAME])
    for key in come.conflicts:
        del come.labels[key]
    return come


class _Changes:
    """The labels that differ from those that count, as entries for the journal."""

    def __init__(self, cache: Cache, overlay: Overlay, column: str, who: str, confirm: bool) -> None:
        self.cache, self.overlay, self.column, self.who, self.confirm = cache, overlay, column, who, confirm
        self.is_label, self.is_kept = column in cache.label_names, column in cache.column_names
        self.lists = self.is_label and cache.holds_lists(column)
        self.known = cache.labels(column).classes if self.is_label else []
        self.unchanged, self.new_classes = 0, list[str]()

    def entries(self, labels: dict[str, Label], queues: dict[str, str]) -> list[LabelEntry]:
        """Raises EmbedcacheError: a list where there is one label a row, or the other way round; no number."""
        before, entries, used = self._before(labels), [], dict[str, None]()
        for key, label in labels.items():
            after = self._value(label)
            given = self.overlay.given(self.column, key)
            mine = given.by.get(self.who) if given is not None else None
            said = mine is not None and same_label(mine.after, after)
            if same_label(before[key], after) and (said or not self.confirm):
                self.unchanged += 1
                continue
            used |= dict.fromkeys(names_of(after))
            entries.append(
                LabelEntry(
                    row_hash=key,
                    column=self.column,
                    after=after,
                    before=before[key],
                    who=self.who,
                    queue=queues[key] or "relabel",
                )
            )
        if self.is_label or not self.is_kept:
            known = set(self.known)
            self.new_classes = [name for name in used if name not in known]
        return entries

    def check(self, new_classes: bool) -> None:
        """Raises EmbedcacheError: classes that the column does not have, and that nobody has asked for."""
        if not self.new_classes or new_classes or not self.is_label:
            return
        close = difflib.get_close_matches(self.new_classes[0], self.known, n=1)
        meant = f" (did you mean {quoted(close[0])}?)" if close else ""
        raise EmbedcacheError(
            f"column {self.column!r} of {self.cache.path.name} has no class {_named(self.new_classes)}{meant}; nothing "
            "was written: correct the table, or take them with --new-classes"
        )

    def notes(self) -> list[str]:
        if self.new_classes and self.is_label:
            return [f"new classes in {self.column!r}: {_named(self.new_classes)}"]
        if not self.is_label and not self.is_kept:
            return [f"{self.column!r} is a new label column: its labels are in the journal alone"]
        return []

    def _value(self, label: Label) -> Value:
        if self.is_label and isinstance(label, tuple) != self.lists:
            holds = "lists" if self.lists else "one label a row"
            how = 'in a CSV as JSON: ["a", "b"]' if self.lists else "not a list"
            raise EmbedcacheError(
                f"column {self.column!r} of {self.cache.path.name} holds {holds}, and the table has {label!r:.60}: "
                f"write labels in that form ({how})"
            )
        if self.is_label or not self.is_kept:
            return label
        try:
            number = float(str(label))
        except ValueError:
            number = float("nan")
        if not np.isfinite(number):
            raise EmbedcacheError(
                f"{self.column!r} is a kept column of {self.cache.path.name}, in which people can correct numbers, and "
                f"the table has {label!r:.60}; extract with --label {self.column} makes it a column of labels"
            )
        return int(number) if number.is_integer() and "." not in str(label) else number

    def _before(self, labels: dict[str, Label]) -> dict[str, Value]:
        """What counts now: of one row of each text, as all of them have it once people have labelled it."""
        found: dict[str, Value] = dict.fromkeys(labels)
        codes, classes = self.cache.labels(self.column) if self.is_label else (None, [])
        cells = self.cache.column(self.column) if self.is_kept and not self.is_label else None
        for row, one in enumerate(self.cache.hashes):
            key = one.tobytes().hex()
            if key not in found:
                continue
            if cells is not None:
                found[key] = self._number(cells[row])
            elif codes is not None:
                label = label_of(codes[row], classes)
                found[key] = tuple(label) if isinstance(label, list) else label
        return found

    def _number(self, cell: str) -> Value:
        try:
            return self._value(cell)
        except EmbedcacheError:
            return None  # blank, or a cell that is no number yet


def _named(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names[:NAMED]) + (", ..." if len(names) > NAMED else "")
