"""The job of audit: a cache in, a report out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.audit.count import open_counts
from embedcache.audit.duplicates import DuplicateGroup, duplicate_groups
from embedcache.audit.experts import Expert, Heads, NeighbourVotes, Words, fold_of
from embedcache.audit.judge import Mixture
from embedcache.audit.labels import JudgedLabels, judge
from embedcache.audit.neighbours import Nearest, nearest_rows, unit_vectors
from embedcache.audit.outliers import far_out, outlier_scores
from embedcache.audit.report import (
    READ,
    AuditReport,
    AuditRow,
    Duplicates,
    LabelIssue,
    Outlier,
    open_place,
    write_report,
)
from embedcache.audit.sides import Sides, column_sides, run_sides, tuned_note
from embedcache.cache import Cache
from embedcache.cache.strings import first_rows
from embedcache.cache.where import not_blank
from embedcache.common.machine import check_memory
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import json_number
from embedcache.heads.kinds import kind_of
from embedcache.index import SearchIndex
from embedcache.labelling.opened import notes_of, open_labelled
from embedcache.runs.data import Data, load_data
from embedcache.runs.split import SEED, make_folds

LIBRARIES = 200e6  # bytes: scikit-learn, FAISS, the engine and their buffers


def audit_cache(
    cache: str | Path,
    *,
    label: str | None = None,
    labels: str | Path | None = None,
    output: str | Path | None = None,
    folds: int = 5,
    seed: Sequence[int] = (0,),
    group: str | None = None,
    split: str | None = None,
    run: str | Path | None = None,
    neighbours: int = 20,
    near: float = 0.9,
    top: int | None = None,
    pooling: str | None = None,
    layer: int = -1,
    engine: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Find a cache's rows whose label is likely wrong, texts that it holds more than once, and texts like no others.

    Args:
        cache: The cache file.
        label: The label column to audit, with one class a row. None is "label", or the only one.
        labels: A journal of labels that people gave, over the cache's own; "none"; None: that beside it, if any.
        output: A table to write, such as a .csv, with a .json beside it; "-" is standard output.
        folds: Number of folds. A row is judged by heads that were not trained on it.
        seed: Seeds of heads and folds; heads are trained once for each, and the results are averaged.
        group: A column; rows with the same value are never on both sides of a fold, and do not count as neighbours.
        split: A column with the sides of a split (train, test): duplicates that cross it are listed apart.
        run: A run of train-head, whose sides are the split.
        neighbours: Number of neighbours that vote.
        near: Cosine (0 to 1) at which texts that share half of their wording count as near-duplicates.
        top: List at most so many of each kind; None lists all.
        pooling: Which vectors; None is model if it is stored, else mean, else cls.
        layer: Which layer; -1 is the last.
        engine: "auto", "native" or "torch", see ``train_heads``.
        device: "auto", "cpu", "cuda" or "cuda:N".
        threads: CPU threads; None is one for each core.
        progress: Called with (done, total, rows): first counts texts whose neighbours are found, then training rows.

    Raises:
        EmbedcacheError: The cache, column, run or output cannot be used, or there are too few rows or classes to learn
            from.
    """
    start = time.perf_counter()
    if split is not None and run is not None:
        raise EmbedcacheError("--split and --run: give one of them")
    with open_labelled(cache, labels) as opened, nullcontext() if output is None else open_place(output) as place:
        if pooling is None and ("mean", layer) in opened.outputs and ("model", layer) not in opened.outputs:
            pooling = "mean"
        sides = column_sides(opened, split) if split else run_sides(opened, run, label) if run else None
        table = AuditedRows(opened, label, pooling, layer, group, folds, sides)
        k = min(neighbours, max(1, int(np.count_nonzero(table.found)) - 1))
        _check_memory(table, k)
        nearest = find_nearest(table, k, progress)
        opinions = Opinions(table, nearest, seed, progress, engine=engine, device=device, threads=threads)
        groups = duplicate_groups(
            opened.texts, table.first, table.found, nearest, near, table.all_y, sides.codes if sides else None
        )
        report = make_report(table, opinions, groups, outlier_scores(nearest), top)
        opened.check_whole()
        report.neighbours, report.near, report.split = k, near, split or (str(run) if run else None)
        report.seconds = time.perf_counter() - start
        if place is not None:
            write_report(report, place)
    return report


def _check_memory(table: AuditedRows, k: int) -> None:
    """Raise EmbedcacheError where the audit needs more memory than there is, by an estimate of its peak."""
    rows, classes = len(table.found), len(table.data.classes)
    row = k * (8 + 4 + 8) + 4 * 4 * classes + 100  # neighbours, cosines, votes; what the experts say
    words = Words.bytes_needed(table.cache.texts, classes, table.folds)
    check_memory(
        LIBRARIES + rows * row + words,
        f"the neighbours, heads and words of {rows:,} rows in {classes:,} classes",
        "audit a part of them, extracted into a cache of its own, or where more memory is free",
    )


class AuditedRows:
    """The rows, and which of them are looked at.

    first: int64 [N], the row that stands for each row's text. found: bool [N], rows with a text and a vector.
    data.y: class codes, -1 for rows that are not judged; all_y: as they are in the cache.
    """

    def __init__(
        self,
        cache: Cache,
        label: str | None,
        pooling: str | None,
        layer: int,
        group: str | None,
        folds: int,
        sides: Sides | None,
    ) -> None:
        data = load_data(cache, label, pooling, layer, group)
        if not kind_of(data.kind).exclusive:
            raise EmbedcacheError(
                f"column {data.label!r} of {cache.path} holds lists: audit looks at columns with one label a row; "
                "extract such a column, or name another with --label"
            )
        self.cache, self.sides, self.folds, self.group = cache, sides, folds, group
        self.classes, self.all_y = data.classes, data.y
        self.first = first_rows(cache.hashes)
        filled, usable = not_blank(cache.texts), unit_vectors(data.x)
        self.found = filled & usable
        y = np.where(self.found, data.y, -1).astype(np.int32)
        counts = np.bincount(y[y >= 0], minlength=len(data.classes))
        self.rare = np.flatnonzero(counts < folds)
        if len(counts) - len(self.rare) < 2:
            raise EmbedcacheError(
                f"column {data.label!r} of {cache.path} has {len(counts) - len(self.rare)} classes with {folds} rows "
                "or more, and an audit needs 2: label more rows, or ask for fewer --folds"
            )
        is_rare = np.isin(y, self.rare)
        self.not_judged = {
            "without a label": int((data.y < 0).sum()),
            "with a blank text": int((~filled & (data.y >= 0)).sum()),
            "without a usable vector": int((filled & ~usable & (data.y >= 0)).sum()),
            f"of a class with fewer than {folds} rows": int(is_rare.sum()),
        }
        renumber = np.cumsum(~np.isin(np.arange(len(counts)), self.rare)) - 1
        self.kept = np.flatnonzero(counts >= folds)  # class numbers, in the order of the judged classes
        y = np.where((y < 0) | is_rare, -1, renumber[y]).astype(np.int32)
        self.data: Data = replace(data, y=y, classes=[data.classes[c] for c in self.kept])

    @property
    def unit(self) -> np.ndarray:
        """int64 [N], equal for rows of one text or group."""
        groups = self.data.groups
        return self.first if groups is None else np.where(groups >= 0, groups + len(self.first), self.first)

    def row(self, row: int) -> dict[str, Any]:
        """The values of an AuditRow."""
        cache, code = self.cache, int(self.all_y[row])
        return {
            "row": row,
            "id": None if cache.ids is None else cache.ids[row],
            "text": cache.texts[row],
            "label": self.classes[code] if code >= 0 else None,
            "split": self.sides.name(row) if self.sides else None,
        }


def find_nearest(table: AuditedRows, k: int, progress: Progress | None) -> Nearest:
    """The k texts most like each; ``progress`` counts texts."""
    data = table.data
    index = SearchIndex.build(table.cache, data.pooling, int(data.layer))
    return nearest_rows(index, data.x, table.first, table.found, k, progress)


class Opinions:
    """What heads, neighbours and words say of every judged row, and the three together."""

    def __init__(
        self,
        table: AuditedRows,
        nearest: Nearest,
        seeds: Sequence[int],
        progress: Progress | None,
        **engine: Any,
    ) -> None:
        data, classes = table.data, len(table.data.classes)
        sides = {
            seed: make_folds(data.y, table.cache.hashes, data.keys, folds=table.folds, seed=SEED + seed)
            for seed in dict.fromkeys(seeds)
        }
        self.heads = Heads(data, sides, progress, **engine)
        self.experts: list[Expert] = [self.heads, NeighbourVotes(nearest, data.y, classes, table.unit)]
        self.notes: list[str] = []
        try:
            self.experts.append(Words(table.cache.texts, data.y, next(iter(sides.values()))))
        except ValueError:  # an empty vocabulary
            self.notes.append("the texts have no words in common: heads and neighbours alone judge the labels")
        judged = np.all([fold_of(folds, len(data.y)) >= 0 for folds in sides.values()], axis=0)
        rows = np.flatnonzero(judged)
        self.seeds, self.left_out = list(sides), int(((data.y >= 0) & ~judged).sum())
        self.mixture = Mixture(self.experts, data.y, rows, classes)
        self.judged: JudgedLabels = judge(self.mixture, data.y, rows, data.classes)


def make_report(
    table: AuditedRows, opinions: Opinions, groups: Sequence[DuplicateGroup], distances: np.ndarray, top: int | None
) -> AuditReport:
    """distances: float32 [N], outlier scores. What audit_cache alone knows is not in it yet."""
    judged, data = opinions.judged, table.data
    # Every row for which another label is likelier, and as many of the worst as there may be wrong ones.
    place = np.empty(len(judged.rows), np.int64)
    place[judged.order] = np.arange(len(judged.rows))
    listed = judged.order[(judged.disagree | (place < judged.count.read))[judged.order]]
    limit = far_out(distances)
    far = np.flatnonzero(distances > limit)  # NaN is not
    far = far[np.argsort(-distances[far], kind="stable")]
    left_out = {"in two groups, on two sides of a fold": opinions.left_out}
    not_judged = {why: rows for why, rows in {**table.not_judged, **left_out}.items() if rows}
    return AuditReport(
        cache=str(table.cache.path),
        label=data.label,
        classes=table.classes,
        rows=table.cache.rows,
        judged=len(judged.rows),
        not_judged=not_judged,
        pooling=data.pooling,
        layer=int(data.layer),
        group=table.group,
        split=None,
        folds=table.folds,
        seeds=opinions.seeds,
        neighbours=0,
        near=0.0,
        outlier_score=json_number(limit),
        weights=opinions.mixture.weights,
        agreement=1 - float(judged.disagree.mean()),
        errors=judged.count,
        engine=opinions.heads.engine,
        seconds=0.0,
        found={
            "label": len(listed),
            "duplicate": len(groups),
            "across": sum(group.across for group in groups),
            "conflict": sum(group.conflict for group in groups),
            "outlier": len(far),
        },
        labels=[_label_issue(table, opinions, i, int(place[i])) for i in listed[:top].tolist()],
        duplicates=[_duplicates(table, group) for group in groups[:top]],
        outliers=[Outlier(**table.row(row), score=float(distances[row])) for row in far[:top].tolist()],
        notes=[*notes_of(table.cache.labels_from), *_notes(table), *open_counts(judged.count), *opinions.notes],
        labels_from=table.cache.labels_from,
    )


def _label_issue(table: AuditedRows, opinions: Opinions, i: int, place: int) -> LabelIssue:
    """place: in the ranking of all rows, from 0."""
    judged = opinions.judged
    count = judged.count
    said = dict(zip(("heads", "neighbours", "words"), judged.experts[:, i].tolist(), strict=False))
    return LabelIssue(
        **table.row(int(judged.rows[i])),
        suggested=table.data.classes[int(judged.suggested[i])],
        score=float(judged.score[i]),
        probability=float(1 - judged.score[i]),
        suggested_probability=float(judged.probability[i]),
        wrong=float(judged.wrong[i]),
        read=READ[0] if place < count.estimate else READ[1] if place < count.read else READ[2],
        **{"words": None, **said},
    )


def _duplicates(table: AuditedRows, group: DuplicateGroup) -> Duplicates:
    rows = [AuditRow(**table.row(row)) for row in group.rows]
    return Duplicates(group.kind, group.similarity, group.conflict, group.across, rows)


def _notes(table: AuditedRows) -> list[str]:
    notes = [] if (tuned := tuned_note(table.cache)) is None else [tuned]
    if len(table.rare):
        names = ", ".join(table.classes[c] for c in table.rare[:5])
        more = f" and {len(table.rare) - 5:,} more" if len(table.rare) > 5 else ""
        notes.append(f"classes with fewer than {table.folds} rows are not judged: {names}{more}")
    return notes
