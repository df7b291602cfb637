"""Which rows train, which choose the best epoch and head, which test: equal texts never stand on two sides.

A row's side is *dealt*: a keyed hash of its text (or of its group: a film, an author) and the seed is a number from 0
to 1, and its place says the side. So a side depends on nothing else: when rows are appended, deleted, sorted or
relabelled, every other row stays where it was. The price: sizes are those of a draw, and luck spreads the classes.

Folds only choose settings. They are stratified by scikit-learn: rows move in *units* (all rows of one text or group),
single rows by ``StratifiedKFold``, units of several by ``StratifiedGroupKFold``; rows with several labels or with a
number, which scikit-learn cannot stratify, by ``KFold`` and ``GroupKFold``.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embedcache.common.label_names import visible
from embedcache.errors import EmbedcacheError

SEED = 42  # of every split, whatever the heads' seeds: heads of different seeds must be compared on the same rows
SIDES = ("train", "val", "test")
FEW = 2  # rows of a class, up to which it is named
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
    unsided: int = 0  # labelled rows in no side, because a column or a run puts them on none
    notes: list[str] = field(default_factory=list)  # how it came about, where that is out of the ordinary

    def codes(self, rows: int) -> np.ndarray:
        """int8 [rows]: each row's place in SIDES, -1 for none."""
        codes = np.full(rows, -1, np.int8)
        for i, side in enumerate(SIDES):
            codes[getattr(self, side)] = i
        return codes


@dataclass
class Labelled:
    """The labelled rows: all arrays are [n] and parallel."""

    rows: np.ndarray  # row numbers
    y: np.ndarray  # class codes; equal numbers, equal targets
    text: np.ndarray  # equal numbers, equal texts
    unit: np.ndarray  # equal numbers, same side
    unlabelled: int
    stratify: bool  # by y

    def split(self, side: np.ndarray) -> Split:
        """From each row's side (0 train, 1 val, 2 test, 3 none); a text that is on two stays on the lower."""
        # 1. The side of each text: the lowest that any of its rows has. Its rows elsewhere are left out.
        lowest = np.full(self.text.max() + 1, 3)  # (texts,)
        np.minimum.at(lowest, self.text, side)
        keep = side == lowest[self.text]  # (n,) bool
        sides = [np.sort(self.rows[keep & (side == s)]) for s in range(3)]
        # 2. What was special: rows of a text seen before, and texts whose rows differ in y from their first row.
        texts, first = np.unique(self.text, return_index=True)  # (texts,) each
        conflicts = np.unique(self.text[self.y != self.y[first][self.text]])
        split = Split(sides[0], sides[1], sides[2], self.unlabelled)
        split.duplicates = len(self.rows) - len(texts)
        split.conflicts = len(conflicts)
        split.unsided = int((side == 3).sum())
        split.left_out = int((~keep & (side < 3)).sum())
        return split


def make_split(
    codes: np.ndarray,
    hashes: np.ndarray,
    keys: np.ndarray | None = None,
    *,
    val: float = 0.1,
    test: float = 0.1,
    stratify: bool = True,
    seed: int = SEED,
) -> Split:
    """Deal the labelled rows to train, val and test.

    codes: int [N], -1 for a row without a label; the classes, or with ``stratify=False`` just a number for each
    different target. hashes: uint8 [N, 16], equal for equal texts. keys: uint8 [N, 16] or None, equal for rows of one
    group, which stay on one side; None deals by text. val and test are shares of the different texts or groups; 0
    leaves that side empty. Where chance leaves a side empty that should not be, the text or group that came nearest to
    it goes there, and a note says so. Raises EmbedcacheError where the shares cannot be had: fewer than two classes in
    all or on the train side, or too few different texts or groups.
    """
    check_shares(val, test)
    # 1. Deal: the hash of a row's text or group is a place from 0 to 1, and the place is a side.
    data = labelled_rows(codes, hashes, keys, stratify)
    place = places((hashes if keys is None else keys)[data.rows], seed)  # (n,) float64
    side = sides_at(place, val, test)  # (n,) int64: 0 train, 1 val, 2 test
    # 2. Fill a side that luck left empty.
    what = "text" if keys is None else "group"
    notes = _fill(side, place, data.unit, {2: test, 1: val}, what)
    # 3. Keep every text on one side, which its group may have split, and check what came out.
    split = data.split(side)
    split.notes = notes
    for name, share, rows in (("--val", val, split.val), ("--test", test, split.test)):
        if share and not len(rows):
            raise EmbedcacheError(
                f"{len(data.rows):,} labelled rows with {data.unit.max() + 1:,} different {what}s are too few for "
                f"{name} {share:g}: add labelled rows, or leave that side out with {name} 0"
            )
    check_train(split, codes, stratify)
    return split


def places(keys: np.ndarray, seed: int = SEED) -> np.ndarray:
    """float64 [n], from 0 to below 1: where the seed puts each key, uint8 [n, 16] (the hash of a text or of a group).

    It is ``int.from_bytes(blake2b(key, digest_size=8, key=seed as 8 bytes), "little") / 2**64``, little-endian.
    """
    from embedcache.cache.strings import first_rows  # a run is read without the cache's code

    first = first_rows(keys)  # (n,) int64: the first row with the same key, so that each key is hashed once
    salt = int(seed).to_bytes(8, "little")
    place = np.zeros(len(keys))
    for i in np.unique(first).tolist():
        digest = hashlib.blake2b(keys[i].tobytes(), digest_size=8, key=salt).digest()
        place[i] = (int.from_bytes(digest, "little") >> 11) / 2**53  # the bits that a float64 holds: never 1.0
    return place[first]


def sides_at(place: np.ndarray, val: float, test: float) -> np.ndarray:
    """int64 [n], 0 train, 1 val, 2 test: the lowest places test, the next ones validate."""
    return np.where(place < test, 2, np.where(place < test + val, 1, 0)).astype(np.int64)


def _fill(side: np.ndarray, place: np.ndarray, unit: np.ndarray, shares: dict[int, float], what: str) -> list[str]:
    """Give an empty side, in place, the unit that came nearest to it; the last unit of the train side stays."""
    notes = []
    for s, share in shares.items():
        if not share or (side == s).any():
            continue
        free = np.flatnonzero(side < s)  # rows that may move: of train, and for test those of val too
        if len(np.unique(unit[free])) < 2:
            continue
        nearest = unit[free[np.argmin(place[free])]]
        side[unit == nearest] = s
        notes.append(
            f"no {what} falls to the {SIDES[s]} rows by its hash, so the nearest one was taken: it goes back when "
            "others are added; for sides that last, label more rows"
        )
    return notes


def make_folds(
    codes: np.ndarray,
    hashes: np.ndarray,
    keys: np.ndarray | None = None,
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
    data = labelled_rows(codes, hashes, keys, stratify)
    if data.unit.max() + 1 < folds:
        what = "different texts" if keys is None else "groups"
        raise EmbedcacheError(
            f"{folds} folds need as many {what} or more; the labelled rows have {data.unit.max() + 1}: "
            "ask for fewer folds"
        )
    fold = _folds(data, folds, seed)
    splits = [data.split((fold == k).astype(np.int64)) for k in range(folds)]
    for split in splits:
        check_train(split, codes, stratify)
    return splits


def article_split(codes: np.ndarray, hashes: np.ndarray) -> Split:
    """The article's 80/20: scikit-learn's ``train_test_split(test_size=0.2, random_state=42, stratify=labels)``.

    The 20% choose the best epoch (val) and there is no test side, as in the article. Without duplicates the
    rows are exactly scikit-learn's. Rows of one text that it would put on both sides go to the side that has
    more of them (train, when equal); a class with one row, on which it would stop, trains.
    """
    from sklearn.model_selection import train_test_split

    data = labelled_rows(codes, hashes, None, stratify=True)
    alone = np.bincount(data.y)[data.y] == 1  # (n,) bool: the only row of its class
    # 1. scikit-learn's draw, without such rows.
    try:
        _, chosen = train_test_split(np.flatnonzero(~alone), test_size=0.2, random_state=42, stratify=data.y[~alone])
    except ValueError:  # so few rows that a fifth cannot hold every class
        return make_split(codes, hashes, val=0.2, test=0.0)
    side = np.zeros(len(data.rows), np.int64)
    side[chosen] = 1
    # 2. Each text goes where most of its rows were drawn to.
    in_val = np.bincount(data.text, side) > np.bincount(data.text) / 2
    split = data.split(in_val[data.text].astype(np.int64))
    check_train(split, codes, stratify=True)
    return split


def rows_digest(rows: np.ndarray) -> str:
    """A digest of a set of row numbers: equal for the same rows of the same cache."""
    return hashlib.blake2b(np.sort(rows).astype("<i8").tobytes(), digest_size=16).hexdigest()


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
    notes = list(split.notes)
    if classes:
        rows, seen = _class_rows(y, len(classes)), _class_rows(y[split.train], len(classes))
        few = (rows > 0) & (rows <= FEW)
        if y.ndim == 1 and few.any():
            notes.append(f"classes with one or two rows: {named(classes, few)}; no score says much about them")
        if ((rows > 0) & (seen == 0)).any():
            never = named(classes, (rows > 0) & (seen == 0))
            notes.append(f"classes without a training row, never predicted: {never}")
    if split.conflicts:
        notes.append(f"texts with more than one label: {split.conflicts:,}; kept, all rows of a text on one side")
    if split.left_out:
        notes.append(f"rows left out, because their text is also on another side: {split.left_out:,}")
    return notes


def _class_rows(y: np.ndarray, classes: int) -> np.ndarray:
    """int [classes]: rows of each class."""
    return np.bincount(y[y >= 0], minlength=classes) if y.ndim == 1 else (y > 0).sum(axis=0)


def named(classes: Sequence[str], which: np.ndarray) -> str:
    """The first five of the classes that are chosen, bool [C], and how many more."""
    chosen = np.flatnonzero(which)
    more = f" and {len(chosen) - 5:,} more" if len(chosen) > 5 else ""
    return ", ".join(visible(classes[c]) for c in chosen[:5]) + more


def labelled_rows(codes: np.ndarray, hashes: np.ndarray, keys: np.ndarray | None, stratify: bool) -> Labelled:
    """Arguments as make_split's. Raises EmbedcacheError where no row has a label, or all have the same class."""
    rows = np.flatnonzero(codes >= 0)
    if not len(rows):
        raise EmbedcacheError("no row has a label: there is nothing to learn from; name the label column with --label")
    y = codes[rows].astype(np.int64)
    if stratify and y.min() == y.max():
        raise EmbedcacheError(f"all {len(rows):,} labelled rows are of one class: a head needs two or more")
    text = _number(hashes[rows])
    unit = text if keys is None else _number(keys[rows])
    return Labelled(rows, y, text, unit, len(codes) - len(rows), stratify)


def _number(keys: np.ndarray) -> np.ndarray:
    """Numbers 0, 1, ... for the different keys, uint8 [n, 16], counted by first appearance."""
    from embedcache.cache.strings import first_rows

    return np.unique(first_rows(keys), return_inverse=True)[1]


def _folds(data: Labelled, folds: int, seed: int) -> np.ndarray:
    """The fold of every row [n]."""
    from sklearn.model_selection import KFold, StratifiedKFold

    unit, y = data.unit, data.y  # (n,) int64 each
    alone = np.bincount(unit)[unit] == 1  # (n,) bool: its unit has no other row
    fold = np.empty(len(unit), np.int64)
    # 1. Single rows, stratified where each fold can have one of the commonest class.
    rows = np.flatnonzero(alone)
    if len(rows) and (np.bincount(y[rows]).max() if data.stratify else len(rows)) >= folds:
        splitter = (StratifiedKFold if data.stratify else KFold)(folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds
            for k, (_, chosen) in enumerate(splitter.split(rows, y[rows])):
                fold[rows[chosen]] = k
    else:  # a handful of rows: every fold gets some
        fold[rows] = np.random.default_rng(seed).permutation(len(rows)) % folds
    # 2. Units of several rows, each whole.
    rows = np.flatnonzero(~alone)
    if len(rows):
        fold[rows] = stratified_parts(rows, data, folds, seed)
    return fold


def stratified_parts(rows: np.ndarray, data: Labelled, parts: int, seed: int) -> np.ndarray:
    """Parts of like size and like classes, 0..parts-1 for each of the rows; a unit is in one part."""
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    # 1. The units by random numbers: (rows,) int64, equal for the rows of one unit.
    y, number = data.y[rows], np.unique(data.unit[rows], return_inverse=True)[1]
    number = np.random.default_rng(seed).permutation(number.max() + 1)[number]
    # 2. Without stratification where there are too many units for it, or too few to be stratified.
    too_few = parts < 2 or number.max() + 1 < parts or (data.stratify and np.bincount(y).max() < parts)
    if number.max() >= MOST_STRATIFIED or too_few:
        return (number + 1) % parts  # so many units are alike without help; one unit alone trains
    # 3. Else by scikit-learn.
    part = np.empty(len(rows), np.int64)
    # The units are in a random order already: with shuffle=True, scikit-learn before 1.8 loses the stratification.
    splitter = (StratifiedGroupKFold if data.stratify else GroupKFold)(parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than parts
        for k, (_, chosen) in enumerate(splitter.split(number, y, number)):
            part[chosen] = parts - 1 - k  # the largest unit goes to the first fold: let that one train
    return part


def check_train(split: Split, codes: np.ndarray, stratify: bool) -> None:
    if not stratify and not len(split.train):
        raise EmbedcacheError("no rows are left to train on: add labelled rows, or lower --val and --test")
    if stratify and len(np.unique(codes[split.train])) < 2:
        raise EmbedcacheError(
            f"only one class is left among the {len(split.train):,} training rows: a head needs two or more; "
            "add labelled rows, lower --val and --test, or deal the rows again with another --split SEED"
        )
