"""Spoil caches, tables and model folders at random and see that embedcache refuses them in words, or reads them.

    python tests/faults/fuzz.py --seconds 60 [--seed N] [--kinds bytes,structure,table,model] [--keep FOLDER]
    python tests/faults/fuzz.py --case structure:123 --keep FOLDER      one case again, in this process

Cases run in worker processes under a limit of memory and of time. A fault is: a crash, a hang, an exception other than
EmbedcacheError, memory, or an extract that succeeds and leaves other texts, hashes or labels than the input's. The
file of every fault is kept. A case is its kind and number alone. Exit 1 when there was a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.faults import cases  # noqa: E402

SECONDS_PER_CASE = 30
MEMORY = 400 << 20  # that a case may take beside what is loaded
CASES_PER_WORKER = 3000


def run_case(case: str, base: Path, folder: Path) -> dict[str, Any]:
    """Make the files of ``case`` in ``folder`` and read them. Returns what came of it and how much memory it took."""
    from embedcache.errors import EmbedcacheError

    kind, number = case.split(":")
    make, read = cases.KINDS[kind]
    path = make(random.Random(case), base, folder)
    before = reset_peak()
    try:
        outcome = read(path, base, int(number))
    except EmbedcacheError as error:
        outcome = "refused" if "\n" not in str(error) and str(error) else f"FAULT: not one line: {error}"
    except BaseException as error:  # the PanicException of a Rust library is no Exception
        outcome = f"FAULT: {type(error).__name__}\n{traceback.format_exc()[-3000:]}"
    taken = peak() - before
    if taken > MEMORY and not outcome.startswith("FAULT"):
        outcome = f"FAULT: took {taken >> 20} MB"
    return {"case": case, "outcome": outcome, "megabytes": taken >> 20}


def reset_peak() -> int:
    """Bytes resident now, from where the peak is counted from now on."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def work(base: Path, folder: Path) -> None:
    """A worker: a case a line on stdin, its outcome a line on stdout."""
    cases.load()
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + 2 * MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        signal.alarm(SECONDS_PER_CASE)  # nobody handles it: a hang ends as a death by this signal
        found = run_case(line.strip(), base, folder)
        signal.alarm(0)
        print(json.dumps(found), flush=True)


class Worker:
    """A worker process that is replaced when it dies."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder, self.process = base, folder, None

    def run(self, case: str) -> dict[str, Any]:
        if self.process is None:
            command = [sys.executable, __file__, "--worker", str(self.base), str(self.folder)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            self.process: Any = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            self.left = CASES_PER_WORKER
        self.process.stdin.write(case + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        self.left -= 1
        if line and self.left:
            return json.loads(line)
        stderr = self.close()
        if line:
            return json.loads(line)
        code = self.process_code
        name = signal.Signals(-code).name if code < 0 else f"exit {code}"
        what = "hang" if name == "SIGALRM" else f"crash, {name}"
        return {"case": case, "outcome": f"FAULT: {what}\n{stderr[-2000:]}", "megabytes": 0}

    def close(self) -> str:
        if self.process is None:
            return ""
        _, stderr = self.process.communicate()
        self.process_code, self.process = self.process.returncode, None
        return stderr


def numbered(kinds: list[str], seed: int, most: int, seconds: float) -> Iterator[str]:
    """The names of so many cases, or of as many as come in time."""
    end = time.monotonic() + seconds
    for count in range(most):
        if time.monotonic() > end:
            break
        yield f"{kinds[count % len(kinds)]}:{seed * 1_000_000 + count // len(kinds)}"


def fuzz(names: Iterator[str], keep: Path, workers: int) -> dict[str, Any]:
    """Run cases; returns counts of outcomes and the faults, whose files are under ``keep``."""
    counts: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    turn = threading.Lock()
    with tempfile.TemporaryDirectory() as scratch:
        base = Path(scratch) / "base"
        base.mkdir()
        cases.prepare(base)

        def go_on(number: int) -> None:
            worker = Worker(base, Path(scratch) / f"worker{number}")
            while case := next_case():
                found = worker.run(case)
                counts[f"{case.partition(':')[0]} {found['outcome'].splitlines()[0]}"] += 1
                if found["outcome"].startswith("FAULT"):
                    faults.append(found)
                    place = keep / case.replace(":", "-")
                    shutil.rmtree(place, ignore_errors=True)
                    if worker.folder.exists():
                        shutil.copytree(worker.folder, place, symlinks=True)
                    print(f"{case}: {found['outcome']}\n  kept in {place}", file=sys.stderr, flush=True)
            worker.close()

        def next_case() -> str | None:
            with turn:
                return next(names, None)

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(go_on, range(workers)))
    return {"cases": sum(counts.values()), "outcomes": dict(sorted(counts.items())), "faults": faults}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--cases", type=int, default=1 << 40, help="stop after so many, before the seconds are over")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(cases.KINDS))
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--case")
    parser.add_argument("--worker", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return 0
    if options.case:
        cases.load()
        with tempfile.TemporaryDirectory() as scratch:
            cases.prepare(Path(scratch))
            options.keep.mkdir(parents=True, exist_ok=True)
            found = run_case(options.case, Path(scratch), options.keep)
        print(found["outcome"], f"({found['megabytes']} MB)")
        return int(found["outcome"].startswith("FAULT"))
    kinds = options.kinds.split(",")
    if unknown := set(kinds) - set(cases.KINDS):
        parser.error(f"no such kinds: {', '.join(unknown)}; there are {', '.join(cases.KINDS)}")
    names = numbered(kinds, options.seed, options.cases, options.seconds)
    report = fuzz(names, options.keep, options.workers)
    print(json.dumps({**report, "faults": [fault["case"] for fault in report["faults"]]}, indent=1))
    return int(bool(report["faults"]))


if __name__ == "__main__":
    sys.exit(main())
