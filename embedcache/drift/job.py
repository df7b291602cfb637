"""Compare new rows with those of a cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.progress import Progress, no_progress
from embedcache.drift.domain import compare_domains
from embedcache.drift.labels import LabelShift, label_shift
from embedcache.drift.rows import MOST, ComparedRows, check_path, rows_of, rows_of_cache
from embedcache.drift.traits import ColumnShift, WordShare, compare_columns, compare_words
from embedcache.labelling.opened import NONE, notes_of, open_labelled

SHOWN = 10  # rows on each side
FOREIGN = 0.8  # AUC from which estimated shares of labels are doubted


@dataclass(frozen=True)
class TellingRow:
    """A row that looks most like its own side: its number there, how new it looks (0 to 1), and its text."""

    row: int
    score: float
    text: str


@dataclass(frozen=True)
class DriftReport:
    """What drift found.

    Attributes:
        old: the cache. new: the cache or table.
        rows_old, rows_new: how many rows were compared.
        auc: how well a head tells new rows from old ones that it did not learn from; 1/2 is not at all.
        interval: the 95% interval of it. differs: whether it lies above 1/2.
        telling_new: the new rows that look newest. telling_old: the old rows that look oldest.
        words: those that differ, the new side's first.
        labels: the shares of the classes among the new rows, estimated, for each label column of the cache.
        columns: label and kept columns that both sides have, the most different first.
        labels_from, new_labels_from: the journals over the labels of both sides, see docs/labelling.md.
        notes: what matters of it, in words.
    """

    old: str
    new: str
    rows_old: int
    rows_new: int
    pooling: str
    layer: int
    auc: float
    interval: tuple[float, float]
    differs: bool
    telling_new: list[TellingRow]
    telling_old: list[TellingRow]
    words: list[WordShare]
    labels: list[LabelShift]
    columns: list[ColumnShift]
    seconds: float
    labels_from: dict[str, Any] | None = None
    new_labels_from: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What --json prints."""
        return asdict(self)


def compare_rows(
    cache: str | Path,
    new: str | Path,
    *,
    pooling: str | None = None,
    layer: int = -1,
    where: str | Sequence[str] = (),
    labels: str | Path | None = None,
    text: str | None = None,
    encoding: str = "utf-8",
    separator: str | None = None,
    sheet: str | None = None,
    model: str | Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> DriftReport:
    """Say whether new rows are like those of a cache, and in what they differ.

    Args:
        cache: The cache of the old rows.
        new: A cache of the same encoder, or a table, which is encoded; "-" is standard input, JSON lines.
        pooling: The vectors that are compared; None is model where it is stored, else cls.
        layer: Of which layer; -1 is the last.
        where: Conditions on the old rows, as in a search.
        labels: A journal of labels that people gave, over those of the old rows; "none", of a cache of new rows, too;
            None: that beside each, if any.
        text: The column of texts of a table; None is the one called as in the table of ``cache``, where there is one,
            else "text".
        encoding: Encoding of a text file.
        separator: Between the cells of a .csv; None detects it.
        sheet: Sheet of a workbook, or table of a database.
        model: The encoder's folder, if it has moved.
        device: "auto", "cpu", "cuda" or "cuda:N".
        trust_remote_code: Whether to run Python code that comes with the model.
        progress: Called with (done, total, rows) while a table is encoded.

    Raises:
        EmbedcacheError: What is named cannot be read or compared.
    """
    start = time.perf_counter()
    check_path(cache)
    with open_labelled(cache, labels) as opened:
        output = pooling or opened.preferred(layer), layer
        before = rows_of_cache(opened, output, [where] if isinstance(where, str) else list(where))
        load: dict[str, Any] = {"model": model, "device": device, "trust_remote_code": trust_remote_code}
        new_labels = NONE if labels == NONE else None
        reading = {"encoding": encoding, "separator": separator, "sheet": sheet}
        after = rows_of(new, opened, output, text, progress or no_progress, load, new_labels, **reading)
    domain = compare_domains(before.vectors, after.vectors, before.hashes, after.hashes)
    shifts = []
    for name, values in before.labels.items():
        x, known = before.vectors, after.labels.get(name, [])
        if (found := label_shift(name, x, values, before.hashes, after.vectors, known)) is not None:
            shifts.append(found)
    columns = [{**side.labels, **side.kept} for side in (before, after)]
    return DriftReport(
        old=before.name,
        new=after.name,
        rows_old=len(before.places),
        rows_new=len(after.places),
        pooling=output[0],
        layer=layer,
        auc=domain.auc,
        interval=domain.interval,
        differs=domain.differs,
        telling_new=_telling(after, domain.new, -1),
        telling_old=_telling(before, domain.old, 1),
        words=compare_words(before.texts, after.texts),
        labels=shifts,
        columns=compare_columns(*columns),
        seconds=time.perf_counter() - start,
        labels_from=before.labels_from,
        new_labels_from=after.labels_from,
        notes=_notes(before, after, domain.auc if shifts else 0.5),
    )


def _telling(rows: ComparedRows, scores: np.ndarray, sign: int) -> list[TellingRow]:
    """Those with the lowest ``sign`` times score."""
    order = np.argsort(sign * scores, kind="stable")  # NaN, a text again, is last
    some = [i for i in order[:SHOWN].tolist() if np.isfinite(scores[i])]
    return [TellingRow(int(rows.places[i]), round(float(scores[i]), 4), rows.texts[i]) for i in some]


def _notes(old: ComparedRows, new: ComparedRows, auc: float) -> list[str]:
    drawn = [*notes_of(old.labels_from), *notes_of(new.labels_from)]
    drawn += [
        f"{side.name}: {len(side.places):,} of {side.rows:,} rows were drawn" for side in (old, new) if side.rows > MOST
    ]
    if auc > FOREIGN:
        drawn.append(
            "the estimated shares take it that only the shares have changed; rows that are told apart so well look "
            "different as well, so do not rely on them"
        )
    return drawn
