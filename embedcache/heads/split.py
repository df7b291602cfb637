"""Which rows train, which choose the best epoch and head, which test: equal texts never stand on two sides.

Rows move in *units* that must stay together: all rows of one text, or all rows of one group (a film, an
author). Units of several rows are dealt out first, the largest first, each to the side that it brings closest
to its share of every class; then single rows fill each class's quota exactly. So without duplicates and
groups the shares are those of scikit-learn's stratified ``train_test_split``, to a rounding, and they stay so
when there are many duplicates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.errors import EmbedcacheError

SEED = 42  # of every split, whatever the heads' seeds: heads of different seeds must be compared on the same rows


@dataclass
class Split:
    """Row numbers of the three sides, int64 [n], ascending and disjoint, with counts of what was special."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    unlabelled: int = 0  # rows without a label, in no side
    duplicates: int = 0  # labelled rows whose text an earlier labelled row has; they stand on that row's side
    conflicts: int = 0  # texts that carry more than one label
    left_out: int = 0  # labelled rows in no side: their group is on one side, their very text on another


@dataclass
class _Labelled:
    """The labelled rows: all arrays are [n] and parallel."""

    rows: np.ndarray  # row numbers
    y: np.ndarray  # class codes
    text: np.ndarray  # equal numbers, equal texts
    unit: np.ndarray  # equal numbers, same side
    unlabelled: int

    def split(self, side: np.ndarray) -> Split:
        """From each row's side (0 train, 1 val, 2 test); a text that groups put on two stays on the lower."""
        lowest = np.full(self.text.max() + 1, 3)
        np.minimum.at(lowest, self.text, side)
        keep = side == lowest[self.text]
        sides = [np.sort(self.rows[keep & (side == s)]) for s in range(3)]
        texts, first = np.unique(self.text, return_index=True)
        conflicts = np.unique(self.text[self.y != self.y[first][self.text]])
        split = Split(sides[0], sides[1], sides[2], self.unlabelled)
        split.duplicates = len(self.rows) - len(texts)
        split.conflicts = len(conflicts)
        split.left_out = int((~keep).sum())
        return split


def make_split(
    codes: np.ndarray,
    hashes: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    val: float = 0.1,
    test: float = 0.1,
    seed: int = SEED,
) -> Split:
    """Divide the labelled rows into train, val and test, stratified by class.

    codes: int [N], -1 for a row without a label. hashes: uint8 [N, 16], equal for equal texts. groups: int
    [N] or None; rows of one group stay on one side (-1: a row without a group). val and test are shares of
    the labelled rows; 0 leaves that side empty. A class's only row (or only group) trains. Raises
    EmbedcacheError where the shares cannot be had: fewer than two classes, or too few different texts or
    groups.
    """
    check_shares(val, test)
    data = _labelled(codes, hashes, groups)
    side = _assign(data.unit, data.y, [1 - val - test, val, test], np.random.default_rng(seed), keep_first=True)
    split = data.split(side)
    what = "different texts" if groups is None else "groups"
    for name, share, rows in (("--val", val, split.val), ("--test", test, split.test)):
        if share and not len(rows):
            raise EmbedcacheError(
                f"{len(data.rows):,} labelled rows with {data.unit.max() + 1:,} {what} are too few for "
                f"{name} {share:g}: add labelled rows, or leave that side out with {name} 0"
            )
    _check_train(split, codes)
    return split


def make_folds(
    codes: np.ndarray, hashes: np.ndarray, groups: np.ndarray | None = None, *, folds: int, seed: int = SEED
) -> list[Split]:
    """Divide the labelled rows into folds: each in turn is the val side, the others are the train side.

    Arguments and errors as for make_split; the test sides are empty: give rows put aside for a test code -1.
    """
    if folds < 2:
        raise EmbedcacheError(f"--folds {folds}: give 2 or more")
    data = _labelled(codes, hashes, groups)
    fold = _assign(data.unit, data.y, [1 / folds] * folds, np.random.default_rng(seed), keep_first=False)
    splits = [data.split((fold == k).astype(np.int64)) for k in range(folds)]
    for split in splits:
        if not len(split.val):
            what = "different texts" if groups is None else "groups"
            raise EmbedcacheError(
                f"{folds} folds need as many {what} or more; the labelled rows have {data.unit.max() + 1}: "
                "ask for fewer folds"
            )
        _check_train(split, codes)
    return splits


def article_split(codes: np.ndarray, hashes: np.ndarray) -> Split:
    """The article's 80/20: scikit-learn's ``train_test_split(test_size=0.2, random_state=42, stratify=labels)``.

    The 20% choose the best epoch (val) and there is no test side, as in the article. Without duplicates the
    rows are exactly scikit-learn's. Rows of one text that it would put on both sides go to the side that has
    more of them (train, when equal); a class with one row, on which it would stop, trains.
    """
    from sklearn.model_selection import train_test_split

    data = _labelled(codes, hashes, None)
    alone = np.bincount(data.y)[data.y] == 1
    try:
        _, chosen = train_test_split(np.flatnonzero(~alone), test_size=0.2, random_state=42, stratify=data.y[~alone])
    except ValueError:  # so few rows that a fifth cannot hold every class
        return make_split(codes, hashes, val=0.2, test=0.0)
    side = np.zeros(len(data.rows), np.int64)
    side[chosen] = 1
    in_val = np.bincount(data.text, side) > np.bincount(data.text) / 2
    split = data.split(in_val[data.text].astype(np.int64))
    _check_train(split, codes)
    return split


def check_shares(val: float, test: float) -> None:
    """Raises EmbedcacheError unless 0 <= val, 0 <= test and val + test < 1."""
    for name, share in (("--val", val), ("--test", test)):
        if not 0 <= share < 1:
            raise EmbedcacheError(f"{name} {share:g}: give a share of the rows, from 0 to below 1 (0.1 is a tenth)")
    if val + test >= 1:
        raise EmbedcacheError(f"--val {val:g} and --test {test:g} leave no rows to train on: lower one of them")


def split_notes(split: Split, codes: np.ndarray, classes: Sequence[str]) -> list[str]:
    """What a person should know about a split, one line each; classes: the name of each code."""
    notes = []
    rows = np.bincount(codes[codes >= 0], minlength=len(classes))
    seen = np.bincount(codes[split.train], minlength=len(classes))
    if (rows == 1).any():
        notes.append(f"classes with a single row: {_names(classes, rows == 1)}; it trains, no score covers them")
    if ((rows > 0) & (seen == 0)).any():
        notes.append(f"classes without a training row, never predicted: {_names(classes, (rows > 0) & (seen == 0))}")
    if split.conflicts:
        notes.append(f"texts with more than one label: {split.conflicts:,}; kept, all rows of a text on one side")
    if split.left_out:
        notes.append(f"rows left out, because their text is also in a group on another side: {split.left_out:,}")
    return notes


def _names(classes: Sequence[str], which: np.ndarray) -> str:
    chosen = np.flatnonzero(which)
    more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
    return ", ".join(classes[c] for c in chosen[:5]) + more


def _labelled(codes: np.ndarray, hashes: np.ndarray, groups: np.ndarray | None) -> _Labelled:
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise EmbedcacheError("no row has a label: there is nothing to learn from; name the label column with --label")
    y = codes[rows].astype(np.int64)
    if y.min() == y.max():
        raise EmbedcacheError(f"all {len(rows):,} labelled rows are of one class: a head needs two or more")
    words = np.ascontiguousarray(hashes[rows]).view(np.uint64)
    text = _number((words[:, 0], words[:, 1]))
    unit = text
    if groups is not None:  # a row without a group goes by its text
        grouped = groups[rows] >= 0
        unit = _number((grouped, np.where(grouped, groups[rows], text)))
    return _Labelled(rows, y, text, unit, len(codes) - len(rows))


def _number(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers 0, 1, ... for the different rows of some parallel columns, counted by first appearance."""
    order = np.lexsort(columns)
    new = np.ones(len(order), bool)
    new[1:] = np.any([column[order][1:] != column[order][:-1] for column in columns], axis=0)
    first = order[new]  # lexsort is stable: the earliest row of each
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    number = np.empty(len(order), np.int64)
    number[order] = rank[np.cumsum(new) - 1]
    return number


def _assign(
    unit: np.ndarray, y: np.ndarray, shares: Sequence[float], rng: np.random.Generator, keep_first: bool
) -> np.ndarray:
    """The side of every row [n]. keep_first: every class keeps a row on side 0 where that is possible."""
    active = np.flatnonzero(np.asarray(shares) > 0)
    share = np.asarray(shares, float)[active]
    total = np.bincount(y)
    size = np.bincount(unit)
    side = np.full(len(size), -1)
    have = np.zeros((len(active), len(total)))
    _deal_units(side, have, unit, y, size, share, rng)
    single = rng.permutation(np.flatnonzero(size[unit] == 1))
    single = single[np.argsort(y[single], kind="stable")]
    need = np.maximum(_quotas(total, share, rng, keep_first) - have, 0).astype(np.int64)
    for s in range(len(active)):  # units may have overfilled a side: the others get as much less, the first side first
        need[s] -= np.minimum(need[s], np.maximum(need.sum(0) - np.bincount(y[single], minlength=len(total)), 0))
    side[unit[single]] = np.repeat(np.tile(np.arange(len(active)), len(total)), need.T.ravel())
    for s in range(1, len(active)):
        if not (side == s).any():
            _fill_empty(side, s, unit, y, size)
    return active[side][unit]


def _deal_units(
    side: np.ndarray,
    have: np.ndarray,
    unit: np.ndarray,
    y: np.ndarray,
    size: np.ndarray,
    share: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Deal out the units of several rows; writes side [units] and have, the rows [sides, classes] dealt."""
    want = np.outer(share, np.bincount(y))
    order = np.argsort(unit, kind="stable")
    start = np.cumsum(size) - size
    for u in _largest_first(np.flatnonzero(size > 1), size, rng):
        classes, count = np.unique(y[order[start[u] : start[u] + size[u]]], return_counts=True)
        # By how much the squared distances to the quotas, over the quotas, grow: per class, and in all.
        lack, quota = have[:, classes] - want[:, classes], want[:, classes]
        cost = (count * (2 * lack + count) / quota).sum(1)
        cost += size[u] * (2 * (have - want).sum(1) + size[u]) / want.sum(1)
        side[u] = np.argmin(cost)
        have[side[u], classes] += count


def _largest_first(units: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shuffled = rng.permutation(units)
    return shuffled[np.argsort(-size[shuffled], kind="stable")]


def _quotas(total: np.ndarray, share: np.ndarray, rng: np.random.Generator, keep_first: bool) -> np.ndarray:
    """Whole rows [sides, classes] that add up to total [classes]; the largest remainders are rounded up."""
    quota = np.zeros((len(share), len(total)), np.int64)
    left = total.copy()
    for s in range(len(share) - 1, 0, -1):
        want = max(1, round(left.sum() * share[s] / share[: s + 1].sum()))
        ideal = want * left / max(left.sum(), 1)
        most = np.maximum(left - keep_first, 0)
        quota[s] = np.minimum(np.floor(ideal), most)
        while (lack := want - quota[s].sum()) > 0 and (room := np.flatnonzero(quota[s] < most)).size:
            remainder = (ideal - quota[s])[room] + 1e-9 * rng.random(len(room))  # equal remainders: by chance
            quota[s, room[np.argsort(-remainder)[:lack]]] += 1
        left -= quota[s]
    quota[0] = left
    return quota


def _fill_empty(side: np.ndarray, s: int, unit: np.ndarray, y: np.ndarray, size: np.ndarray) -> None:
    """Few units: give side s the smallest unit that the first side can spare, so that it keeps all of its classes."""
    first = side[unit] == 0
    for u in sorted(np.flatnonzero(side == 0), key=lambda u: size[u]):
        if np.isin(y[unit == u], y[first & (unit != u)]).all():
            side[u] = s
            return


def _check_train(split: Split, codes: np.ndarray) -> None:
    if len(np.unique(codes[split.train])) < 2:
        raise EmbedcacheError(
            f"only one class is left among the {len(split.train):,} training rows: a head needs two or more; "
            "add labelled rows, or lower --val and --test"
        )
