"""Send windows of the file through several workers at once, tokenizing ahead of each encoder and writing after it.

1. Every worker has two threads. One prepares (tokenizes) window after window, the other computes their vectors.
2. The calling thread writes the finished windows in the order of the file, and reports progress.

So an encoder never waits for tokens or for the disk, and memory holds a few windows at most. Nothing here depends on
what a worker is: an encoder of this process, or one on another machine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np

from embedcache.cache.fill import Window

IN_HAND = 3  # windows that a worker holds: one is being computed, the others are prepared
TRIES = 4  # attempts at one window, if its worker dies each time

Tell = Callable[[int, np.ndarray], None]  # (number of tokens done, rows of their texts)


class Lost(Exception):  # noqa: N818 - news rather than an error
    """The worker died while it had this window, so another must do it. The message says what happened."""


class Stopped(BaseException):
    """Raised by ``tell`` in a worker when the pass has ended early."""


class Worker(Protocol):
    """What does the work. Its two methods are called from two threads, each with windows in order.

    Both must call ``tell`` often, if need be with 0 tokens: it raises ``Stopped`` once the pass has ended.
    """

    def prepare(self, window: Window, tell: Tell) -> Any:
        """Return what ``compute`` needs. May raise Lost."""

    def compute(self, window: Window, prepared: Any, tell: Tell) -> Any:
        """Return what ``finish`` needs. May raise Lost."""


class Pipeline:
    """Gives windows to workers and calls ``finish`` for each in order, and ``tell``, both in the calling thread only.

    A window with nothing to encode goes to no worker; it is finished with None.

    If the pass ends early (an error in a worker, in ``tell`` or in ``finish``, or Ctrl-C), the windows encoded so far
    are finished first, up to the first gap.
    """

    def __init__(
        self,
        windows: Iterator[Window],
        workers: Sequence[Worker],
        finish: Callable[[Window, Any], None],
        tell: Tell,
    ) -> None:
        self._windows, self._finish, self._tell = windows, finish, tell
        # Only the calling thread uses what follows; the workers' threads communicate through the queues.
        self._work: SimpleQueue[Window | None] = SimpleQueue()
        self._news: SimpleQueue[tuple[str, Any, Any]] = SimpleQueue()
        self._stop = threading.Event()
        self._given: deque[Window] = deque()  # given to the workers and not finished yet, in the order of the file
        self._done: dict[int, Any] = {}  # the results for some of these, by Window.start
        self._lost: dict[int, int] = {}  # how often a worker died with a window, by Window.start
        self._most = (IN_HAND + 1) * len(workers)  # of windows given and not finished: bounds the memory
        self._rooms = [threading.Semaphore(IN_HAND) for _ in workers]
        self._threads = []
        for worker, room in zip(workers, self._rooms, strict=True):
            ready: SimpleQueue[Any] = SimpleQueue()
            for loop in (self._prepare, self._compute):
                self._threads.append(threading.Thread(target=loop, args=(worker, room, ready), daemon=True))

    def run(self) -> None:
        """Process all windows; returns when every one is finished."""
        for thread in self._threads:
            thread.start()
        refused = False
        try:
            while self._give():
                if self._given[0].start in self._done:
                    refused = True
                    self._finish_first()
                    refused = False
                else:
                    self._hear(*self._news.get())
        except BaseException as error:
            self._end()
            if not refused or not isinstance(error, Exception):  # finish would fail again on the same window
                with suppress(Exception):
                    self._save()
            raise
        self._end()

    def _give(self) -> bool:
        """Give the workers windows up to the limit. Returns whether any window is unfinished."""
        while len(self._given) < self._most and (window := next(self._windows, None)) is not None:
            self._given.append(window)
            if len(window.texts):
                self._work.put(window)
            else:
                self._done[window.start] = None
        return bool(self._given)

    def _hear(self, kind: str, what: Any, value: Any) -> None:
        if kind == "tokens":
            self._tell(what, value)
        elif kind == "done":
            self._done[what.start] = value
        elif kind == "lost":
            self._lost[what.start] = self._lost.get(what.start, 0) + 1
            if self._lost[what.start] == TRIES:
                raise value.__cause__ or value
            self._work.put(what)
        else:
            raise value

    def _finish_first(self) -> None:
        window = self._given[0]
        self._finish(window, self._done[window.start])
        self._given.popleft()
        del self._done[window.start]

    def _end(self) -> None:
        """Stop the workers' threads at their next batch, and wait for them."""
        self._stop.set()
        for room in self._rooms:
            self._work.put(None)
            room.release()
        for thread in self._threads:
            thread.join()

    def _save(self) -> None:
        while not self._news.empty():
            kind, what, value = self._news.get()
            if kind == "done":
                self._done[what.start] = value
        while self._given and self._given[0].start in self._done:
            self._finish_first()

    def _prepare(self, worker: Worker, room: threading.Semaphore, ready: SimpleQueue[Any]) -> None:
        while True:
            room.acquire()
            window = self._work.get()
            if window is None or self._stop.is_set():
                break
            prepared = self._try(window, worker.prepare, window, self._told)
            if prepared is None:
                room.release()
            else:
                ready.put((window, prepared[0]))
        ready.put(None)

    def _compute(self, worker: Worker, room: threading.Semaphore, ready: SimpleQueue[Any]) -> None:
        while (item := ready.get()) is not None:
            window, prepared = item
            stopped = self._stop.is_set()
            done = None if stopped else self._try(window, worker.compute, window, prepared, self._told)
            if done is not None:
                self._news.put(("done", window, done[0]))
            room.release()

    def _try(self, window: Window, work: Callable[..., Any], *arguments: Any) -> tuple[Any] | None:
        """The result of ``work`` in a tuple; or None, after the calling thread was told of a failure."""
        try:
            return (work(*arguments),)
        except Lost as lost:
            self._news.put(("lost", window, lost))
        except Stopped:
            pass
        except BaseException as error:
            self._news.put(("failed", None, error))
        return None

    def _told(self, tokens: int, rows: np.ndarray) -> None:
        if self._stop.is_set():
            raise Stopped
        if tokens:
            self._news.put(("tokens", tokens, rows))
