"""A cache and the journal that lies over its labels, as the pool and the snapshot that everything else here takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.active_learning.estimates import CHANCE
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.audit.neighbours import unit_vectors
from embedcache.cache import Cache
from embedcache.cache.side_by_side import vectors_of
from embedcache.cache.strings import first_rows
from embedcache.cache.where import not_blank
from embedcache.common.outputs import Layer
from embedcache.heads.kinds import kind_of, usual_kind
from embedcache.labelling import Given, Overlay
from embedcache.runs.data import group_keys, load_data
from embedcache.runs.folder import Run
from embedcache.runs.sides import stored_sides
from embedcache.runs.split import SIDES, places

TEST_SHARE = 0.1  # of the texts, where no run says which rows test; as train-head deals them


@dataclass(frozen=True)
class LabelledRows:
    """What people have done in one column of a cache, by rows. Of a text that stands in several rows, each is there.

    Attributes:
        rows: int64 [n], rows with a label that people gave. given: [n], what they gave.
        skipped: bool [N], rows that someone skipped and nobody has labelled.
    """

    rows: np.ndarray
    given: list[Given]
    skipped: np.ndarray


def pool_of(
    cache: Cache, column: str, pooling: str, layer: Layer = -1, run: Run | None = None, group: str | None = None
) -> Pool:
    """The rows of a cache.

    Args:
        cache: The cache.
        column: What is labelled.
        pooling: Which vectors.
        layer: Of which layer; -1 is the last.
        run: The column's run, whose test rows test here too; else a tenth of the texts or groups does, those that
            train-head would take.
        group: A column; rows with the same value stay on one side of a fold, and take turns in a queue. None: that by
            which the run was split, if any.

    Raises:
        EmbedcacheError: There are no such vectors, no such column of groups, or the run is of another cache and does
            not tell its sides.
    """
    x, unit, keys, groups = vectors_of(cache, pooling, layer), first_rows(cache.hashes), cache.hashes, None
    if group is None and run is not None:
        group = run.info["split"].get("group")
    if group is not None:
        codes, keys = group_keys(cache, group, column)
        groups = np.where(codes >= 0, codes + cache.rows, unit)
    if run is None:
        test = places(keys) < TEST_SHARE
    else:
        test = stored_sides(cache, run, f"--run {run.path}") == SIDES.index("test")
    return Pool.of(x, unit=unit, group=groups, test=test, usable=not_blank(cache.texts) & unit_vectors(x))


def labelled_rows_of(cache: Cache, column: str) -> LabelledRows:
    """What the journal over a cache says of a column; nothing, where there is none."""
    overlay, skipped = cache.source, np.zeros(cache.rows, bool)
    if not isinstance(overlay, Overlay):
        return LabelledRows(np.empty(0, np.int64), [], skipped)
    rows, given = overlay.rows(cache, column)
    if names := [bytes.fromhex(name) for name in overlay.skipped(column)]:
        keys = np.ascontiguousarray(cache.hashes).view("V16")[:, 0]
        skipped = np.isin(keys, np.frombuffer(b"".join(names), "V16"))
        skipped[rows] = False
    return LabelledRows(rows, given, skipped)


def snapshot_of(
    cache: Cache, column: str, pool: Pool, people: LabelledRows, classes: Sequence[str] = (), kind: str | None = None
) -> Snapshot:
    """The labels of a column at this moment: those of the file, with those that people gave in their places.

    Args:
        cache: The cache, opened with its journal.
        column: A label column, of the cache or new; of a regression a kept one will do.
        pool: Of the same cache.
        people: See ``labelled_rows_of``.
        classes: Names of classes that no row need have yet, in addition to those that rows have.
        kind: Of task; None is what the column holds, and classification for a new one.

    Raises:
        EmbedcacheError: The column does not hold what the kind wants.
    """
    there = column in cache.label_names
    about = usual_kind(there and cache.holds_lists(column)) if kind is None else kind_of(kind)
    if not about.has_classes:
        y, names = load_data(cache, column, None, -1, None, task=about.name).y, [column]
    elif there:
        codes, own = cache.labels(column)
        names = [*own, *(name for name in classes if name not in own)]
        y = targets_of(codes, len(names), about.has_lists)
    else:
        names = list(classes)
        y = targets_of(np.full((cache.rows, 0) if about.has_lists else cache.rows, -1), len(names), about.has_lists)
    checked, settled, chance = (np.zeros(cache.rows, bool) for _ in range(3))
    checked[people.rows] = True
    settled[people.rows] = list(map(is_settled, people.given))
    chance[people.rows] = list(map(is_by_chance, people.given))
    return Snapshot(pool, y, names, about.name, checked, settled, chance)


def targets_of(codes: np.ndarray, classes: int, lists: bool) -> np.ndarray:
    """``Snapshot.y`` of codes as ``Cache.labels`` has them, with so many classes, of which the codes know the first.

    int32 [N]; of lists float32 [N, classes], of rows without labels all -1.
    """
    if not lists:
        return np.array(codes, np.int32)
    y = np.zeros((len(codes), classes), np.float32)
    y[:, : codes.shape[1]] = codes
    y[(codes[:, :1] < 0).any(axis=1) if codes.shape[1] else slice(None)] = -1
    return y


def is_settled(given: Given) -> bool:
    """Whether a label was looked at twice: there was one before, or two people have given theirs."""
    return given.entry.before is not None or len(given.by) > 1


def is_by_chance(given: Given) -> bool:
    """Whether one of those who labelled a text was shown it by chance."""
    return any(one.queue == CHANCE for one in given.by.values())


def in_order(proba: np.ndarray, names: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """float32 [N, classes]: the columns by the names of the classes; 0 for those that were not named."""
    ordered = np.zeros((len(proba), len(classes)), np.float32)
    ordered[:, [list(classes).index(name) for name in names]] = proba
    return ordered
