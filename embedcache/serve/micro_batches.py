"""Micro-batching: what many requests ask for at the same time is done together, by one thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """More waits already than may wait."""


@dataclass
class _Waiting(Generic[Job, Result]):
    job: Job
    cost: int
    future: Future[Result]


class Batcher(Generic[Job, Result]):
    """A queue of jobs and the thread that takes what has come meanwhile, up to a budget, as one batch.

    No batch waits to be filled: a job alone starts at once, and those that come meanwhile are the next batch. A batch
    that fails is tried again job by job, so that only the one at fault fails.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job]], Sequence[Result]],
        *,
        cost: Callable[[Job], int] = lambda job: 1,
        budget: int,
        most_waiting: int,
        tell: Callable[[int], None] = lambda jobs: None,
    ) -> None:
        """``work``: jobs to results, in their order. ``budget``: the cost of a batch (one job may cost more).

        ``most_waiting``: the cost of what may wait. ``tell`` is called with the number of jobs of each batch.
        """
        self._work, self._cost, self._budget, self._most, self._tell = work, cost, budget, most_waiting, tell
        self._waiting: deque[_Waiting[Job, Result]] = deque()
        self._cost_waiting = 0
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that have not started."""
        return len(self._waiting)

    async def do(self, job: Job) -> Result:
        """The job's result; a job that is cancelled while it waits is never started.

        Raises QueueFullError, and what the work raises.
        """
        return await asyncio.wrap_future(self._put(job))

    def _put(self, job: Job) -> Future[Result]:
        one = _Waiting[Job, Result](job, self._cost(job), Future())
        with self._changed:
            if self._closed or (self._waiting and self._cost_waiting + one.cost > self._most):
                raise QueueFullError
            self._waiting.append(one)
            self._cost_waiting += one.cost
            self._changed.notify()
        return one.future

    def close(self) -> None:
        """Finish what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._take():
            # False where the request has gone away.
            batch = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if batch:
                self._tell(len(batch))
                self._do(batch)

    def _take(self) -> list[_Waiting[Job, Result]]:
        """The next batch; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch: list[_Waiting[Job, Result]] = []
            cost = 0
            while self._waiting and (not batch or cost + self._waiting[0].cost <= self._budget):
                batch.append(self._waiting.popleft())
                cost += batch[-1].cost
            self._cost_waiting -= cost
            return batch

    def _do(self, batch: list[_Waiting[Job, Result]]) -> None:
        try:
            results = self._work([one.job for one in batch])
        except BaseException as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
                return
            for one in batch:
                self._do([one])
            return
        for one, result in zip(batch, results, strict=True):
            one.future.set_result(result)
