"""Training heads on cached vectors: the native engine against PyTorch, the same data and the same work, side by side.

    python -m benchmarks.heads.speed [--threads 2] [--repeats 5] [--json PATH]

Every case runs all peers once to warm up, then in turn; medians are reported, with the spread. The work: 768-wide
float32 rows, a 768-512-2 head with dropout 0.1 (or a linear probe, 768-2), AdamW, no validation. `head-rows` = rows x
epochs x heads; FLOP = 2 per multiply-add of the five (two) matrix products of a step. In the bfloat16 case every peer
runs twice, in float32 and in bfloat16, and the best one counts. The yardstick is the better of torch's and NumPy's
sgemm, measured in the same turns. The peers are in peers.py; `pip install jax` adds JAX. On a machine that others use
too, all figures move; the turns make them move together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from benchmarks.heads.peers import DIM, DROPOUT, LR, Case, peers
from benchmarks.machine import RESULTS, machine, slug
from embedcache.heads.engine_native import usable_cores
from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads

CASES = [
    Case("1 head, batch 32", 1, 32768, 5, 32),
    Case("16 heads, batch 32", 16, 4096, 2, 32),
    Case("16 heads, batch 256", 16, 4096, 2, 256),
    Case("16 heads, batch 32, bfloat16", 16, 4096, 2, 32, bfloat16=True),
    Case(
        *("256 linear probes, batch 32", 256, 32768, 5, 32),
        hidden=0,
        shared_order=True,
        loop_heads=4,
        left_out=("torch.func vmap",),
    ),
]


def native(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """One call of the native engine; its checks of the input are part of the time."""
    if case.shared_order:
        grid = head_grid(hidden=case.hidden, lr=np.geomspace(1e-5, 1e-1, case.heads).tolist())
    else:
        grid = head_grid(hidden=case.hidden, dropout=DROPOUT, lr=LR, seed=range(case.heads))
    how = {"engine": "native", "device": "cpu", "threads": threads}
    how["compute"] = "bfloat16" if case.bfloat16 else "float32"
    start = time.perf_counter()
    result = train_heads(x, y, grid, batch_size=case.batch_size, epochs=case.epochs, **how)
    seconds = time.perf_counter() - start
    assert all(head.status == "ok" for head in result.heads)
    return seconds


OURS = "embedcache native"
PEERS = peers()


def runs_of(case: Case) -> dict[str, Any]:
    """What takes part in a case, each with its own form of the case."""
    if not case.bfloat16:
        some = {name: partial(run, case) for name, run in PEERS.items() if name not in case.left_out}
        return {OURS: partial(native, case), **some}
    runs = {f"{OURS}, bfloat16": partial(native, case), OURS: partial(native, replace(case, bfloat16=False))}
    for name, run in PEERS.items():
        runs[name] = partial(run, replace(case, bfloat16=False))
        if "torch" in name or "JAX" in name:  # scikit-learn has no bfloat16
            runs[f"{name}, bfloat16"] = partial(run, case)
    return runs


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
    case = replace(case, rows=len(x))
    warm = replace(case, heads=min(case.heads, 2), rows=case.batch_size * 4, epochs=1)
    for run in runs_of(warm).values():
        run(x[: warm.rows], y[: warm.rows], threads)
    runs = runs_of(case)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    sgemm = []
    for _ in range(repeats):
        sgemm.append(sgemm_gflops(threads))
        for name, run in runs.items():
            seconds[name].append(run(x, y, threads))
            print(f"{case.name}: {name} {seconds[name][-1]:.2f} s", file=sys.stderr, flush=True)
    rate = statistics.median(sgemm)
    results = {name: summary(case, values, rate) for name, values in seconds.items()}
    ours = next(iter(runs))
    best_peer = min((name for name in runs if not name.startswith(OURS)), key=lambda name: results[name]["seconds"])
    ratios = [peer / mine for peer, mine in zip(seconds[best_peer], seconds[ours], strict=True)]
    return {
        **asdict(case),
        "sgemm_gflops": rate,
        "results": results,
        "best_peer": best_peer,
        "ratio": results[best_peer]["seconds"] / results[ours]["seconds"],
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
            f"  {name:32} {result['seconds']:8.3f} s {result['head_rows_per_second']:10,.0f} head-rows/s"
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
    path = options.json or RESULTS / f"heads-{slug(about['cpu'])}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
