"""Texts that stand in the table more than once: to the letter, but for case and punctuation, or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.audit.neighbours import Nearest
from embedcache.cache.strings import first_rows, hash_texts
from embedcache.common.near_identical import normalised, resemble, shingles

KINDS = ("exact", "same words", "near")  # from the closest
SHARED = 0.5  # Jaccard similarity of two texts' runs of 5 characters: what near-duplicates have in common at least


@dataclass(frozen=True)
class DuplicateGroup:
    """Rows with much the same text.

    ``kind``: the loosest tie in the group, one of KINDS. ``similarity``: the lowest cosine of those ties; 1 where all
    are exact or of the same words. ``conflict``: they carry different labels. ``across``: they stand on different sides
    of a split.
    """

    rows: tuple[int, ...]
    kind: str
    similarity: float
    conflict: bool
    across: bool


def duplicate_groups(
    texts: Sequence[str],
    first: np.ndarray,
    among: np.ndarray,
    nearest: Nearest,
    near: float,
    labels: np.ndarray,
    sides: np.ndarray | None = None,
) -> list[DuplicateGroup]:
    """All groups of two rows or more: those across sides first, then those with different labels, then the larger.

    first: int [N], equal for equal texts. among: bool [N], the rows that are looked at. near: the cosine from which
    texts that share half of their runs of characters are near-duplicates. labels, sides: int [N], -1 for none.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.flatnonzero(among)
    words = np.arange(len(first))
    words[rows] = rows[first_rows(hash_texts([normalised(texts[i]).encode() for i in rows.tolist()]))]
    different = rows[first[rows] == rows]
    left, right, cosine = _near_pairs(texts, nearest, near, words)
    ties: list[tuple[np.ndarray, np.ndarray, int, Any]] = [
        (rows, first[rows], 0, 1.0),
        (different, words[different], 1, 1.0),
        (left, right, 2, cosine),
    ]
    a, b = (np.concatenate([tie[i] for tie in ties]) for i in (0, 1))
    size = (len(first), len(first))
    _, number = connected_components(coo_array((np.ones(len(a), np.int8), (a, b)), size), directed=False)
    loosest, lowest = np.zeros(number.max() + 1, np.int8), np.ones(number.max() + 1)
    for of, to, kind, similarity in ties:
        np.maximum.at(loosest, number[of[of != to]], kind)
        np.minimum.at(lowest, number[of], similarity)
    rows = rows[np.bincount(number[rows])[number[rows]] > 1]
    order = rows[np.argsort(number[rows], kind="stable")]
    groups = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
    found = [
        DuplicateGroup(
            tuple(group.tolist()),
            KINDS[loosest[number[group[0]]]],
            float(lowest[number[group[0]]]),
            _differ(labels[group]),
            sides is not None and _differ(sides[group]),
        )
        for group in groups
        if len(group)
    ]
    return sorted(found, key=lambda group: (not group.across, not group.conflict, -len(group.rows), group.rows))


def _near_pairs(
    texts: Sequence[str], nearest: Nearest, near: float, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of rows with other words, and their cosines."""
    found, place = np.nonzero((nearest.scores >= near) & (nearest.rows >= 0))
    other, n = nearest.rows[found, place].astype(np.int64), len(words)
    differ = words[found] != words[other]
    found, other, cosine = found[differ], other[differ], nearest.scores[found, place][differ].astype(np.float64)
    # A pair is found from either side, or from both.
    keys, first = np.unique(np.minimum(found, other) * n + np.maximum(found, other), return_index=True)
    left, right, cosine = keys // n, keys % n, cosine[first]
    kept = np.zeros(len(keys), bool)
    last, pieces = -1, frozenset[str]()
    for pair, (i, j) in enumerate(zip(left.tolist(), right.tolist(), strict=True)):
        if i != last:
            last, pieces = i, shingles(normalised(texts[i]))
        kept[pair] = resemble(pieces, shingles(normalised(texts[j])), SHARED)
    return left[kept], right[kept], cosine[kept]


def _differ(values: np.ndarray) -> bool:
    values = values[values >= 0]
    return bool(len(values) and (values != values[0]).any())
