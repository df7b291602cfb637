"""Which labels are likely wrong: audit's judgement, from heads that are trained anyway and neighbours found once.

audit.judge weighs the experts and audit.count says how likely each label is a wrong one. The two experts here cost next
to nothing after each retraining. The command ``audit`` asks a third, the words, which is slower.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from embedcache.active_learning.retrain import Retrained
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.audit.count import ErrorCount
from embedcache.audit.experts import NeighbourVotes
from embedcache.audit.judge import Mixture
from embedcache.audit.labels import judge
from embedcache.audit.neighbours import Nearest, nearest_rows
from embedcache.heads.kinds import kind_of
from embedcache.index import SearchIndex

NEIGHBOURS = 20
FEWEST = 50  # labelled rows


@dataclass(frozen=True)
class JudgedSnapshot:
    """wrong: float64 [N], how likely each label is wrong, NaN where none was judged; count: audit's estimate."""

    wrong: np.ndarray
    count: ErrorCount


class _Committee:
    """The retrained heads as one of audit's experts."""

    name = "heads"

    def __init__(self, retrained: Retrained) -> None:
        self._retrained = retrained

    def log_proba(self, rows: np.ndarray) -> np.ndarray:
        one = self._retrained
        return kind_of(one.kind).log_probabilities(one.outputs[rows] / np.float32(one.temperature))


def nearest_of(pool: Pool, rows: np.ndarray, k: int = NEIGHBOURS) -> Nearest:
    """The k other texts most like each of ``rows``, among them, as audit finds them; of other rows nothing is known.

    It compares every two of them: 13,000 rows take three seconds of a core, 30,000 a quarter of a minute.
    """
    among = np.zeros(len(pool.unit), bool)
    among[rows] = True
    first = np.arange(len(pool.unit))  # of each text, the first of ``rows``
    _, place, text = np.unique(pool.unit[rows], return_index=True, return_inverse=True)
    first[rows] = rows[place[text.reshape(-1)]]
    index = SearchIndex.from_vectors(pool.x, kind="exact")
    return nearest_rows(index, pool.x, first, among, min(k, max(1, len(place) - 1)))


def drawn(rows: np.ndarray, most: int, of: int, seed: int = 0) -> np.ndarray:
    """int64, ascending: at most so many of these rows, of ``of``; of more rows those with the first places by chance.

    So that those of other rows later are mostly the same.
    """
    if len(rows) <= most:
        return rows
    place = np.random.default_rng(seed).permutation(of)
    return np.sort(rows[np.argsort(place[rows])[:most]])


def judge_labels(snapshot: Snapshot, retrained: Retrained, nearest: Nearest) -> JudgedSnapshot | None:
    """Judge the label of every row that heads were trained on; None where there are too few of them.

    nearest: of the pool's rows, see ``nearest_of``; it may be found once and used for every later snapshot.
    """
    rows, y = retrained.learned, snapshot.y
    if not kind_of(snapshot.kind).exclusive or len(rows) < FEWEST:
        return None
    # Classes without a label are no class that a label could be meant for.
    used = np.unique(y[rows])
    renumber = np.full(len(snapshot.classes), -1, np.int32)
    renumber[used] = np.arange(len(used))
    known = np.full(len(y), -1, np.int32)
    known[rows] = renumber[y[rows]]
    heads = _Committee(_of_classes(retrained, used))
    votes = NeighbourVotes(nearest, known, len(used), snapshot.pool.group)
    mixture = Mixture([heads, votes], known, rows, len(used))
    judged = judge(mixture, known, rows, [str(snapshot.classes[c]) for c in used])
    wrong = np.full(len(y), np.nan)
    wrong[rows] = judged.wrong
    return JudgedSnapshot(wrong, judged.count)


def _of_classes(retrained: Retrained, used: np.ndarray) -> Retrained:
    return replace(retrained, outputs=retrained.outputs[:, used])
