"""The map while the server runs: read, or computed by another process meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embedcache.cache import Cache, open_cache
from embedcache.common.progress import Tell
from embedcache.errors import EmbedcacheError
from embedcache.serve.projection import default_map_path, load_map, make_map, save_map

NICE = 10  # of the process that computes: questions come first


class LiveMap:
    """The points of a map: from the file beside the cache, else computed once and kept there.

    Attributes:
        status: "computing", "ready" or "failed". points: float32 [N, 2] once it is ready. problem: why it failed.
    """

    def __init__(self, cache: Cache, pooling: str, layer: int) -> None:
        self.cache, self.output = cache, (pooling, layer)
        self.status: Literal["computing", "ready", "failed"] = "computing"
        self.problem = ""
        self.points: np.ndarray | None = None
        self._process: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, tell: Tell) -> None:
        """Read it, or start to compute it. ``tell`` is called with a problem, from another thread."""
        path = default_map_path(self.cache.path)
        points = load_map(path, self.cache, *self.output)
        if points is not None:
            self._finish(points)
            return
        self._thread = threading.Thread(target=self._compute, args=(path, tell), name="map", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until it is ready, or has failed."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """A map that is not computed by now is given up."""
        self._closed = True
        if self._process is not None:
            self._process.terminate()
        self.wait()

    def _finish(self, points: np.ndarray) -> None:
        self.points, self.status = points, "ready"

    def _compute(self, path: Path, tell: Tell) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="embedcache-") as folder:
                made = Path(folder) / path.name
                self._run(made)
                points = load_map(made, self.cache, *self.output)
                if points is None and not self._closed:
                    raise EmbedcacheError(_problem(made) or "its process died without a message; was memory too short?")
            if points is None:
                return
            self._finish(points)
            try:
                save_map(path, points, self.cache, *self.output)
            except EmbedcacheError as error:  # it is shown all the same
                tell(f"{error}; it is computed again next time")
        except Exception as error:
            self.status, self.problem = "failed", str(error)
            tell(f"no map: {error}")

    def _run(self, made: Path) -> None:
        """Another process: it neither takes turns with this one's threads nor outlives it."""
        context = multiprocessing.get_context("spawn")
        arguments = (str(self.cache.path), *self.output, str(made))
        process = context.Process(target=_make, args=arguments, name="map", daemon=True)
        with _ctrl_c_blocked():
            process.start()
        self._process = process
        if self._closed:
            process.terminate()
        process.join()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """In this thread, and for good in the processes that it starts: Ctrl-C is the server's, which then ends them.

    What a process itself does about a signal comes too late: it may still be importing.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # it starts with the first process, and would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make(cache_path: str, pooling: str, layer: int, made: str) -> None:
    """In the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked
    if sys.platform != "win32":
        with suppress(OSError):
            os.nice(NICE)
    try:
        with open_cache(cache_path) as cache:
            save_map(made, make_map(cache, pooling, layer), cache, pooling, layer)
    except Exception as error:
        _problem_path(Path(made)).write_text(f"{error}" or type(error).__name__, encoding="utf-8")


def _problem_path(made: Path) -> Path:
    return made.with_suffix(".txt")


def _problem(made: Path) -> str:
    with suppress(OSError):
        return _problem_path(made).read_text(encoding="utf-8")
    return ""
