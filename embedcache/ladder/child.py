"""A step in a process of its own, so that its memory is its own: a line of JSON in, lines of JSON out.

Standard input that ends means that the parent is gone, however it ended: then the step is stopped as by Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from embedcache.common import guard
from embedcache.common.machine import cap_threads
from embedcache.errors import EmbedcacheError

EVERY = 0.2  # seconds between two lines of progress


def work(task: dict[str, Any], progress: Any, tell: Any) -> dict[str, Any]:
    """Do the task; launch.py has the kinds. Raises what the step raises."""
    from embedcache.ladder.speed import measure
    from embedcache.ladder.steps import Step, climb, make_cache

    values = task["values"]
    if task["kind"] == "measure":
        return measure(**values).to_dict()
    if task["kind"] == "extract":
        return make_cache(progress=progress, tell=tell, **values)
    return climb(Step.of(values), progress, tell)


class Lines:
    """What the parent reads."""

    def __init__(self) -> None:
        self._last = 0.0

    def put(self, kind: str, value: Any) -> None:
        with suppress(BrokenPipeError):  # nobody reads any more: the step is being stopped
            sys.stdout.write(json.dumps({kind: value}) + "\n")
            sys.stdout.flush()

    def progress(self, done: int, total: int, rows: int) -> None:
        if time.monotonic() - self._last > EVERY or done >= total:
            self._last = time.monotonic()
            self.put("progress", [int(done), int(total), int(rows)])

    def tell(self, line: str) -> None:
        self.put("tell", line)


def end_with_parent() -> None:
    """Interrupt this process once its standard input ends. Not by sys.stdin: its lock would hold up the exit."""
    while os.read(0, 1):
        pass
    if sys.platform == "win32":  # os.kill would end it at once
        signal.raise_signal(signal.SIGINT)
    else:
        os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Read one task from standard input."""
    lines = Lines()
    # A script's background jobs ignore it, and so do their children: the ladder could not stop this one.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    guard.install()
    cap_threads()
    try:
        task = json.loads(sys.stdin.readline())
        threading.Thread(target=end_with_parent, daemon=True).start()
        lines.put("result", work(task, lines.progress, lines.tell))
    except KeyboardInterrupt as stop:
        lines.put("stopped", str(stop))
        return 130
    except EmbedcacheError as error:
        lines.put("error", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
