"""The job of `embedcache labels`: a cache's table as people have corrected it, or the rows of the journal."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.common.frames import free_names
from embedcache.common.labels import label_of
from embedcache.common.whole_file import open_output
from embedcache.errors import EmbedcacheError
from embedcache.labelling.entry import LabelEntry, Value
from embedcache.labelling.journal import LabelJournal
from embedcache.labelling.opened import find_overlay, named_journal, notes_of
from embedcache.labelling.overlay import Given, Overlay, names_of
from embedcache.tables.write import TableLayout, output_format

if TYPE_CHECKING:
    import pyarrow as pa

ALSO = ("before", "who", "when", "disagreement", "comment")  # what can stand beside a label
ROWS = 8192  # written together
FIELDS = (
    "number", "time", "who", "action", "column", "row", "text", "before", "after", "queue", "comment", "counts",
    "undoes", "id", "row_hash",
)  # fmt: skip


@dataclass
class LabelsReport:
    """What people labelled in a cache, and what was written of it; to_dict() is what --json prints.

    Attributes:
        output: the table; None: none was written. rows: in it.
        changed: column -> how many rows have another label than in the file.
        changes: column -> (before, after, rows), the most frequent first; None is no label.
        people: who -> how many labels of theirs are of rows of this cache.
        disagreements: column -> how many texts on which people's last labels differ.
        labels_from: see docs/labelling.md; None: there is no journal.
    """

    output: str | None
    rows: int
    changed: dict[str, int]
    changes: dict[str, list[tuple[str | None, str | None, int]]]
    people: dict[str, int]
    disagreements: dict[str, int]
    labels_from: dict[str, Any] | None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def labels(
    cache: str | Path,
    output: str | Path | None = None,
    *,
    label: str | Sequence[str] | None = None,
    labels: str | Path | None = None,
    also: str | Sequence[str] | None = None,
    only_changed: bool = False,
    entries: bool = False,
) -> LabelsReport:
    """Write the table of a cache with the labels that people gave in the places of its own.

    Args:
        cache: The cache file.
        output: A table to write, such as a .csv; "-" is standard output; None: only count.
        label: Label columns to correct, the others stay as they are; None means all.
        labels: The journal, see ``open_labelled``; None: the one beside the cache.
        also: Columns to write beside each corrected one: "before", "who", "when", "disagreement" (what each person
            gave, where they differ), "comment".
        only_changed: Write only the rows that have another label than in the file.
        entries: Write the journal's rows instead: who did what to which text.

    Raises:
        EmbedcacheError: The cache, the journal, a column or the output cannot be used.
    """
    start = time.perf_counter()
    asked = [also] if isinstance(also, str) else list(also or ())
    if wrong := [name for name in asked if name not in ALSO]:
        raise EmbedcacheError(f"--also {','.join(wrong)}: use {', '.join(ALSO)}")
    if entries and (only_changed or asked):
        raise EmbedcacheError("--entries writes the journal itself: leave --only-changed and --also out")
    overlay = find_overlay(cache, labels) or Overlay()
    with open_cache(cache, labels=overlay) as opened:
        columns = _columns(opened, overlay, label)
        about = None if overlay.origin is None else opened.labels_from
        changed = {name: _changed(opened, name) for name in columns}
        report = LabelsReport(
            output=None,
            rows=0,
            changed={name: int(which.sum()) for name, which in changed.items()},
            changes={name: _changes(opened, name, np.flatnonzero(which)) for name, which in changed.items()},
            people=_people(opened, overlay, columns),
            disagreements={name: len(_disputed(opened, overlay, name)) for name in columns},
            labels_from=about,
            notes=notes_of(about),
        )
        if about is None:
            report.notes.append(f"nobody has labelled rows of {opened.path.name} yet: its labels are those of the file")
        if output is not None:
            if entries:
                table = _entries(opened, overlay, labels, label)
            else:
                which = np.logical_or.reduce([np.zeros(opened.rows, bool), *changed.values()])
                rows = np.flatnonzero(which) if only_changed else np.arange(opened.rows)
                table = _corrected(opened, overlay, columns, rows, asked)
            report.output, report.rows = _write(output, table), table.num_rows
    report.seconds = time.perf_counter() - start
    return report


def _columns(cache: Cache, overlay: Overlay, label: str | Sequence[str] | None) -> list[str]:
    """The columns in which labels are corrected: all of the journal's that the cache has, or those that are named."""
    every = [*cache.label_names, *(name for name in overlay.columns if name not in cache.label_names)]
    if label is None:
        return every
    named = [label] if isinstance(label, str) else list(label)
    if wrong := [name for name in named if name not in every]:
        known = ", ".join(every) or "none"
        raise EmbedcacheError(f"{cache.path} has no label column {', '.join(wrong)}; it has {known}")
    return named


def _label(cache: Cache, column: str, row: int, own: bool) -> str | None:
    """A row's label, that of the file or the one that counts, as a table has it."""
    if column not in cache.label_names:
        return (cache.own_column if own else cache.column)(column)[row] or None
    if own and column not in cache.own_label_names:
        return None
    codes, classes = (cache.own_labels if own else cache.labels)(column)
    found = label_of(codes[row], classes)
    return ", ".join(found) if isinstance(found, list) else found


def _changed(cache: Cache, column: str) -> np.ndarray:
    """bool [N]: the rows that have another label than in the file."""
    source, changed = cache.source, np.zeros(cache.rows, bool)
    assert isinstance(source, Overlay)
    for row in source.rows(cache, column)[0].tolist():
        changed[row] = _label(cache, column, row, True) != _label(cache, column, row, False)
    return changed


def _changes(cache: Cache, column: str, rows: np.ndarray) -> list[tuple[str | None, str | None, int]]:
    counts: dict[tuple[str | None, str | None], int] = {}
    for row in rows.tolist():
        pair = _label(cache, column, row, True), _label(cache, column, row, False)
        counts[pair] = counts.get(pair, 0) + 1
    return [(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: -item[1])]


def _there(cache: Cache, overlay: Overlay, column: str) -> dict[str, Given]:
    """What was given to texts of this cache, each once."""
    return {one.entry.row_hash: one for one in overlay.rows(cache, column)[1]}


def _people(cache: Cache, overlay: Overlay, columns: Sequence[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for column in columns:
        for one in _there(cache, overlay, column).values():
            for who in one.by:
                counts[who] = counts.get(who, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _disputed(cache: Cache, overlay: Overlay, column: str) -> list[Given]:
    return [one for one in _there(cache, overlay, column).values() if one.disagreement]


def _corrected(cache: Cache, overlay: Overlay, columns: list[str], rows: np.ndarray, also: list[str]) -> pa.Table:
    """The table: what ``Cache.to_arrow`` has, labels that are not asked for as in the file, and what stands beside."""
    import pyarrow as pa

    table = cache.to_arrow(rows)
    with open_cache(cache.path) as own:
        untouched = [name for name in own.label_names if name not in columns]
        plain = own.to_arrow(rows).select(untouched) if untouched else None
    for name in untouched:
        assert plain is not None
        table = table.set_column(table.column_names.index(name), name, plain.column(name))
    new = [name for name in cache.label_names if name not in (*cache.own_label_names, *columns)]
    table = table.drop_columns(new) if new else table
    for column in columns if also else []:
        places, given = overlay.rows(cache, column)
        known = dict(zip(places.tolist(), given, strict=True))
        names = free_names(table.column_names, [f"{column}_{what}" for what in also])
        for what in also:
            cells = [_beside(cache, column, row, known.get(row), what) for row in rows.tolist()]
            table = table.append_column(names[f"{column}_{what}"], pa.array(cells, pa.string()))
    return table


def _beside(cache: Cache, column: str, row: int, given: Given | None, what: str) -> str | None:
    if what == "before":
        return _label(cache, column, row, True)
    if given is None:
        return None
    if what == "disagreement":
        each = (f"{who or '(nobody)'}: {_spelled(entry.after) or '(none)'}" for who, entry in given.by.items())
        return "; ".join(each) if given.disagreement else None
    entry = given.entry
    return {"who": entry.who, "when": entry.time, "comment": entry.comment or None}[what]


def _spelled(value: Value) -> str | None:
    return None if value is None else ", ".join(names_of(value))


def _entries(
    cache: Cache, overlay: Overlay, labels: str | Path | None, label: str | Sequence[str] | None
) -> pa.Table:  # fmt: skip
    """The journal's rows; row and text are the cache's, where it has the text. counts: neither undone nor replaced."""
    import pyarrow as pa

    journal, upto = (LabelJournal.beside(cache.path), None) if labels is None else named_journal(labels)
    named = [label] if isinstance(label, str) else label
    found = [entry for entry in journal.read(upto=upto) if named is None or entry.column in named]
    place: dict[str, int] = {}
    wanted = {entry.row_hash for entry in found}
    for row, key in _hashes(cache, wanted):
        place.setdefault(key, row)

    def counts(entry: LabelEntry) -> bool:
        given = overlay.given(entry.column, entry.row_hash)
        return given is not None and given.entry.id == entry.id

    cells: dict[str, Any] = {name: [getattr(one, name, None) for one in found] for name in FIELDS}
    cells["row"] = [place.get(one.row_hash) for one in found]
    cells["text"] = [None if row is None else cache.texts[row] for row in cells["row"]]
    cells["counts"] = [counts(one) for one in found]
    cells |= {name: [_spelled(value) for value in cells[name]] for name in ("before", "after")}
    kinds = {"number": pa.int64(), "row": pa.int64(), "counts": pa.bool_()}
    return pa.table({name: pa.array(values, kinds.get(name, pa.string())) for name, values in cells.items()})


def _hashes(cache: Cache, wanted: set[str]) -> Iterator[tuple[int, str]]:
    for row, one in enumerate(cache.hashes):
        if (key := one.tobytes().hex()) in wanted:
            yield row, key


def _write(output: str | Path, table: pa.Table) -> str:
    import pyarrow as pa

    kind = output_format(output)
    names = table.column_names
    types = [field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in table.schema]
    with open_output(output) as place:
        with kind.open(place, TableLayout(names, types)) as writer:
            for start in range(0, table.num_rows, ROWS):
                part = table.slice(start, ROWS)
                writer.write([part.column(i).combine_chunks().cast(kind) for i, kind in enumerate(types)])
        return str(place.name)
