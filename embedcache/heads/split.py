"""Which rows train, which choose the best epoch and head, which test: equal texts never stand on two sides.

Rows move in *units* that must stay together: all rows of one text, or all rows of one group (a film, an author).
Units of several rows are divided by ``StratifiedGroupKFold`` into PARTS parts, of which each side takes its share. Then
single rows fill the sides to the count by the stratified ``train_test_split`` (the test rows first, then val from the
rest, random_state 42): without duplicates and groups, anyone gets the same rows with two lines of scikit-learn.

Rows with several labels or with a number are not stratified: scikit-learn can do so by one class a row only. Then
``GroupKFold``, ``KFold`` and a plain ``train_test_split`` take the places of the stratified ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.cache.strings import first_rows
from embedcache.errors import EmbedcacheError

SEED = 42  # of every split, whatever the heads' seeds: heads of different seeds must be compared on the same rows
PARTS = 20  # units of several rows are dealt out in twentieths
MOST_STRATIFIED = 20_000  # StratifiedGroupKFold visits units one by one: with more of them, chance divides as well


@dataclass
class Split:
    """Row numbers of the three sides, int64 [n], ascending and disjoint, with counts of what was special."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray
    unlabelled: int = 0  # rows without a label, in no side
    duplicates: int = 0  # labelled rows whose text an earlier labelled row has; they stand on that row's side
    conflicts: int = 0  # texts that carry more than one label (or list of labels, or number)
    left_out: int = 0  # labelled rows in no side: their group is on one side, their very text on another


@dataclass
class _Labelled:
    """The labelled rows: all arrays are [n] and parallel."""

    rows: np.ndarray  # row numbers
    y: np.ndarray  # class codes; equal numbers, equal targets
    text: np.ndarray  # equal numbers, equal texts
    unit: np.ndarray  # equal numbers, same side
    unlabelled: int
    stratify: bool  # by y

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
    stratify: bool = True,
    seed: int = SEED,
) -> Split:
    """Divide the labelled rows into train, val and test, stratified by class.

    codes: int [N], -1 for a row without a label; the classes, or with ``stratify=False`` just a number for each
    different target. hashes: uint8 [N, 16], equal for equal texts. groups: int
    [N] or None; rows of one group stay on one side (-1: a row without a group). val and test are shares of
    the labelled rows; 0 leaves that side empty. A class's only row (or only group) trains. Raises
    EmbedcacheError where the shares cannot be had: fewer than two classes, or too few different texts or
    groups.
    """
    check_shares(val, test)
    data = _labelled(codes, hashes, groups, stratify)
    split = data.split(_assign(data, val, test, seed))
    what = "different texts" if groups is None else "groups"
    for name, share, rows in (("--val", val, split.val), ("--test", test, split.test)):
        if share and not len(rows):
            raise EmbedcacheError(
                f"{len(data.rows):,} labelled rows with {data.unit.max() + 1:,} {what} are too few for "
                f"{name} {share:g}: add labelled rows, or leave that side out with {name} 0"
            )
    _check_train(split, codes, stratify)
    return split


def make_folds(
    codes: np.ndarray,
    hashes: np.ndarray,
    groups: np.ndarray | None = None,
    *,
    folds: int,
    stratify: bool = True,
    seed: int = SEED,
) -> list[Split]:
    """Divide the labelled rows into folds: each in turn is the val side, the others are the train side.

    Arguments and errors as for make_split; the test sides are empty: give rows put aside for a test code -1.
    """
    if folds < 2:
        raise EmbedcacheError(f"--folds {folds}: give 2 or more")
    data = _labelled(codes, hashes, groups, stratify)
    if data.unit.max() + 1 < folds:
        what = "different texts" if groups is None else "groups"
        raise EmbedcacheError(
            f"{folds} folds need as many {what} or more; the labelled rows have {data.unit.max() + 1}: "
            "ask for fewer folds"
        )
    fold = _folds(data, folds, seed)
    splits = [data.split((fold == k).astype(np.int64)) for k in range(folds)]
    for split in splits:
        _check_train(split, codes, stratify)
    return splits


def article_split(codes: np.ndarray, hashes: np.ndarray) -> Split:
    """The article's 80/20: scikit-learn's ``train_test_split(test_size=0.2, random_state=42, stratify=labels)``.

    The 20% choose the best epoch (val) and there is no test side, as in the article. Without duplicates the
    rows are exactly scikit-learn's. Rows of one text that it would put on both sides go to the side that has
    more of them (train, when equal); a class with one row, on which it would stop, trains.
    """
    from sklearn.model_selection import train_test_split

    data = _labelled(codes, hashes, None, stratify=True)
    alone = np.bincount(data.y)[data.y] == 1
    try:
        _, chosen = train_test_split(np.flatnonzero(~alone), test_size=0.2, random_state=42, stratify=data.y[~alone])
    except ValueError:  # so few rows that a fifth cannot hold every class
        return make_split(codes, hashes, val=0.2, test=0.0)
    side = np.zeros(len(data.rows), np.int64)
    side[chosen] = 1
    in_val = np.bincount(data.text, side) > np.bincount(data.text) / 2
    split = data.split(in_val[data.text].astype(np.int64))
    _check_train(split, codes, stratify=True)
    return split


def check_shares(val: float, test: float) -> None:
    """Raises EmbedcacheError unless 0 <= val, 0 <= test and val + test < 1."""
    for name, share in (("--val", val), ("--test", test)):
        if not 0 <= share < 1:
            raise EmbedcacheError(f"{name} {share:g}: give a share of the rows, from 0 to below 1 (0.1 is a tenth)")
    if val + test >= 1:
        raise EmbedcacheError(f"--val {val:g} and --test {test:g} leave no rows to train on: lower one of them")


def split_notes(split: Split, y: np.ndarray, classes: Sequence[str]) -> list[str]:
    """What a person should know about a split, one line each.

    y: class codes int [N], or float [N, C], 1 where a row has the label; classes: their names, [] for a regression.
    """
    notes = []
    if classes:
        rows, seen = _class_rows(y, len(classes)), _class_rows(y[split.train], len(classes))
        if y.ndim == 1 and (rows == 1).any():
            notes.append(f"classes with a single row: {_names(classes, rows == 1)}; it trains, no score covers them")
        if ((rows > 0) & (seen == 0)).any():
            never = _names(classes, (rows > 0) & (seen == 0))
            notes.append(f"classes without a training row, never predicted: {never}")
    if split.conflicts:
        notes.append(f"texts with more than one label: {split.conflicts:,}; kept, all rows of a text on one side")
    if split.left_out:
        notes.append(f"rows left out, because their text is also in a group on another side: {split.left_out:,}")
    return notes


def _class_rows(y: np.ndarray, classes: int) -> np.ndarray:
    """int [classes]: rows of each class."""
    return np.bincount(y[y >= 0], minlength=classes) if y.ndim == 1 else (y > 0).sum(axis=0)


def _names(classes: Sequence[str], which: np.ndarray) -> str:
    chosen = np.flatnonzero(which)
    more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
    return ", ".join(classes[c] for c in chosen[:5]) + more


def _labelled(codes: np.ndarray, hashes: np.ndarray, groups: np.ndarray | None, stratify: bool) -> _Labelled:
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise EmbedcacheError("no row has a label: there is nothing to learn from; name the label column with --label")
    y = codes[rows].astype(np.int64)
    if stratify and y.min() == y.max():
        raise EmbedcacheError(f"all {len(rows):,} labelled rows are of one class: a head needs two or more")
    text = _number(hashes[rows])
    unit = text
    if groups is not None:  # a row without a group goes by its text
        grouped = groups[rows] >= 0
        pairs = np.column_stack([grouped, np.where(grouped, groups[rows], text)]).astype(np.int64)
        unit = _number(pairs.view(np.uint8))
    return _Labelled(rows, y, text, unit, len(codes) - len(rows), stratify)


def _number(keys: np.ndarray) -> np.ndarray:
    """Numbers 0, 1, ... for the different keys, uint8 [n, 16], counted by first appearance."""
    return np.unique(first_rows(keys), return_inverse=True)[1]


def _assign(data: _Labelled, val: float, test: float, seed: int) -> np.ndarray:
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


def _deal_units(side: np.ndarray, rows: np.ndarray, data: _Labelled, val: float, test: float, seed: int) -> None:
    """Rows whose units have several: so many of PARTS alike parts to test and to val."""
    if not len(rows):
        return
    parts = min(PARTS, len(np.unique(data.unit[rows])))
    part = _parts(rows, data, parts, seed)
    least = int(len(rows) == len(data.unit))  # without single rows, who else should fill a side
    tests = max(round(test * parts), least) if test else 0
    vals = min(max(round(val * parts), least) if val else 0, max(parts - 1 - tests, 0))
    side[rows[part < tests]] = 2
    side[rows[(part >= tests) & (part < tests + vals)]] = 1


def _draw(rows: np.ndarray, data: _Labelled, count: int, seed: int) -> np.ndarray:
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


def _folds(data: _Labelled, folds: int, seed: int) -> np.ndarray:
    """The fold of every row [n]."""
    from sklearn.model_selection import KFold, StratifiedKFold

    unit, y = data.unit, data.y
    alone = np.bincount(unit)[unit] == 1
    fold = np.empty(len(unit), np.int64)
    rows = np.flatnonzero(alone)
    if len(rows) and (np.bincount(y[rows]).max() if data.stratify else len(rows)) >= folds:
        splitter = (StratifiedKFold if data.stratify else KFold)(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds
            for k, (_, chosen) in enumerate(splitter.split(rows, y[rows])):
                fold[rows[chosen]] = k
    else:  # a handful of rows: every fold gets some
        fold[rows] = np.random.default_rng(seed).permutation(len(rows)) % folds
    rows = np.flatnonzero(~alone)
    if len(rows):
        fold[rows] = _parts(rows, data, folds, seed)
    return fold


def _parts(rows: np.ndarray, data: _Labelled, parts: int, seed: int) -> np.ndarray:
    """Parts of like size and like classes, 0..parts-1 for each of the rows; a unit is in one part."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    y, number = data.y[rows], np.unique(data.unit[rows], return_inverse=True)[1]
    number = np.random.default_rng(seed).permutation(number.max() + 1)[number]
    too_few = parts < 2 or number.max() + 1 < parts or (data.stratify and np.bincount(y).max() < parts)
    if number.max() >= MOST_STRATIFIED or too_few:
        return (number + 1) % parts  # so many units are alike without help; one unit alone trains
    part = np.empty(len(rows), np.int64)
    # The units are in a random order already: with shuffle=True, scikit-learn before 1.8 loses the stratification.
    splitter = (StratifiedGroupKFold if data.stratify else GroupKFold)(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than parts
        for k, (_, chosen) in enumerate(splitter.split(number, y, number)):
            part[chosen] = parts - 1 - k  # the largest unit goes to the first fold: let that one train
    return part


def _check_train(split: Split, codes: np.ndarray, stratify: bool) -> None:
    if not stratify and not len(split.train):
        raise EmbedcacheError("no rows are left to train on: add labelled rows, or lower --val and --test")
    if stratify and len(np.unique(codes[split.train])) < 2:
        raise EmbedcacheError(
            f"only one class is left among the {len(split.train):,} training rows: a head needs two or more; "
            "add labelled rows, or lower --val and --test"
        )
