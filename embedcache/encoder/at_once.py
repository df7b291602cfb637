"""Several batches at once: on a CPU each on a core of its own, which loses no time to dividing every product."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

from embedcache.common.machine import usable_cores


def cpu_threads() -> int:
    """The number of batches to compute at once: the usable cores, or fewer if torch or OMP_NUM_THREADS say so."""
    usable = usable_cores()
    if torch := sys.modules.get("torch"):
        return min(usable, int(torch.get_num_threads()))
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return min(usable, int(asked)) if asked.isdecimal() and int(asked) else usable


class _TorchThreads:
    """Sets torch to one thread in each thread of a pool, and back when the last pool has ended.

    torch keeps the number for each thread, but MKL's, which it sets too, and that of threads to come hold for the
    process. So it is read before the first pool begins, not within another one's time.
    """

    def __init__(self) -> None:
        self._lock, self._pools, self._before = threading.Lock(), 0, 1

    @contextmanager
    def one_each(self, torch: Any) -> Iterator[Callable[[], None]]:
        """What a thread calls as it begins."""
        with self._lock:
            if self._pools == 0:
                self._before = torch.get_num_threads()
            self._pools += 1
        try:
            yield lambda: torch.set_num_threads(1)
        finally:
            with self._lock:
                self._pools -= 1
                if self._pools == 0:
                    torch.set_num_threads(self._before)


_TORCH = _TorchThreads()


@contextmanager
def mapper(threads: int, by_torch: bool = False) -> Iterator[Callable[..., Any]]:
    """A ``map`` over that many threads, results in order. Calls not yet started are dropped on an error or Ctrl-C.

    Args:
        threads: 1: the calls are made one after another, in this thread.
        by_torch: whether torch computes them on a CPU. Of several threads each then has one core.
    """
    if threads == 1:
        yield map
        return
    with _TORCH.one_each(sys.modules["torch"]) if by_torch else nullcontext() as begin:
        pool = ThreadPoolExecutor(threads, initializer=begin)
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)
