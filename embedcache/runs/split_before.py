"""How a run without predictions.parquet was split: kept so that audit and --same-split still know its sides.

Units of several rows are divided by ``StratifiedGroupKFold`` into PARTS parts, of which each side takes its share. Then
single rows fill the sides to the count by the stratified ``train_test_split`` (the test rows first, then val from the
rest). Runs made since then hold their sides themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.heads.kinds import kind_of
from embedcache.runs.data import load_data
from embedcache.runs.folder import Run
from embedcache.runs.split import (
    SEED,
    SIDES,
    Labelled,
    Split,
    article_split,
    labelled_rows,
    rows_digest,
    stratified_parts,
)

PARTS = 20  # units of several rows are dealt out in twentieths


def sides_before(cache: Cache, run: Run, label: str) -> np.ndarray | None:
    """int8 [N]: the place in SIDES of every row of the cache that a run of one column was made from, -1 for none.

    None where the cache has other rows, labels or groups than then.
    """
    info: dict[str, Any] = run.info
    settings, group = info["settings"], info["split"].get("group")
    wanted: dict[str, str] = info["split"].get("digests") or {}
    data = load_data(cache, label, None, cache.outputs[0][1], group, info["kind"])
    stratify = kind_of(info["kind"]).exclusive
    shares = {"val": settings["val"], "test": settings["test"], "stratify": stratify}
    made = [lambda: split_before(data.codes, cache.hashes, data.keys, **shares)]
    if info["recipe"] == "article" and stratify:
        made.append(lambda: article_split(data.codes, cache.hashes))
    for make in made:
        split = make()
        if all(rows_digest(getattr(split, side)) == wanted.get(side) for side in SIDES):
            return split.codes(cache.rows)
    return None


def split_before(
    codes: np.ndarray,
    hashes: np.ndarray,
    keys: np.ndarray | None = None,
    *,
    val: float,
    test: float,
    stratify: bool = True,
    seed: int = SEED,
) -> Split:
    """Arguments as for split.make_split; nothing is checked, for a run was made of it."""
    data = labelled_rows(codes, hashes, keys, stratify)
    return data.split(_assign(data, val, test, seed))


def _assign(data: Labelled, val: float, test: float, seed: int) -> np.ndarray:
    """The side of every row [n]: 0 train, 1 val, 2 test."""
    unit = data.unit
    side = np.zeros(len(unit), np.int64)
    alone = np.bincount(unit)[unit] == 1
    _deal_units(side, np.flatnonzero(~alone), data, val, test, seed)
    for s, share in ((2, test), (1, val)):  # rows that are free to move then fill the sides to the count
        rest = np.flatnonzero(alone & (side == 0))
        count = max(1, round(share * len(unit))) - np.count_nonzero(side == s) if share else 0
        side[_draw(rest, data, count, seed)] = s
    return side


def _deal_units(side: np.ndarray, rows: np.ndarray, data: Labelled, val: float, test: float, seed: int) -> None:
    """Rows whose units have several: so many of PARTS alike parts to test and to val."""
    if not len(rows):
        return
    parts = min(PARTS, len(np.unique(data.unit[rows])))
    part = stratified_parts(rows, data, parts, seed)
    least = int(len(rows) == len(data.unit))  # without single rows these fill the sides
    tests = max(round(test * parts), least) if test else 0
    vals = min(max(round(val * parts), least) if val else 0, max(parts - 1 - tests, 0))
    side[rows[part < tests]] = 2
    side[rows[(part >= tests) & (part < tests + vals)]] = 1


def _draw(rows: np.ndarray, data: Labelled, count: int, seed: int) -> np.ndarray:
    """count of the rows, stratified; a class's only row stays. Fewer where every class would lose its last row."""
    from sklearn.model_selection import train_test_split

    y = data.y[rows] if data.stratify else np.zeros(len(rows), np.int64)
    movable = np.bincount(y)[y] > 1 if len(y) else np.zeros(0, bool)
    if count <= 0 or not movable.any():
        return rows[:0]
    strata = y[movable] if data.stratify else None
    try:
        return train_test_split(rows[movable], test_size=count, random_state=seed, stratify=strata)[1]
    except ValueError:  # fewer rows than classes on one side: then any row but the first of its class
        first = np.unique(y, return_index=True)[1]
        spare = np.random.default_rng(seed).permutation(np.delete(rows, first))
        return spare[:count]
