"""The rows that people should look at next, each with the reason why it is shown and the model's guess."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.active_learning.retrain import Retrained
from embedcache.active_learning.snapshot import Snapshot
from embedcache.active_learning.strategies import STRATEGIES
from embedcache.active_learning.strategies.strategy import ChosenRow, Evidence
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of

MIXED = "mixed"
# The shares of the default queue. What a strategy cannot give, the others give in proportion. Chosen by hand; see
# docs/active_learning.md for what they reach.
SHARES = {"uncertain": 0.5, "errors": 0.2, "rare": 0.1, "unlike": 0.1, "random": 0.1}
FIRST_SHARES = {"typical": 0.9, "random": 0.1}  # before there are heads
QUEUES = (MIXED, *STRATEGIES)


@dataclass(frozen=True)
class QueuedRow:
    """A row to look at.

    Attributes:
        row: its number in the cache.
        queue: the strategy that chose it; the journal keeps it. reason: why, in words.
        guess: a class, a list of labels or a number, as the journal has labels; None before there are heads.
        probability: how probable it is that the guess is right; None without a guess, or for a number.
    """

    row: int
    queue: str
    reason: str
    guess: str | list[str] | float | None
    probability: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return dict(vars(self))


@dataclass(frozen=True)
class Queue:
    """Rows, the most useful first. ``notes``: what was asked for and cannot be had, in words."""

    rows: list[QueuedRow]
    notes: list[str]


def evidence_of(
    snapshot: Snapshot,
    retrained: Retrained | None = None,
    *,
    start: np.ndarray | None = None,
    wrong: np.ndarray | None = None,
    skipped: np.ndarray | None = None,
) -> Evidence:
    """What strategies choose by.

    Args:
        snapshot: The labels of the moment.
        retrained: The heads trained on them, or on a few labels fewer.
        start: Probabilities float [N, C] of the snapshot's classes as long as there are no heads, such as zero-shot's.
        wrong: float64 [N], how likely each label is wrong, NaN where none was judged: judge_labels gives it.
        skipped: bool [N], rows that people did not want to decide.
    """
    proba, spread = start, None
    if retrained is not None:  # classes may have been added, and others renumbered, since
        has_classes = kind_of(retrained.kind).has_classes
        proba = retrained.proba_of(snapshot.classes) if has_classes else retrained.outputs
        spread = retrained.spread
    return Evidence(snapshot, np.zeros(len(snapshot.y), bool) if skipped is None else skipped, proba, spread, wrong)


def make_queue(evidence: Evidence, count: int = 50, queue: str = MIXED, seed: int = 0) -> Queue:
    """So many rows to look at, fewer where there are not so many.

    Args:
        evidence: See ``evidence_of``.
        count: How many rows.
        queue: One strategy, or "mixed": all of them in fixed shares (SHARES; FIRST_SHARES before there are heads), in
            turns, so that any first part of the queue has about these shares too.
        seed: Of what is drawn by chance.

    Raises:
        EmbedcacheError: There is no such queue, or it has no rows to give; the line says why.
    """
    if queue not in QUEUES:
        raise EmbedcacheError(f"--queue {queue}: use {', '.join(QUEUES[:-1])} or {QUEUES[-1]}")
    if count < 1:
        raise EmbedcacheError(f"{count} rows: ask for 1 or more")
    rng = np.random.default_rng(seed)
    shares = {queue: 1.0}
    if queue == MIXED:
        shares = FIRST_SHARES if evidence.proba is None else SHARES
    reasons = {name: STRATEGIES[name].why_not(evidence) for name in shares}
    can = {name: share for name, share in shares.items() if reasons[name] is None}
    if not can:
        raise EmbedcacheError(f"no rows to show ({queue}): {next(filter(None, reasons.values()))}")
    chosen = dict(_chosen(evidence, count, can, rng))
    rows = [_queued(evidence, name, one) for name, one in _in_turns(chosen, can)][:count]
    return Queue(rows, [f"{name}: {why}" for name, why in reasons.items() if why is not None])


def _chosen(
    evidence: Evidence, count: int, shares: Mapping[str, float], rng: np.random.Generator
) -> Iterator[tuple[str, list[ChosenRow]]]:
    """Each strategy's rows; none is chosen twice. What one cannot give is asked of those after it."""
    taken, left, pool = np.zeros(len(evidence.shown), bool), count, evidence.snapshot.pool
    even = -(-count // max(1, len(np.unique(pool.group[evidence.shown]))))
    names = list(shares)
    # Those that may run out come first, so that the others make up for them; chance comes last and can always give.
    names.sort(key=lambda name: ("errors", "rare", "unlike", "typical", "uncertain", "random").index(name))
    for place, name in enumerate(names):
        rest = sum(shares[other] for other in names[place:])
        wanted = min(left, max(1, round(left * shares[name] / rest)))
        rows = _by_groups(evidence, name, wanted, taken, even, rng) if wanted else []
        left -= len(rows)
        yield name, rows


def _by_groups(
    evidence: Evidence, name: str, count: int, taken: np.ndarray, even: int, rng: np.random.Generator
) -> list[ChosenRow]:
    """The rows of a strategy, which are ``taken`` from then on, bool [N].

    No group has more than its ``even`` share of the queue, unless the others have no more to give.
    """
    pool, found = evidence.snapshot.pool, list[ChosenRow]()
    given = Counter(pool.group[taken].tolist())
    while len(found) < count:
        full = np.isin(pool.group, [group for group, rows in given.items() if rows >= even])
        wanted = count - len(found)
        asked = STRATEGIES[name].choose(evidence, wanted, taken | full, rng)
        if len(asked) < wanted and not (full & pool.usable & ~taken).any():
            wanted = 0  # the last
        elif not asked:
            even *= 2
        for one in asked:
            if given[group := int(pool.group[one.row])] < even:
                given[group] += 1
                taken[one.row] = True
                found.append(one)
        if not wanted:
            break
    return found


def _in_turns(chosen: Mapping[str, list[ChosenRow]], shares: Mapping[str, float]) -> Iterator[tuple[str, ChosenRow]]:
    """All rows, each strategy's spread evenly over the queue in the order that it gave them."""
    places = [
        ((turn + 0.5) / len(rows), -shares[name], name, one)
        for name, rows in chosen.items()
        for turn, one in enumerate(rows)
    ]
    for _, _, name, one in sorted(places, key=lambda place: place[:3]):
        yield name, one


def _queued(evidence: Evidence, queue: str, one: ChosenRow) -> QueuedRow:
    guess, probability = guess_of(evidence, one.row)
    return QueuedRow(one.row, queue, one.reason, guess, probability)


def guess_of(evidence: Evidence, row: int) -> tuple[str | list[str] | float | None, float | None]:
    """What the heads say of a row, and how probable it is that this is right."""
    if evidence.proba is None:
        return None, None
    p, kind, classes = evidence.proba[row : row + 1], kind_of(evidence.snapshot.kind), evidence.snapshot.classes
    decided = kind.decide_by_probability(p)
    if not kind.has_classes:
        return float(p[0, 0]), None
    probability = float(kind.confidence(p, decided)[0])
    if kind.exclusive:
        return str(classes[int(decided[0])]), probability
    return [str(name) for name, there in zip(classes, decided[0], strict=True) if there], probability
