"""Where the sides of a run come from: dealt by a seed, told by a column, or those of another run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.runs.data import Data
from embedcache.runs.folder import PREDICTIONS, Run, load_run, require_keys
from embedcache.runs.predictions import StoredSides, read_sides
from embedcache.runs.split import (
    SEED,
    Labelled,
    Split,
    article_split,
    check_train,
    labelled_rows,
    make_split,
    places,
    sides_at,
)
from embedcache.runs.split_before import sides_before

NAMES = {
    "train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "dev": 1, "test": 2, "testing": 2
}  # fmt: skip
SHOWN = 5  # values of a column that are no sides


@dataclass(frozen=True)
class Dealing:
    """What was asked for. One of: seed (None for the usual one), column, run; article: scikit-learn's 80/20."""

    seed: int | None = None
    column: str | None = None
    run: str | None = None
    article: bool = False


def check_dealing(dealing: Dealing, val: float | None, test: float | None) -> None:
    """Options that contradict each other are refused. val, test: as given, None where they were not."""
    given = [
        name
        for name, value in (
            ("--split", dealing.seed), ("--split-column", dealing.column), ("--same-split", dealing.run)
        )
        if value is not None
    ]  # fmt: skip
    if len(given) > 1:
        raise EmbedcacheError(f"{' and '.join(given)}: give one of them")
    told = {"--split-column": "the column says which rows test", "--same-split": "RUN says which rows test"}
    if test is not None and given and given[0] in told:
        raise EmbedcacheError(f"--test and {given[0]}: give one of them; {told[given[0]]}")


def group_column(cache: Cache, dealing: Dealing, group: str | None, labels: Sequence[str]) -> str | None:
    """The column that keeps rows together: the one that was named, else that of the run whose sides are taken over.

    Without it, rows that are new to the run would be dealt by their texts, and cut its groups. None where the cache has
    no such column; ``deal`` says so. labels: the columns to be learned. Raises EmbedcacheError where there is no run.
    """
    if group is not None or dealing.run is None:
        return group
    was = _group_of(load_run(dealing.run))
    return was if was in {*cache.column_names, *cache.label_names} - set(labels) else None


def _group_of(run: Run) -> str | None:
    split: dict[str, Any] = next(iter(run.columns.values())).info.get("split") or {}
    return split.get("group")


def deal(cache: Cache, data: Data, dealing: Dealing, val: float, test: float) -> tuple[Split, dict[str, Any]]:
    """The split of a column, and what is to be known to make it again (JSON types).

    val, test: shares. Raises EmbedcacheError for a column or run that cannot be used, or sides without enough rows.
    """
    stratify = kind_of(data.kind).exclusive
    if dealing.article and stratify:
        return article_split(data.codes, cache.hashes), _about("article", SEED, 0.2, 0.0)
    if dealing.column is not None:
        split = _by_column(cache, data, dealing.column, val)
        return split, {**_about("column", SEED, val, 0.0), "column": dealing.column}
    if dealing.run is not None:
        return _by_run(cache, data, dealing.run, val)
    seed = SEED if dealing.seed is None else dealing.seed
    split = make_split(data.codes, cache.hashes, data.keys, val=val, test=test, stratify=stratify, seed=seed)
    return split, _about("hash", seed, val, test)


def _about(rule: str, seed: int, val: float, test: float) -> dict[str, Any]:
    return {"rule": rule, "seed": seed, "column": None, "run": None, "shares": {"val": val, "test": test}}


def _by_column(cache: Cache, data: Data, column: str, val: float) -> Split:
    """As the values of a column say; without validation rows there, from the training rows by their hash."""
    values = _values(cache, column, data.label)
    told = np.array([NAMES.get(value.casefold(), -1) for value in values], np.int64)
    labelled = _labelled(cache, data)
    side = told[labelled.rows]
    notes = []
    if not (side == 0).any():
        raise EmbedcacheError(
            f"--split-column {column}: no row with a label is marked train; its values are "
            f"{_shown(values) or 'blank'}, and train, val (validation, dev) and test are sides"
        )
    if (side < 0).any():
        others = _shown(values[row] for row in labelled.rows[side < 0])
        what = f"blank or not a side ({others})" if others else "blank"
        notes.append(f"rows left out, because {column!r} is {what}: {int((side < 0).sum()):,}")
    if not val and (side == 1).any():  # folds, or --val 0
        notes.append(f"rows that {column!r} marks for validation, trained on as well: {int((side == 1).sum()):,}")
        side = np.where(side == 1, 0, side)
    elif val and not (side == 1).any():
        place = places(_keys(cache, data)[labelled.rows])
        side = np.where((side == 0) & (place < val), 1, side)
        notes.append(f"{column!r} marks no validation rows: {int((side == 1).sum()):,} training rows validate, by hash")
    if data.groups is not None:
        notes += _cut_groups(side, labelled.unit)
    return _finish(labelled, side, notes, data)


def _by_run(cache: Cache, data: Data, path: str, val: float) -> tuple[Split, dict[str, Any]]:
    """As a run has them, by text; rows that are new to it, by its seed and shares."""
    run = load_run(path)
    one = run.columns.get(data.label) or next(iter(run.columns.values()))
    require_keys(one, "settings", "split")
    known = _stored(cache, one, f"--same-split {path}")
    labelled = _labelled(cache, data)
    settings = one.info["settings"]
    about: dict[str, Any] = one.info["split"]
    seed = SEED if about.get("seed") is None else int(about["seed"])
    shares = about.get("shares") or {"val": settings["val"], "test": settings["test"]}
    dealt = sides_at(places(_keys(cache, data)[labelled.rows], seed), val or 0.0, shares["test"])
    side, new = known[labelled.rows].astype(np.int64), known[labelled.rows] == -2
    notes = []
    if new.any():
        notes.append(f"rows that {path} does not know, dealt by its seed {seed}: {int(new.sum()):,}")
    if (side == -1).any():
        notes.append(f"rows left out, as {path} left them out: {int((side == -1).sum()):,}")
    side = np.where(new, dealt, side)
    if not val:  # folds, or no validation at all
        side[side == 1] = 0
    elif not (side == 1).any():
        side = np.where((side == 0) & (dealt == 1), 1, side)
        notes.append(
            f"{path} has no validation rows: {int((side == 1).sum()):,} of its training rows validate, by hash"
        )
    if data.groups is not None:
        notes += _cut_groups(side, labelled.unit)
    elif new.any() and (was := _group_of(run)) is not None:
        notes.append(
            f"{path} kept rows of one {was!r} on one side; this cache has no such column, so the new rows were dealt "
            f"by their texts: extract with --keep {was}"
        )
    split = _finish(labelled, side, notes, data)
    return split, {**_about("run", seed, val, float(shares["test"])), "run": str(path)}


def load_sides(run: Run) -> StoredSides | None:
    """The sides that a run of one column keeps; None of the first runs, which kept none. Raises EmbedcacheError."""
    digest = run.info["files"].get(PREDICTIONS)
    return None if digest is None else read_sides(run.path / PREDICTIONS, digest)


def stored_sides(cache: Cache, run: Run, option: str) -> np.ndarray:
    """int8 [N]: the place in SIDES of every row of the cache in a run of one column, -1 for none or a new row.

    option: what named the run, for errors. Raises EmbedcacheError where the sides cannot be known any more.
    """
    return np.maximum(_stored(cache, run, option), -1)


def _stored(cache: Cache, run: Run, option: str) -> np.ndarray:
    """As stored_sides, -2 for rows that the run does not know."""
    if (stored := load_sides(run)) is not None:
        found = stored.of(cache.hashes)
        if (found == -2).all():
            raise EmbedcacheError(f"{option} was trained on other texts: it knows none of {cache.path}")
        return found
    require_keys(run, "label", "kind", "recipe", "settings", "split")
    before = sides_before(cache, run, str(run.info["label"]))
    if before is None:
        raise EmbedcacheError(
            f"{option} does not hold its sides (an older embedcache made it), and {cache.path} has other rows or "
            "labels than then: train it again, or leave the option out"
        )
    return before


def _labelled(cache: Cache, data: Data) -> Labelled:
    return labelled_rows(data.codes, cache.hashes, data.keys, kind_of(data.kind).exclusive)


def _keys(cache: Cache, data: Data) -> np.ndarray:
    return cache.hashes if data.keys is None else data.keys


def _finish(labelled: Labelled, side: np.ndarray, notes: Sequence[str], data: Data) -> Split:
    """side: 0 to 2, negative for none. Raises EmbedcacheError where the train side cannot be used."""
    out = side < 0
    split = labelled.split(np.where(out, 3, side))
    split.notes = list(notes)
    if len(split.train) == 0:
        raise EmbedcacheError("no rows are left to train on: give the training rows labels, or another split")
    check_train(split, data.codes, kind_of(data.kind).exclusive)
    return split


def _cut_groups(side: np.ndarray, unit: np.ndarray) -> list[str]:
    """A note about groups that a split made without them has cut apart."""
    lowest, highest = np.full(unit.max() + 1, 3), np.full(unit.max() + 1, -1)
    there = side >= 0
    np.minimum.at(lowest, unit[there], side[there])
    np.maximum.at(highest, unit[there], side[there])
    cut = int((highest > lowest).sum())
    if not cut:
        return []
    return [f"groups that this split puts on several sides, so that the scores flatter the heads: {cut:,}"]


def _values(cache: Cache, column: str, label: str) -> Sequence[str]:
    if column == label:
        raise EmbedcacheError(f"--split-column {column}: that is the label itself; name the column of train and test")
    if column in cache.column_names:
        return [value.strip() for value in cache.column(column)]
    if column in cache.label_names and not cache.holds_lists(column):
        codes, names = cache.labels(column)
        names = [*(name.strip() for name in names), ""]  # the last is code -1's
        return [names[code] for code in codes.tolist()]
    if column in cache.label_names:
        raise EmbedcacheError(f"--split-column {column}: that column holds lists; name one with a single value a row")
    known = ", ".join([*cache.column_names, *(name for name in cache.label_names if name != label)])
    there = f"it has {known}" if known else f"run extract again with --keep {column}"
    raise EmbedcacheError(f"--split-column {column}: {cache.path} keeps no such column; {there}")


def _shown(values: Any) -> str:
    """The first few different values, in words."""
    different = list(dict.fromkeys(value for value in values if value))
    more = ", ..." if len(different) > SHOWN else ""
    return ", ".join(repr(value[:30]) for value in different[:SHOWN]) + more
