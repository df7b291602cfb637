"""Ends what a process has started once that process is gone, however it ended: SIGKILL too.

A process of its own, as small as Python allows. It waits until its standard input ends, which is when the last holder
of the pipe's other end does; then every process that has inherited the marker in its environment is killed.
Those that have changed sides (Ray's workers are children of a daemon) are found too. Linux alone.

Imports nothing but the standard library: it is run as a script.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

MARKER = "EMBEDCACHE_STARTED_BY"
KEEP_ENVIRONMENT = "SPT_NOENV"  # setproctitle, by which Ray names its agents, writes over the marker without it
PATIENCE = 30.0  # seconds, in which processes that were just being started come to light
QUIET = 20  # looks in a row, a quarter of a second apart, that find nobody: on a busy machine some come seconds later
DONE = b"done"


class Reaper:
    """``with Reaper() as reaper``: what is started within has the marker. ``close`` spares it, and ends the wait."""

    def __init__(self) -> None:
        self.marker = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform.startswith("linux"):
            environment = {name: value for name, value in os.environ.items() if name != MARKER}
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, self.marker],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # a signal to the whole group of a terminal is not for it
            )

    def __enter__(self) -> Reaper:
        self._before = os.environ.get(KEEP_ENVIRONMENT)
        os.environ.update({MARKER: self.marker, KEEP_ENVIRONMENT: "1"})
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(MARKER, None)
        os.environ.pop(KEEP_ENVIRONMENT, None)
        if self._before is not None:
            os.environ[KEEP_ENVIRONMENT] = self._before

    def close(self) -> None:
        """Call it once all has ended in good order."""
        if self._process is not None:
            with suppress(OSError):
                self._process.communicate(DONE)
            self._process = None


def marked(marker: str) -> list[int]:
    """Processes of this user that live and have inherited the marker."""
    wanted, found = f"{MARKER}={marker}".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):  # it has ended, or is another user's
                if wanted in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
    return found


def main(marker: str) -> None:
    if sys.stdin.buffer.read() == DONE:
        return
    if sys.platform == "win32":
        return
    end, quiet = time.monotonic() + PATIENCE, 0
    while quiet < QUIET and time.monotonic() < end:
        found = marked(marker)
        quiet = 0 if found else quiet + 1
        for process in found:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.25)


if __name__ == "__main__":
    main(sys.argv[1])
