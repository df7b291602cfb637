"""How much of its speed a training keeps while another process keeps one core busy.

    python -m benchmarks.heads.busy [--threads 2] [--repeats 5] [--json PATH]

Alone and beside the busy process in turn, medians; native engine (one head, whose threads work together, and 16 heads)
and PyTorch's loop with the fused AdamW, on as many threads as there are cores. `kept`: time alone / time beside.
A thread that must share a core gets half of it, so of two cores three quarters are left.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.heads.peers import DIM, Case, torch_eager
from benchmarks.heads.speed import native
from benchmarks.machine import RESULTS, machine
from embedcache.heads.engine_native import usable_cores


def spin(ready: multiprocessing.synchronize.Event) -> None:
    ready.set()
    while True:
        pass


def beside_a_busy_process(run: Callable[[], float]) -> float:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    busy = context.Process(target=spin, args=(ready,), daemon=True)
    busy.start()
    try:
        ready.wait()
        return run()
    finally:
        busy.kill()
        busy.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=RESULTS / "busy.json")
    options = parser.parse_args()
    one, many = Case("1 head, batch 32", 1, 32768, 1, 32), Case("16 heads, batch 32", 16, 4096, 2, 32)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((one.rows, DIM), dtype=np.float32)
    y = (x @ rng.standard_normal(DIM, dtype=np.float32) > 0).astype(np.int64)
    runs = {
        f"embedcache native, {one.name}": partial(native, one, x, y, options.threads),
        f"embedcache native, {many.name}": partial(native, many, x[: many.rows], y[: many.rows], options.threads),
        f"torch eager, {one.name}": partial(torch_eager, one, x, y, options.threads),
    }
    alone: dict[str, list[float]] = {name: [] for name in runs}
    beside: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(options.repeats):
        for name, run in runs.items():
            alone[name].append(run())
            beside[name].append(beside_a_busy_process(run))
            print(f"{turn}: {name}: {alone[name][-1]:.2f} s, {beside[name][-1]:.2f} s beside", file=sys.stderr)
    results = {}
    for name in runs:
        seconds, busy = statistics.median(alone[name]), statistics.median(beside[name])
        results[name] = {"alone": alone[name], "beside": beside[name], "kept": seconds / busy}
        print(f"{name:40} {seconds:6.2f} s alone, {busy:6.2f} s beside a busy process: keeps {seconds / busy:.0%}")
    report = {"machine": machine("numpy", "torch"), "threads": options.threads, "results": results}
    options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
