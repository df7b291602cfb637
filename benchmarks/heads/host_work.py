"""What a bank costs beside its training: 1,024 heads, or probes, on a CPU, in the first and later banks of a process.

    python -m benchmarks.heads.host_work [--heads 1024] [--banks 4] [--checkout DIR] [--json PATH]

Two ways, each in a process of its own, which makes several banks and drops each before the next:

- "cancelled": the engine is told to stop before its first step. What is left is all that a bank needs beside the
  training: checks, memory for the weights, results. The goal: 0.1 s for 1,024 heads of 768-512-2 (1.6 GB of weights).
- "trained": one epoch of 32 rows, validated on 32: an initial state, one step and a copy of the weights for each head.
  The memory for the weights is first touched here, by the engine's threads.

For each bank, from the call until its memory is given back: seconds on the clock, seconds of processor time (user and
system, all threads), page faults; and the peak memory of the process. --checkout measures another version of the
package (its libraries built), in turns with this one: the table then has both. The machine's load is in the JSON;
processor time suffers less from it than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, ROOT, machine

DIM, HIDDEN, CLASSES, ROWS = 768, 512, 2, 32
CASES = {"heads": HIDDEN, "probes": 0}


def one_process(way: str, hidden: int, heads: int, banks: int) -> dict[str, Any]:
    """The child: numbers of each bank, and the peak."""
    from embedcache.heads import engine_native
    from embedcache.heads.spec import HeadSpec
    from embedcache.heads.train import train_heads

    if way == "cancelled":
        train = engine_native.Library.train

        def stopped(self: Any, tasks: Any, heads: Any, results: Any, options: Any) -> str:
            options.cancel.contents.value = 1
            return train(self, tasks, heads, results, options)

        engine_native.Library.train = stopped  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2 * ROWS, DIM), dtype=np.float32)
    y = (np.arange(2 * ROWS) % CLASSES).astype(np.int32)
    small = [HeadSpec(hidden=8)]
    train_heads(x, y, small, epochs=1, engine="native", device="cpu")  # imports and the library, before the clock
    specs = [HeadSpec(hidden=hidden, seed=seed) for seed in range(heads)]
    found = []
    for _ in range(banks):
        before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        result = train_heads(
            x[:ROWS], y[:ROWS], specs, validation=(x[ROWS:], y[ROWS:]), epochs=1, engine="native", device="cpu"
        )
        wanted = "cancelled" if way == "cancelled" else "ok"
        assert all(head.status == wanted for head in result.heads) and result.engine.startswith("native")
        del result
        seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
        found.append(
            {
                "seconds": seconds,
                "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                "system_seconds": after.ru_stime - before.ru_stime,
                "page_faults": after.ru_minflt - before.ru_minflt,
            }
        )
    return {"banks": found, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def in_a_process(checkout: Path, way: str, hidden: int, heads: int, banks: int) -> dict[str, Any]:
    """one_process, with the package of ``checkout``."""
    child = [sys.executable, "-P", __file__, "--child", way, str(hidden), str(heads), str(banks)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(ROOT)])}
    return dict(json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, env=environment).stdout))


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the processes: of the first bank, and of the later ones."""
    first = [run["banks"][0] for run in runs]
    later = [bank for run in runs for bank in run["banks"][1:]]
    return {
        "first": {name: statistics.median(bank[name] for bank in first) for name in first[0]},
        "later": {name: statistics.median(bank[name] for bank in later) for name in first[0]},
        "peak_bytes": statistics.median(run["peak_bytes"] for run in runs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int, default=1024)
    parser.add_argument("--banks", type=int, default=4, help="of a process")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--json", type=Path, default=RESULTS / "host_work.json")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        way, *numbers = options.child
        print(json.dumps(one_process(way, *(int(number) for number in numbers))))
        return
    versions = {"this": ROOT} | ({"checkout": options.checkout.resolve()} if options.checkout else {})
    report: dict[str, Any] = {"machine": machine("numpy"), "heads": options.heads, "load_before": os.getloadavg()}
    for case, hidden in CASES.items():
        for way in ("cancelled", "trained"):
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in versions}
            for _ in range(options.turns):
                for name, checkout in versions.items():
                    runs[name].append(in_a_process(checkout, way, hidden, options.heads, options.banks))
            for name in versions:
                report[f"{case}, {way}, {name}"] = summary(runs[name]) | {"processes": runs[name]}
                show(f"{case}, {way}, {name}", summary(runs[name]))
    report["load_after"] = os.getloadavg()
    options.json.write_text(json.dumps(report, indent=1) + "\n")


def show(title: str, numbers: dict[str, Any]) -> None:
    print(title + f": peak {numbers['peak_bytes'] / 2**20:,.0f} MiB")
    for which in ("first", "later"):
        one = numbers[which]
        print(
            f"  {which}: {one['seconds']:.3f} s on the clock, {one['cpu_seconds']:.3f} s of processor time "
            f"({one['system_seconds']:.3f} in the system), {one['page_faults']:,.0f} page faults"
        )


if __name__ == "__main__":
    main()
