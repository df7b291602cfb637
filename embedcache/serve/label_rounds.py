"""While people label: heads trained again, labels judged and rows ranked anew, round after round, by one thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from embedcache.active_learning.judgement import JudgedSnapshot, drawn, judge_labels, nearest_of
from embedcache.active_learning.queue import MIXED, Queue, evidence_of, make_queue
from embedcache.active_learning.retrain import MeasuredScore, Retrained, retrain, why_not
from embedcache.active_learning.snapshot import Snapshot
from embedcache.active_learning.strategies.strategy import Evidence
from embedcache.audit.neighbours import Nearest
from embedcache.common.machine import usable_cores
from embedcache.errors import EmbedcacheError
from embedcache.runs.intervals import Difference

QUEUED = 400  # rows that a round ranks
PAUSE = 0.3  # seconds between two rounds: requests come first
LEAST_OFTEN = 20  # seconds after which labels are judged although new ones are waiting
JUDGED = 30_000  # labels that are judged, drawn where there are more: their neighbours take a quarter of a minute, once
GROWN = 1.2  # times as many rows to judge as neighbours are known of, and these are sought again


@dataclass(frozen=True)
class Round:
    """What is known after a training.

    Attributes:
        labels: rows that heads learned from. retrained: None as long as there are too few labels; ``problem`` says so.
        queues: by name, "mixed" at first; others as they are asked for.
        gain: over the first training, on the same test rows.
    """

    number: int
    labels: int
    snapshot: Snapshot
    evidence: Evidence
    retrained: Retrained | None
    judged: JudgedSnapshot | None
    gain: Difference | None
    seconds: float
    problem: str = ""
    queues: dict[str, Queue] = field(default_factory=dict)

    def queue(self, name: str) -> Queue:
        """The rows of a queue. Raises EmbedcacheError: there is no such queue, or it has no rows."""
        if name not in self.queues:
            self.queues[name] = make_queue(self.evidence, QUEUED, name, seed=self.number)
        return self.queues[name]


class Rounds:
    """The thread. ``latest`` is the last round that is finished; None before the first.

    Attributes:
        first: the first training, which later ones are compared with. curve: of each one (labels given, score over all
            labels).
        problem: why the last round failed; "" where it did not.
    """

    def __init__(
        self,
        take: Callable[[], tuple[Snapshot, np.ndarray]],
        start: Callable[[], np.ndarray | None] = lambda: None,
    ) -> None:
        """take: the snapshot of the moment, and which rows were skipped. start: probabilities to begin with, if any."""
        self._take, self._make_start = take, start
        self.latest: Round | None = None
        self.first: Retrained | None = None
        self.curve: list[tuple[int, MeasuredScore]] = []
        self.problem = ""
        self._start: np.ndarray | None = None
        self._nearest: Nearest | None = None
        self._known = np.empty(0, np.int64)  # the rows of which neighbours are known
        self._judged: JudgedSnapshot | None = None  # the last judgement, which later rounds go by
        self._judged_at = 0.0
        self._all_labelled: bool | None = None  # when people began
        self._changed = threading.Event()
        self._changed.set()
        self._ready = threading.Event()
        self._closed = False
        self._working = False
        self._thread = threading.Thread(target=self._run, name="label rounds", daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """There are new labels."""
        self._changed.set()

    def wait(self, seconds: float) -> Round | None:
        """The latest round; waits so long for the first one."""
        self._ready.wait(seconds)
        return self.latest

    @property
    def busy(self) -> bool:
        """Whether labels are there that no finished round knows."""
        return self._working or self._changed.is_set()

    def close(self) -> None:
        """After the round in progress."""
        self._closed = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        self._start = self._make_start()
        while True:
            self._changed.wait()
            if self._closed:
                return
            self._working = True
            self._changed.clear()
            try:
                self.latest = made = self._round()
                self.problem = ""
                self._ready.set()
                if made.retrained is not None and self._may_judge():
                    self.latest = self._with_judgement(made, made.retrained)
            except EmbedcacheError as error:
                self.problem = str(error)
            except Exception as error:  # a fault of ours: people can label on, and are told
                self.problem = f"training failed: {type(error).__name__}"
            self._working = False
            self._ready.set()
            time.sleep(PAUSE)

    def _round(self) -> Round:
        begun, first = time.perf_counter(), self.latest is None
        snapshot, skipped = self._take()
        problem, retrained, gain = why_not(snapshot) or "", None, None
        if first:  # rows can be shown before heads are trained
            self._changed.set()
            problem = problem or "heads are being trained for the first time"
        if not problem:
            retrained = retrain(snapshot, threads=max(1, usable_cores() - 1))
            self.first = self.first or retrained
            gain = retrained.gain_over(self.first, snapshot) if retrained is not self.first else None
            given = self._given(snapshot)
            if given and (not self.curve or self.curve[-1][0] != given):
                self.curve.append((given, retrained.validation))
        learned, seconds = len(snapshot.learned), time.perf_counter() - begun
        evidence = self._evidence(snapshot, retrained, skipped)
        return self._ranked(
            Round(self._next, learned, snapshot, evidence, retrained, self._judged, gain, seconds, problem)
        )

    @property
    def _next(self) -> int:
        return 0 if self.latest is None else self.latest.number + 1

    def _given(self, snapshot: Snapshot) -> int:
        """Labels, as the curve counts them: where all rows had one from the start, those that people gave."""
        if self._all_labelled is None:
            self._all_labelled = not snapshot.unlabelled.any()
        return int(snapshot.checked.sum()) if self._all_labelled else len(snapshot.learned)

    def _evidence(self, snapshot: Snapshot, retrained: Retrained | None, skipped: np.ndarray) -> Evidence:
        wrong = None if self._judged is None or retrained is None else self._judged.wrong
        return evidence_of(snapshot, retrained, start=self._start, wrong=wrong, skipped=skipped)

    def _ranked(self, made: Round) -> Round:
        try:
            made.queue(MIXED)
        except EmbedcacheError as error:  # no rows are left
            made.queues[MIXED] = Queue([], [str(error)])
        return made

    def _may_judge(self) -> bool:
        """Judging takes longer than training: it waits until nobody labels, but not for ever."""
        return not self._changed.is_set() or time.monotonic() > self._judged_at + LEAST_OFTEN

    def _with_judgement(self, made: Round, retrained: Retrained) -> Round:
        """The same round with labels that are judged anew, and ranked by that."""
        self._judged_at = time.monotonic()
        some = drawn(retrained.learned, JUDGED, len(made.snapshot.y))
        among = np.flatnonzero(made.snapshot.pool.usable)
        if len(among) > JUDGED:
            among = some
        if self._nearest is None or len(among) > GROWN * len(self._known):
            self._nearest, self._known = nearest_of(made.snapshot.pool, among), among
        judged = judge_labels(made.snapshot, replace(retrained, learned=some), self._nearest)
        if judged is None:
            return made
        self._judged, self._judged_at = judged, time.monotonic()
        evidence = self._evidence(made.snapshot, retrained, made.evidence.skipped)
        return self._ranked(replace(made, number=made.number + 1, judged=judged, evidence=evidence, queues={}))
