"""Training heads on cached vectors: the native engine against PyTorch, the same data and the same work, side by side.

    python benchmarks/heads.py [--threads 2] [--repeats 5] [--json PATH]

Every case runs all peers once to warm up, then in turn; medians are reported, with the spread. The work: 768-wide
float32 rows, a 768-512-2 head with dropout 0.1, AdamW, no validation. `head-rows` = rows x epochs x heads;
FLOP = 2 per multiply-add of the five matrix products of a step. The yardstick is the better of torch's and NumPy's
sgemm, measured in the same turns. The peers are in peers.py; `pip install jax` adds JAX. On a machine that others use
too, all figures move; the turns make them move together.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from peers import DIM, DROPOUT, HIDDEN, LR, Case, peers
from threadpoolctl import threadpool_limits

from embedcache.heads.native import usable_cores
from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads

CASES = [
    Case("1 head, batch 32", 1, 32768, 5, 32),
    Case("16 heads, batch 32", 16, 4096, 2, 32),
    Case("16 heads, batch 256", 16, 4096, 2, 256),
]


def native(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """One call of the native engine; its checks of the input are part of the time."""
    grid = head_grid(hidden=HIDDEN, dropout=DROPOUT, lr=LR, seed=range(case.heads))
    start = time.perf_counter()
    result = train_heads(
        x, y, grid, batch_size=case.batch_size, epochs=case.epochs, engine="native", device="cpu", threads=threads
    )
    seconds = time.perf_counter() - start
    assert all(head.status == "ok" for head in result.heads)
    return seconds


OURS = "embedcache native"
PEERS = {OURS: native, **peers()}


def sgemm_gflops(threads: int) -> float:
    """The float32 matrix product on so many threads, the best of a few by torch and by NumPy: the machine's rate."""
    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    best = float("inf")
    with threadpool_limits(threads):
        for product in (lambda: torch.mm(a, b), lambda: np.dot(a.numpy(), b.numpy())):
            for _ in range(5):
                start = time.perf_counter()
                product()
                best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best / 1e9


def measure(case: Case, threads: int, repeats: int, scale: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    batches = max(1, round(case.rows * scale) // case.batch_size)  # JAX's scan takes whole batches only
    x = rng.standard_normal((batches * case.batch_size, DIM), dtype=np.float32)
    y = (x @ rng.standard_normal(DIM, dtype=np.float32) > 0).astype(np.int64)
    case = Case(case.name, case.heads, len(x), case.epochs, case.batch_size)
    warm = Case(case.name, 1, case.batch_size * 4, 1, case.batch_size)
    for run in PEERS.values():
        run(warm, x[: warm.rows], y[: warm.rows], threads)
    seconds: dict[str, list[float]] = {name: [] for name in PEERS}
    sgemm = []
    for _ in range(repeats):
        sgemm.append(sgemm_gflops(threads))
        for name, run in PEERS.items():
            seconds[name].append(run(case, x, y, threads))
            print(f"{case.name}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    rate = statistics.median(sgemm)
    results = {name: summary(case, values, rate) for name, values in seconds.items()}
    best_peer = min((name for name in PEERS if name != OURS), key=lambda name: results[name]["seconds"])
    ratios = [peer / ours for peer, ours in zip(seconds[best_peer], seconds[OURS], strict=True)]
    return {
        **asdict(case),
        "sgemm_gflops": rate,
        "results": results,
        "best_peer": best_peer,
        "ratio": results[best_peer]["seconds"] / results[OURS]["seconds"],
        "ratio_lowest_turn": min(ratios),
        "ratio_highest_turn": max(ratios),
    }


def summary(case: Case, seconds: list[float], sgemm: float) -> dict[str, Any]:
    middle = statistics.median(seconds)
    gflops = case.flop / middle / 1e9
    return {
        "seconds": middle,
        "seconds_of_turns": seconds,
        "head_rows_per_second": case.head_rows / middle,
        "gflops": gflops,
        "of_sgemm": gflops / sgemm,
    }


def show(measured: dict[str, Any]) -> None:
    print(f"\n{measured['name']}: {measured['rows']} rows x {measured['epochs']} epochs, ", end="")
    print(f"sgemm {measured['sgemm_gflops']:.0f} GFLOP/s")
    for name, result in measured["results"].items():
        print(
            f"  {name:24} {result['seconds']:8.3f} s {result['head_rows_per_second']:10,.0f} head-rows/s"
            f" {result['gflops']:7.1f} GFLOP/s = {result['of_sgemm']:.0%} of sgemm"
        )
    low, high = measured["ratio_lowest_turn"], measured["ratio_highest_turn"]
    ratio = f"{measured['ratio']:.2f} (turns: {low:.2f}-{high:.2f})"
    print(f"  ratio to the best peer ({measured['best_peer']}): {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the rows, for a quick look")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/heads-<cpu>.json")
    options = parser.parse_args()
    about = machine("numpy", "torch")
    load = os.getloadavg()[0]
    print(f"{about}\n{options.threads} threads; load average at the start {load:.1f}")
    cases = []
    for case in CASES:
        if options.only in case.name:
            cases.append(measure(case, options.threads, options.repeats, options.scale))
            show(cases[-1])
    report = {
        "machine": about,
        "threads": options.threads,
        "load_average_at_start": load,
        "load_average_at_end": os.getloadavg()[0],
        "cases": cases,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", about["cpu"].lower()).strip("-")
    path = options.json or Path(__file__).parent / "results" / f"heads-{slug}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
