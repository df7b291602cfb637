"""Starts a step's process, and hears how it goes. Ctrl-C is handed on once, so that the step can save what it has.

Its standard input stays open as long as this process lives: where it ends, the step saves what it has and ends, too.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import embedcache
from embedcache.common.display import one_line
from embedcache.common.progress import Progress, Tell
from embedcache.errors import EmbedcacheError


def launch(kind: str, values: dict[str, Any], progress: Progress | None, tell: Tell) -> dict[str, Any]:
    """Do a step ("measure", "extract" or "climb") in a process of its own.

    Returns:
        What it found, JSON types.

    Raises:
        EmbedcacheError: as the step does, or its process died.
        KeyboardInterrupt: Ctrl-C; the process has ended.
    """
    package = str(Path(embedcache.__file__).resolve().parents[1])  # the child's embedcache is this one
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedcache.ladder.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C comes here alone
        )
        try:
            heard = _hear(process, {"kind": kind, "values": values}, progress, tell)
        except KeyboardInterrupt:
            if sys.platform != "win32":  # there its standard input ends, which says the same
                process.send_signal(signal.SIGINT)
            _drain(process)
            raise
        except BaseException:
            process.kill()
            _drain(process)
            raise
        _drain(process)
        errors.seek(0)
        return _found(heard, process, kind, errors)


def _hear(
    process: subprocess.Popen[str], task: dict[str, Any], progress: Progress | None, tell: Tell
) -> dict[str, Any]:
    """The last things that it said."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError):  # it has died: its exit says more
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
    heard: dict[str, Any] = {}
    for line in process.stdout:
        if not line.startswith("{"):
            continue  # a library's own print
        heard |= (said := json.loads(line))
        if "progress" in said and progress is not None:
            progress(*said["progress"])
        elif "tell" in said:
            tell(said["tell"])
    return heard


def _drain(process: subprocess.Popen[str]) -> None:
    """Wait until it has ended, and close its pipes."""
    with suppress(BrokenPipeError, KeyboardInterrupt):  # a task that it never read; a second Ctrl-C
        process.communicate()


def _found(heard: dict[str, Any], process: subprocess.Popen[str], kind: str, errors: IO[str]) -> dict[str, Any]:
    if "result" in heard:
        found: dict[str, Any] = heard["result"]
        return found
    if "error" in heard:
        raise EmbedcacheError(heard["error"])
    if "stopped" in heard:
        raise KeyboardInterrupt(heard["stopped"] or "Interrupted: the same command with --resume goes on.")
    code = process.returncode
    last = one_line(next((line for line in reversed(errors.read().splitlines()) if line.strip()), ""))
    how = f"was ended by signal {-code}, as where memory runs out" if code < 0 else f"failed: {last or code}"
    raise EmbedcacheError(f"the process of this step ({kind}) {how}; the same command with --resume goes on")
