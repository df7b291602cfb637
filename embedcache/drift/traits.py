"""Words and columns that differ between old and new rows: tests of scipy and scikit-learn, corrected for how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedcache.tables.decimals import as_numbers

LEVEL = 0.05
WORDS, VALUES = 10, 50  # words on each side; values of a column that are compared by themselves
FEWEST = 5  # rows that have a word


@dataclass(frozen=True)
class WordShare:
    """The share of old and of new texts that have a word."""

    word: str
    old: float
    new: float


@dataclass(frozen=True)
class ColumnShift:
    """One column.

    Attributes:
        column: its name.
        test: "Kolmogorov-Smirnov" of numbers, "chi-squared" of values (those beyond the 50 commonest are one).
        p: of a difference at least as large if there were none.
        differs: whether that is below 5%, divided by the number of columns.
        values: the values whose shares differ most: value, old share, new share; of numbers the quartiles.
    """

    column: str
    test: str
    p: float
    differs: bool
    values: list[tuple[str, float, float]]


def compare_words(old: Sequence[str], new: Sequence[str]) -> list[WordShare]:
    """The words that differ most, those of the new texts first; none that chance could explain among so many."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.feature_selection import chi2

    try:
        vectorizer = CountVectorizer(binary=True, min_df=FEWEST)
        counts = vectorizer.fit_transform([*old, *new])
    except ValueError:  # no word is in five texts
        return []
    y = np.repeat([0, 1], [len(old), len(new)])
    _, p = chi2(counts, y)
    words = vectorizer.get_feature_names_out()
    shares = [np.asarray(counts[y == side].mean(axis=0)).ravel() for side in (0, 1)]
    found: list[WordShare] = []
    for sign in (1, -1):
        differ = np.flatnonzero((p * len(words) < LEVEL) & (sign * (shares[1] - shares[0]) > 0))
        most = differ[np.argsort(p[differ], kind="stable")][:WORDS]
        found += [WordShare(str(words[i]), float(shares[0][i]), float(shares[1][i])) for i in most]
    return found


def compare_columns(old: dict[str, list[str]], new: dict[str, list[str]]) -> list[ColumnShift]:
    """Those that both have, the most different first."""

    names = [name for name in old if name in new]
    found = [_compare_column(name, old[name], new[name], len(names)) for name in names]
    return sorted(found, key=lambda one: one.p)


def _compare_column(name: str, old: Sequence[str], new: Sequence[str], columns: int) -> ColumnShift:
    from scipy.stats import chi2_contingency, ks_2samp

    a, b = (as_numbers([value for value in side if value]) for side in (old, new))
    if a is not None and b is not None:
        p, parts = float(ks_2samp(a, b).pvalue), (0.25, 0.5, 0.75)
        values = [(f"{part:.0%}", float(np.quantile(a, part)), float(np.quantile(b, part))) for part in parts]
        return ColumnShift(name, "Kolmogorov-Smirnov", p, p * columns < LEVEL, values)
    counts = [Counter(old), Counter(new)]
    common = [value for value, _ in (counts[0] + counts[1]).most_common(VALUES)]
    rest = [sum(one.values()) - sum(one[value] for value in common) for one in counts]
    table = np.array([[*(one[value] for value in common), rest[i]] for i, one in enumerate(counts)])
    table = table[:, table.sum(axis=0) > 0]
    p = float(chi2_contingency(table).pvalue) if table.shape[1] > 1 else 1.0
    shares = [(value, counts[0][value] / len(old), counts[1][value] / len(new)) for value in common]
    shares.sort(key=lambda one: -abs(one[2] - one[1]))
    return ColumnShift(name, "chi-squared", p, p * columns < LEVEL, shares[:3])
