"""People labelling one column of the served cache: which row each sees next, what they said, how far they are."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.active_learning.estimates import Estimates, estimates_of
from embedcache.active_learning.queue import MIXED, QUEUES, QueuedRow, guess_of
from embedcache.active_learning.snapshot import Label, Snapshot
from embedcache.errors import EmbedcacheError
from embedcache.heads.kinds import kind_of
from embedcache.labelling import LabelEntry, LabelJournal
from embedcache.serve.label_arrays import LabelArrays
from embedcache.serve.label_rounds import Round, Rounds

LEASE_SECONDS = 180  # for so long a row that one person was given is not given to another
FIRST_SECONDS = 20  # that the first request waits for the first ranking
AGAIN = 12  # one row of so many was labelled by somebody else: for the agreement of people
AGAIN_AMONG = 500  # of the last labels
AGAIN_QUEUE = "second"


@dataclass(frozen=True)
class GivenLabel:
    """What a person says of a row; see LabelEntry. new: whether a name that is no class yet may become one."""

    id: str
    row: int
    action: str
    label: Label = None
    who: str = ""
    queue: str = ""
    comment: str = ""
    undoes: str | None = None
    new: bool = False


@dataclass(frozen=True)
class ShownRow:
    """A row to label. label: what it has now, hidden where another person's label must not lead."""

    row: int
    text: str
    id: str | None
    queue: str
    reason: str
    guess: Label
    probability: float | None
    label: Label
    comments: list[dict[str, str]]


class LabelSession:
    """One column being labelled, by any number of people and threads.

    Attributes:
        arrays: rows and labels. journal: where labels go. rounds: the training in the background.
    """

    def __init__(
        self,
        arrays: LabelArrays,
        journal: LabelJournal,
        start: Callable[[], np.ndarray | None] = lambda: None,
        tell_labels: Callable[[], None] = lambda: None,
    ) -> None:
        """start: probabilities to begin with, see Rounds. tell_labels: called after labels came, once a round."""
        self.arrays, self.journal, self._tell = arrays, journal, tell_labels
        self._lock, self._telling = threading.RLock(), threading.Lock()
        self._new = False  # whether labels came that nobody was told of
        self._read = 0  # number of the last entry that was taken in
        self._leases: dict[int, tuple[str, float]] = {}
        self._given: dict[str, int] = defaultdict(int)  # person -> rows given
        self._labels: list[str] = []  # content hashes of labels, the last ones last
        self._progress: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.rounds = Rounds(self._take, start)
        self._sync()

    def begin(self) -> None:
        """Start to train and rank."""
        self.rounds.begin()

    def close(self) -> None:
        self.rounds.close()

    def _sync(self) -> None:
        """Take in what is new in the journal; other processes may write it, too."""
        with self._lock:
            entries = self.journal.read(after=self._read)
            if not entries:
                return
            self._read = entries[-1].number
            self.arrays.add(entries)
            for entry in entries:
                if entry.column == self.arrays.column and entry.action == "label":
                    self._labels.append(entry.row_hash)
            self._new = True
            self.rounds.wake()

    def _take(self) -> tuple[Snapshot, np.ndarray]:
        """For a round. Others are told of the new labels once a round: that takes longer than a label may."""
        self.tell_labels()
        with self._lock:
            return self.arrays.snapshot(), self.arrays.skipped.copy()

    def tell_labels(self) -> None:
        """Others, such as searches and the map, are told of the labels that they do not know yet."""
        self._sync()
        with self._telling:
            if self._new:
                self._new = False
                self._tell()

    # ---- what to look at ----

    def next(
        self, who: str, count: int, queue: str = MIXED, held: Sequence[int] = (), among: Sequence[int] | None = None
    ) -> tuple[list[ShownRow], list[str]]:
        """So many rows for a person, fewer where there are not so many, and notes on what cannot be had.

        held: rows that the person has already. among: these rows alone, in their order, whatever their queue.

        Raises:
            EmbedcacheError: there is no such queue, or a row that the cache does not have.
        """
        if queue not in QUEUES:
            raise EmbedcacheError(f"no such queue: choose from {', '.join(QUEUES)}")
        latest = self.rounds.wait(FIRST_SECONDS)
        if latest is None:
            raise EmbedcacheError(self.rounds.problem or "rows are being ranked: try again in a moment")
        self._sync()
        with self._lock:
            if among is not None:
                return self._chosen(among, latest, count, held), []
            now = time.monotonic()
            self._leases = {row: one for row, one in self._leases.items() if one[1] > now}
            ranked = latest.queue(queue)
            taken, found = set(held), []
            for one in itertools.islice(self._free(ranked.rows, who, taken, latest.snapshot.checked), count):
                taken.add(one.row)
                self._given[who] += 1
                if queue == MIXED and not self._given[who] % AGAIN and (other := self._by_others(who, taken)):
                    taken.add(other.row)
                    found.append(other)
                found.append(one)
            for one in found:
                self._leases[one.row] = who, now + LEASE_SECONDS
            return [self._shown(one, latest) for one in found], ranked.notes

    def _free(self, rows: Sequence[QueuedRow], who: str, taken: set[int], checked: np.ndarray) -> Iterator[QueuedRow]:
        """Those that nobody has labelled or skipped since, and that nobody else is looking at.

        checked: bool [N], rows that were labelled when the queue was ranked: they may be in it for a second look.
        """
        arrays = self.arrays
        for one in rows:
            row, lease = one.row, self._leases.get(one.row)
            since = arrays.settled[row] or arrays.skipped[row] or (arrays.checked[row] and not checked[row])
            if not since and row not in taken and (lease is None or lease[0] == who):
                yield one

    def _by_others(self, who: str, taken: set[int]) -> QueuedRow | None:
        """One of the last rows that others have labelled and this person has not seen."""
        overlay, column = self.arrays.overlay, self.arrays.column
        for key in self._labels[: -AGAIN_AMONG - 1 : -1]:
            given = overlay.given(column, key)
            if given is None or who in given.by or who in overlay.skipped(column).get(key, ()):
                continue
            rows = self.arrays.rows_of(key)
            if len(rows) and int(rows[0]) not in taken:
                return QueuedRow(int(rows[0]), AGAIN_QUEUE, "labelled by somebody else, too: do you agree?", None, None)
        return None

    def _chosen(self, rows: Sequence[int], latest: Round, count: int, held: Sequence[int]) -> list[ShownRow]:
        self._check_rows(rows)
        first = list(dict.fromkeys(row for row in rows if row not in held))[:count]
        return [self._shown(QueuedRow(row, "chosen", "you chose it", None, None), latest) for row in first]

    def _shown(self, one: QueuedRow, latest: Round) -> ShownRow:
        arrays, row = self.arrays, one.row
        guess, probability = guess_of(latest.evidence, row)
        history = arrays.overlay.history(arrays.column, arrays.key_of(row))
        return ShownRow(
            row=row,
            text=arrays.cache.texts[row],
            id=None if arrays.cache.ids is None else arrays.cache.ids[row],
            queue=one.queue,
            reason=one.reason,
            guess=guess,
            probability=probability,
            label=None if one.queue == AGAIN_QUEUE else arrays.label_of(row),
            comments=[{"who": entry.who, "comment": entry.comment} for entry in history if entry.comment],
        )

    # ---- what people say ----

    def give(self, given: Sequence[GivenLabel]) -> list[LabelEntry]:
        """Write what a person said; it is on the disk when this returns. What has an id that is there is not repeated.

        Raises:
            EmbedcacheError: a row or an undone entry that is not there; a label of another kind, or a name that is no
                class and not said to be new; a journal that cannot be written. Then nothing is written.
        """
        with self._lock:
            self._sync()
            self._check_rows([one.row for one in given])
            for one in given:
                self._check_label(one)
            entries = self.journal.append([self._entry(one) for one in given])
            self._sync()
            for one in given:
                self._leases.pop(one.row, None)
            return entries

    def _entry(self, one: GivenLabel) -> LabelEntry:
        label = tuple(one.label) if isinstance(one.label, list) else one.label
        before = self.arrays.label_of(one.row)
        return LabelEntry(
            row_hash=self.arrays.key_of(one.row),
            column=self.arrays.column,
            action=one.action,  # type: ignore[arg-type]
            after=label,
            before=tuple(before) if isinstance(before, list) else before,
            who=one.who,
            queue=one.queue,
            comment=one.comment,
            undoes=one.undoes,
            id=one.id,
        )

    def _check_rows(self, rows: Sequence[int]) -> None:
        for row in rows:
            if row >= self.arrays.cache.rows:
                raise EmbedcacheError(f"no row {row}: the cache has {self.arrays.cache.rows:,} rows, counted from 0")

    def _check_label(self, one: GivenLabel) -> None:
        if one.action != "label":
            if one.label is not None:
                raise EmbedcacheError(f"{one.action} takes no label")
            return
        about = kind_of(self.arrays.kind)
        names = [one.label] if isinstance(one.label, str) else one.label if isinstance(one.label, list) else []
        unknown = [name for name in names if name not in self.arrays.classes]
        if unknown and about.has_classes and not one.new:
            raise EmbedcacheError('the label names no class of the column: say "new": true to make it one')
        if not about.has_classes or one.label is None or not unknown:
            self.arrays.coded(one.label)
        elif isinstance(one.label, list) == about.exclusive:
            raise EmbedcacheError(
                f"column {self.arrays.column!r} holds {'one label a row' if about.exclusive else 'lists'}"
            )

    # ---- how far it is ----

    def state(self) -> dict[str, Any]:
        """What is labelled, the classes with their rows, and the people with the rows that they labelled."""
        self._sync()
        with self._lock:
            arrays = self.arrays
            return {
                "column": arrays.column,
                "kind": arrays.kind,
                "classes": list(arrays.classes) if kind_of(arrays.kind).has_classes else [],
                "counts": arrays.counts(),
                "rows": len(arrays.y),
                "labelled": int(arrays.labelled.sum()),
                "checked": int(arrays.checked.sum()),
                "people": dict(arrays.overlay.people),
                "journal": self.journal.path.name,
                "queues": list(QUEUES),
            }

    def progress(self, who: str = "") -> dict[str, Any]:
        """Scores, estimates and advice; see ProgressAnswer."""
        self._sync()
        latest, rounds = self.rounds.latest, self.rounds
        key = (self._read, None if latest is None else latest.number, rounds.busy, rounds.problem, who)
        with self._lock:
            if self._progress is None or self._progress[0] != key:
                self._progress = key, self._measure(latest, who)
            return self._progress[1]

    def _measure(self, latest: Round | None, who: str) -> dict[str, Any]:
        first, retrained = self.rounds.first, None if latest is None else latest.retrained
        estimates = self._estimates(latest, who)
        return {
            "training": self.rounds.busy,
            "problem": self.rounds.problem or (latest.problem if latest is not None else "rows are being ranked"),
            "round": -1 if latest is None else latest.number,
            "seconds": None if latest is None else latest.seconds,
            "learned": 0 if latest is None else latest.labels,
            "validation": _score(retrained and retrained.validation),
            "chance": _score(retrained and retrained.chance),
            "before": _score(first and first.test),
            "after": _score(retrained and retrained.test),
            "gain": None if latest is None or latest.gain is None else latest.gain.to_dict(),
            "curve": [{"labels": n, "value": one.value, "interval": one.interval} for n, one in self.rounds.curve],
            "estimates": estimates.to_dict(),
            "disagreements": len(self.arrays.overlay.disagreements(self.arrays.column)),
        }

    def _estimates(self, latest: Round | None, who: str) -> Estimates:
        arrays, labels = self.arrays, self.arrays.overlay.labels(self.arrays.column)
        texts = [given for key, given in labels.items() if arrays.has(key)]
        unchecked = int((arrays.labelled & ~arrays.checked & arrays.pool.usable).sum())
        return estimates_of(texts, unchecked, self.rounds.curve, None if latest is None else latest.judged, who)


def _score(score: Any) -> dict[str, Any] | None:
    return None if score is None else score.to_dict()
