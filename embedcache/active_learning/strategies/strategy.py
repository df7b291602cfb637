"""What every strategy is: a way to choose rows for people, and the reason that is said with each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np

from embedcache.active_learning.snapshot import Snapshot
from embedcache.common.label_names import visible
from embedcache.heads.kinds import kind_of


class ChosenRow(NamedTuple):
    """A row, and why it is shown, in words."""

    row: int
    reason: str


@dataclass(frozen=True)
class Evidence:
    """What strategies choose by.

    Attributes:
        snapshot: the rows and their labels.
        skipped: bool [N], rows that are not to be shown, whatever speaks for them.
        proba: float32 [N, C], calibrated probabilities, of labelled rows out of sample; of a regression its values.
            None before anything can be said of the rows.
        spread: float32 [N], how unsure a regression's values are; else None.
        wrong: float64 [N], how likely each row's label is wrong, NaN where none was judged; None where none was.
    """

    snapshot: Snapshot
    skipped: np.ndarray
    proba: np.ndarray | None = None
    spread: np.ndarray | None = None
    wrong: np.ndarray | None = None

    @cached_property
    def shown(self) -> np.ndarray:
        """bool [N]: rows that may be shown at all, one of each unit."""
        pool, checked = self.snapshot.pool, self.snapshot.checked
        free = pool.usable & ~checked & ~self.skipped
        done = np.zeros(int(pool.unit.max()) + 1, bool) if len(pool.unit) else np.zeros(0, bool)
        done[pool.unit[checked | self.skipped]] = True
        rows = np.flatnonzero(free & ~done[pool.unit])
        first = rows[np.unique(pool.unit[rows], return_index=True)[1]]
        shown = np.zeros(len(free), bool)
        shown[first] = True
        return shown

    @cached_property
    def unlabelled(self) -> np.ndarray:
        """int64 [n]: rows without a label that heads would learn from, if people labelled them."""
        return np.flatnonzero(self.shown & self.snapshot.unlabelled & ~self.snapshot.pool.test)

    @cached_property
    def uncertainty(self) -> np.ndarray:
        """float32 [n], of the unlabelled rows, the higher the less sure.

        Classes: 1 less the margin between the two likeliest. Labels: of the least sure one. Numbers: the spread.
        """
        rows, kind = self.unlabelled, kind_of(self.snapshot.kind)
        if not kind.has_classes:
            assert self.spread is not None
            return self.spread[rows]
        assert self.proba is not None
        p = self.proba[rows]
        if kind.has_lists:
            return np.asarray(1 - np.abs(2 * p - 1).min(axis=1))
        if p.shape[1] < 2:
            return np.zeros(len(p), np.float32)
        two = np.partition(p, -2, axis=1)[:, -2:]
        return np.asarray(1 - (two[:, 1] - two[:, 0]))

    def likeliest(self, row: int, count: int = 2) -> str:
        """The likeliest classes of a row with their probabilities, in words; of a regression its value."""
        assert self.proba is not None
        p = self.proba[row]
        if not kind_of(self.snapshot.kind).has_classes:
            return f"about {p[0]:.3g}"
        order = np.argsort(-p, kind="stable")[:count]
        return ", ".join(f"{visible(str(self.snapshot.classes[c]))} {p[c]:.0%}" for c in order)


class Strategy(ABC):
    """A way to choose rows. Registered by name in strategies/__init__.py."""

    name: ClassVar[str]
    what: ClassVar[str]  # for the help: which rows

    @abstractmethod
    def why_not(self, evidence: Evidence) -> str | None:
        """Why it can choose none, in words; None where it can."""

    @abstractmethod
    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        """So many rows, or fewer where there are not so many, the most useful first; none that is ``taken``, bool [N].

        Called only where ``why_not`` says nothing.
        """


def spread_out(directions: np.ndarray, score: np.ndarray, groups: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [n], an order of rows: by score, but in turns from groups of like rows.

    directions: float32 [n, D] at unit length; score: [n]. Groups are k-means', of a sample.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    n = len(score)
    groups = min(groups, n)
    if groups < 2:
        return np.argsort(-score, kind="stable")
    sample = rng.permutation(n)[: max(1000, 20 * groups)]
    with threadpool_limits(1):  # so few rows that threads wait for each other
        means = KMeans(groups, n_init=1, max_iter=10, random_state=int(rng.integers(2**31))).fit(directions[sample])
        group = means.predict(directions)
    order = np.argsort(-score, kind="stable")
    turn = np.empty(n, np.int64)  # the place of each row within its group
    by_group = order[np.argsort(group[order], kind="stable")]
    sizes = np.bincount(group, minlength=groups)
    turn[by_group] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.lexsort((-score, turn))
