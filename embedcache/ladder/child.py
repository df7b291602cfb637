"""A step in a process of its own, so that its memory is its own: JSON in, lines of JSON out."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from embedcache.common import guard
from embedcache.common.machine import cap_threads
from embedcache.errors import EmbedcacheError

EVERY = 0.2  # seconds between two lines of progress


def work(task: dict[str, Any], progress: Any, tell: Any) -> dict[str, Any]:
    """Do the task; launch.py has the kinds. Raises what the step raises."""
    from embedcache.ladder.plan import measure
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
        sys.stdout.write(json.dumps({kind: value}) + "\n")
        sys.stdout.flush()

    def progress(self, done: int, total: int, rows: int) -> None:
        if time.monotonic() - self._last > EVERY or done >= total:
            self._last = time.monotonic()
            self.put("progress", [int(done), int(total), int(rows)])

    def tell(self, line: str) -> None:
        self.put("tell", line)


def main() -> int:
    """Read one task from standard input."""
    lines = Lines()
    guard.install()
    cap_threads()
    try:
        lines.put("result", work(json.loads(sys.stdin.read()), lines.progress, lines.tell))
    except KeyboardInterrupt as stop:
        lines.put("stopped", str(stop))
        return 130
    except EmbedcacheError as error:
        lines.put("error", str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
