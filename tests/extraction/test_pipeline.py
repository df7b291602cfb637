"""Windows through several workers: order, bounds, lost workers, errors, and what is saved when it ends early."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from embedcache.cache.fill import Window
from embedcache.extraction.pipeline import IN_HAND, TRIES, Lost, Pipeline


def windows(n, texts=3):
    """n windows; every fifth has nothing to encode."""
    for start in range(n):
        new = np.arange(start * 10, start * 10 + (0 if start % 5 == 4 else texts))
        yield Window(start, start + 1, {}, new, np.zeros(len(new), bool))


class Worker:
    """Notes what it does; ``delay`` slows each window down, ``trouble`` may raise."""

    def __init__(self, delay=0.0, trouble=None):
        self.delay, self.trouble, self.prepared, self.computed = delay, trouble, [], []

    def prepare(self, window, tell):
        tell(0, window.new)
        self.prepared.append(window.start)
        return window.start * 2

    def compute(self, window, prepared, tell):
        assert prepared == window.start * 2
        if self.trouble:
            self.trouble(window)
        time.sleep(self.delay)
        tell(7, window.new)
        self.computed.append(window.start)
        return f"window {window.start}"


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def run(workers, n=23, finish=None, tell=None):
    finished, told = [], []

    def note(window, result):
        assert threading.current_thread() is threading.main_thread()
        if finish:
            finish(window)
        assert result == (f"window {window.start}" if len(window.new) else None)
        finished.append(window.start)

    def hear(tokens, rows):
        assert threading.current_thread() is threading.main_thread()
        told.append((tokens, rows.tolist()))
        if tell:
            tell(len(told))

    before = threading.active_count()
    try:
        Pipeline(windows(n), workers, note, hear).run()
    finally:
        assert threading.active_count() == before, "no thread is left behind"
        assert finished == list(range(len(finished))), "in order, each once"
    return finished, told


@pytest.mark.parametrize("delays", [[0.0], [0.001, 0.01], [0.005, 0.0, 0.002, 0.0]])
def test_every_window_once_and_in_order(delays):
    workers = [Worker(delay) for delay in delays]
    finished, told = run(workers)
    assert finished == list(range(23))
    encoded = [start for start in range(23) if start % 5 != 4]
    assert sorted(start for worker in workers for start in worker.computed) == encoded
    assert all(worker.computed == sorted(worker.computed) == worker.prepared for worker in workers)
    assert sorted(told) == [(7, [10 * start, 10 * start + 1, 10 * start + 2]) for start in encoded]


def test_the_next_windows_are_prepared_while_one_is_computed():
    seen = []

    def look(window):
        # Until it has as many in hand as it may, or all that there are.
        wait_until(lambda: len(worker.prepared) - len(worker.computed) >= IN_HAND or len(worker.prepared) == 19)
        seen.append(len(worker.prepared) - len(worker.computed))

    worker = Worker(trouble=look)
    run([worker])
    assert max(seen) == IN_HAND


def test_one_slow_worker_does_not_fill_the_memory():
    given, most, first_is_done = [], (IN_HAND + 1) * 2, threading.Event()

    def slow(window):
        if window.start == 0:  # until the other worker has nothing left to do
            (other,) = (worker for worker in workers if 0 not in worker.prepared)
            some = sum(len(window.new) > 0 for window in windows(most))
            wait_until(lambda: sum(len(worker.prepared) for worker in workers) == some)
            wait_until(lambda: other.computed == other.prepared)
            first_is_done.set()

    def count():
        for window in windows(200):
            assert window.start < most or first_is_done.is_set()
            given.append(window.start)
            yield window

    workers = [Worker(trouble=slow), Worker(trouble=slow)]
    Pipeline(count(), workers, lambda *_: None, lambda *_: None).run()
    assert given == list(range(200))


def test_a_lost_window_is_done_again():
    lost = []

    def trouble(window):
        if window.start in (0, 7, 8) and lost.count(window.start) < TRIES - 1:
            lost.append(window.start)
            raise Lost("gone")

    assert run([Worker(trouble=trouble), Worker(trouble=trouble)])[0] == list(range(23))
    assert len(lost) == 3 * (TRIES - 1)


def test_a_window_that_is_lost_too_often_ends_it():
    def trouble(window):
        if window.start == 11:
            raise Lost("gone") from ValueError("why")

    finished = []
    with pytest.raises(ValueError, match="why"):
        run([Worker(trouble=trouble)] * 2, finish=lambda window: finished.append(window.start))
    assert finished == list(range(len(finished))) and len(finished) <= 11  # as far as the others had come by then


@pytest.mark.parametrize("where", ["prepare", "compute"])
def test_an_error_in_a_worker_saves_what_is_done(where):
    worker = Worker(0.001)
    plain = getattr(worker, where)

    def fail(window, *more):
        if window.start == 12:  # the ten windows with texts before it are encoded by then
            wait_until(lambda: len(worker.computed) == 10)
            raise OSError("no more")
        return plain(window, *more)

    setattr(worker, where, fail)
    finished = []
    with pytest.raises(OSError, match="no more"):
        run([worker], finish=lambda window: finished.append(window.start))
    assert finished == list(range(12))


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_told_to_stop_it_saves_what_is_done(error):
    def tell(count):
        if count == 6:
            raise error

    finished, worker = [], Worker(0.01)
    with pytest.raises(error):
        run([worker], tell=tell, finish=lambda window: finished.append(window.start))
    assert finished[-1] >= worker.computed[-1] >= 5


def test_what_cannot_be_written_is_not_tried_again():
    tried = []

    def finish(window):
        tried.append(window.start)
        if window.start == 6:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run([Worker()], finish=finish)
    assert tried.count(6) == 1


def test_ctrl_c_while_writing_writes_that_window_whole():
    tried = []

    def finish(window):
        tried.append(window.start)
        if tried.count(6) == 1 and window.start == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([Worker(0.005)], finish=finish)
    assert tried.count(6) == 2
