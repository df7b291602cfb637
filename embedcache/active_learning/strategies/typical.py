"""Rows that stand for many others, before there are heads."""

from __future__ import annotations

import numpy as np

from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence, Strategy

CANDIDATES = 5_000  # rows drawn by chance that are put into groups


class Typical(Strategy):
    """The row in the middle of each of as many groups as rows are wanted.

    After Hacohen et al., "Active Learning on a Budget: Opposite Strategies Suit High and Low Budgets" (2022): with next
    to no labels typical rows teach most, and rows on the border least.
    """

    name = "typical"
    what = "rows that stand for many others, for the first labels"

    def why_not(self, evidence: Evidence) -> str | None:
        return None if len(evidence.unlabelled) else "every row has a label"

    def choose(self, evidence: Evidence, count: int, taken: np.ndarray, rng: np.random.Generator) -> list[ChosenRow]:
        from sklearn.cluster import MiniBatchKMeans
        from threadpoolctl import threadpool_limits

        rows = evidence.unlabelled[~taken[evidence.unlabelled]]
        rows = rng.permutation(rows)[: max(CANDIDATES, 2 * count)]
        count = min(count, len(rows))
        if not count:
            return []
        x = evidence.snapshot.pool.similar(rows)
        with threadpool_limits(1):
            means = MiniBatchKMeans(
                count, n_init=1, batch_size=1024, max_iter=20, random_state=int(rng.integers(2**31))
            ).fit(x)
        group, distance = means.labels_, np.linalg.norm(x - means.cluster_centers_[means.labels_], axis=1)
        order = np.lexsort((distance, group))
        first = order[np.unique(group[order], return_index=True)[1]]  # the middle of each group that has rows
        sizes = np.bincount(group, minlength=count)
        first = first[np.argsort(-sizes[group[first]], kind="stable")]
        scale = len(evidence.unlabelled) / len(rows)
        return [
            ChosenRow(int(rows[i]), f"stands for about {max(1, round(sizes[group[i]] * scale)):,} rows like it")
            for i in first.tolist()
        ]


VARIANT = Typical()
