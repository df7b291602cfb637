"""Leaves out each barrier of the CUDA kernels, one at a time, and says whether that is noticed.

    python -m tests.heads.weaken_barriers [--only REGEX] [--json PATH]

The engine is compiled once for the host, with ThreadSanitizer, and loaded once; a child process for each barrier names
it to EC_EMULATION_WEAKEN by its line (csrc/heads/cuda/emulation.h). Noticed is a race, other bits than with all
barriers, or a wait without an end. What goes unnoticed in all cases is superfluous, or the emulation cannot show what
it is for: the README beside the kernels has the table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from embedcache.heads import engine_native
from tests.heads.cuda_emulation import CUDA, THREAD_FLAGS, build_library
from tests.heads.threaded_run import cases, float_cases, large_cases, linear_cases, load, train
from tests.sanitizers import ROOT, preloaded

SITE = re.compile(r"(?<!void )\b(each_thread_of_all|each_thread|each_lane|each_index|one_thread|wait)\(")
# Numbers of the cases of threaded_run.py that run a file's barriers; the first that notices is enough.
CASES = {
    "cluster_bf16": ["wide 0", "wide 1", "wide 4", "wide 2", "wide 3", "wide 5", "wide 0 by lanes"],
    "cluster": [
        *("cluster 0", "held 1", "cluster 1", "cluster 3", "cluster 7", "wide 1", "wide 4", "cluster 5"),
        "cluster 0 by lanes",
    ],
    "stacked": [*("stacked 0", "stacked 1", "stacked 2", "stacked 3", "stacked 7"), "stacked 0 by lanes", "split 0"],
    "wgmma": ["large 0", "large 1", "large 2", "large 7", "large 3", "large 0 by lanes"],
    "probes": ["linear 0", "linear 1", "linear 2", "linear 3", "linear 5", "linear 7", "linear 0 by lanes"],
    "": [*("plain 0", "probe 0", "plain 1", "stacked 0", "stacked 1", "plain 2", "probe 2"), "plain 7"],
}


def sites() -> list[tuple[str, str]]:
    """file:line and the name of every barrier in the kernels, and every wait for an mbarrier."""
    found = []
    for path in sorted(CUDA.glob("*.cuh")):
        if path.name in ("block.cuh", "mbarrier.cuh", "mma.cuh"):
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            call = SITE.search(line)
            if call and not line.lstrip().startswith("*"):
                found.append((f"{path.name}:{number}", call[1]))
    return found


def cases_of(site: str) -> list[str]:
    return next(cases for start, cases in CASES.items() if site.startswith(start))


def attempt(engine: engine_native.NativeEngine, case: tuple, lanes: bool, weakened: str) -> str:
    """The digest of a case's results, or why there is none, of a child process."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(theirs, 2)
        os.environ["EC_EMULATION_WEAKEN"] = weakened
        os.write(theirs, f"digest {train(engine, case, lanes)}\n".encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
    race = re.search(r"SUMMARY: ThreadSanitizer: (data race|[^ ]+)", told)
    found = race or re.search(r"emulated mbarrier: (.*)", told) or re.search(r"(digest .*)", told)
    return found[1] if found else told.strip()[-80:]


def noticed(engine: engine_native.NativeEngine, site: str, expected: dict[str, str]) -> str:
    """How a barrier's absence shows; "" where it does not."""
    made = {case[0]: case for case in (*cases(), *float_cases(), *large_cases(), *linear_cases())}
    for name in cases_of(site):
        case, lanes = made[name.removesuffix(" by lanes")], name.endswith(" by lanes")
        if name not in expected:
            expected[name] = attempt(engine, case, lanes, "")
            if not expected[name].startswith("digest"):
                raise RuntimeError(f"case {name} with all barriers: {expected[name]}")
        found = attempt(engine, case, lanes, site)
        if found != expected[name]:
            return f"{'other bits' if found.startswith('digest') else found}, {name}"
    return ""


def work(library: Path, only: str) -> None:
    """Under ThreadSanitizer: a line for each barrier."""
    engine, expected = load(library), dict[str, str]()
    for site, name in sites():
        if re.search(only, site):
            print(f"{site} {name}: {noticed(engine, site, expected) or 'not noticed'}", flush=True)


def weaken(library: Path, only: str) -> Iterator[tuple[str, str]]:
    """Each barrier, with how its absence shows."""
    environment = preloaded("libtsan.so") | {"EC_EMULATION_THREADS": "warps", "EC_EMULATION_SEED": "5"}
    environment |= {"OMP_NUM_THREADS": "1"}
    environment["TSAN_OPTIONS"] += ":die_after_fork=0"
    command = [sys.executable, "-m", "tests.heads.weaken_barriers", "--library", str(library), "--only", only]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as done:
        for line in done.stdout or ():
            site, _, shows = line.strip().rpartition(": ")
            yield site, shows
    if done.returncode:
        raise RuntimeError(f"exit {done.returncode}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="A regular expression for file:line.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--library", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.library:
        work(options.library, options.only)
        return
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for site, shows in weaken(build_library(Path(folder), THREAD_FLAGS), options.only):
            table[site] = shows
            print(f"{site}: {shows}", flush=True)
            if options.json:
                options.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
