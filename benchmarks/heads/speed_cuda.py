"""Training heads on a GPU: the CUDA engine against PyTorch and JAX, the same data and work, on the same device.

    python -m benchmarks.heads.speed_cuda [--device cuda] [--peers banks] [--budget 6] [--repeats 3]
        [--json PATH]

The work is that of speed.py: 768-512-2 heads, dropout 0.1, AdamW, no validation, rows in memory; and linear probes. The
engine is timed for the whole training (median), from the call to the weights (seconds), and without what the call does
before (training_seconds). Peers run for --budget seconds after a warm-up, and the time of all their steps is counted
from the steps that they did: that favours them, since set-up and epochs' ends cost them nothing. A peer that fails is
noted.

The bound is what the device cannot beat with this design (csrc/heads/cuda/README.md): for batches of 32 the larger of x
through L2 (3.1 MB a head and step for a bank, at 5.5 TB/s) and 3,100 cycles a step (at 1.755 GHz, 8 clusters
at once); for large batches the larger of the TF32 arithmetic at 494 TFLOP/s and 28 bytes a parameter and 20 an
activation from device memory at 3.35 TB/s. They are an H100's; on other devices the fraction
says little. `--device cpu --scale 0.01` only shows that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.heads import peers_cuda
from benchmarks.heads.peers import CLASSES, DIM, DROPOUT, LR, Case
from benchmarks.machine import RESULTS, machine, slug
from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads

CASES = [
    Case("1 head, batch 32", 1, 32768, 5, 32),
    Case("1024 heads, batch 32", 1024, 32768, 5, 32),
    Case("1024 heads, batch 1024", 1024, 32768, 5, 1024),
    Case("1024 probes, batch 32", 1024, 32768, 5, 32, hidden=0),
]
GOAL = {  # seconds, H100
    "1 head, batch 32": 0.025,
    "1024 heads, batch 32": 2.5,
    "1024 heads, batch 1024": 0.85,
    "1024 probes, batch 32": 0.05,
}
CLOCK, CYCLES, CLUSTERS, L2, HBM, TF32 = 1.755e9, 3100, 8, 5.5e12, 3.35e12, 494e12
WARM_UP = 5


def bound(case: Case) -> tuple[float, str]:
    """Seconds, and what takes them."""
    steps = case.head_rows / case.batch_size
    bounds = {"TF32 arithmetic": case.flop / TF32}
    if not case.hidden:
        bounds["x through L2"] = steps * case.batch_size * DIM * 4 / L2
    elif case.batch_size <= 32:
        bounds["cycles of a step"] = steps * CYCLES / CLOCK / min(case.heads, CLUSTERS)
        bounds["x through L2"] = steps * 16 * 2 * case.batch_size * DIM * 4 / L2
    else:
        parameters = case.hidden * (DIM + 1) + CLASSES * (case.hidden + 1)
        bounds["device memory"] = steps * (28 * parameters + 20 * case.batch_size * case.hidden) / HBM
    what = max(bounds, key=lambda name: bounds[name])
    return bounds[what], what


def ours(
    case: Case, x: np.ndarray, y: np.ndarray, device: str, compute: str, validated: bool = False
) -> dict[str, float]:
    """Of one training; validated: with the first tenth of the rows as validation rows, after each epoch."""
    grid = head_grid(hidden=case.hidden, dropout=DROPOUT, lr=LR, seed=range(case.heads))
    how = {"engine": "native", "device": device, "compute": compute}
    rows = (x[: len(x) // 10], y[: len(y) // 10]) if validated else None
    start = time.perf_counter()
    result = train_heads(x, y, grid, batch_size=case.batch_size, epochs=case.epochs, validation=rows, **how)
    seconds = time.perf_counter() - start
    assert all(head.status == "ok" for head in result.heads)
    return {"seconds": seconds, "training_seconds": result.seconds}


def timed_steps(case: Case, step: Callable[[int], Any], heads: int, device: str, budget: float) -> dict[str, float]:
    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    total = case.rows // case.batch_size * case.epochs
    for i in range(WARM_UP):
        step(i)
    wait()
    done, start, chunk = 0, time.perf_counter(), 1
    while (spent := time.perf_counter() - start) < budget and done < total:
        for i in range(done, min(done + chunk, total)):
            step(i)
        wait()
        done, chunk = min(done + chunk, total), min(chunk * 2, 256)
    spent = time.perf_counter() - start
    return {"seconds": spent / done * total * case.heads / heads, "steps_timed": done, "heads_at_once": heads}


def attempt(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work measured, or why it failed: one failure must not cost the other figures."""
    try:
        measured = work()
    except Exception as error:
        measured = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"}
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    told = f"{measured['seconds']:.3f} s" if "seconds" in measured else measured["failed"]
    print(f"  {name}: {told}", file=sys.stderr, flush=True)
    return measured


def own_results(case: Case, x: np.ndarray, y: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    computes = ("tf32", "bfloat16", "float32") if options.device.startswith("cuda") and case.hidden else ("float32",)
    results: dict[str, Any] = {}
    for compute in computes:
        warm = replace(case, heads=min(case.heads, 2), epochs=1)

        def work(warm: Case = warm, compute: str = compute) -> dict[str, Any]:
            ours(warm, x[: case.batch_size * 4], y[: case.batch_size * 4], options.device, compute)
            turns = [ours(case, x, y, options.device, compute) for _ in range(options.repeats)]
            return {key: statistics.median(turn[key] for turn in turns) for key in turns[0]} | {
                "seconds_of_turns": [turn["seconds"] for turn in turns]
            }

        results[f"embedcache native, {compute}"] = attempt(f"embedcache native, {compute}", work)
    return results


def torch_peers(case: Case, x: np.ndarray, y: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    xs, ys = torch.from_numpy(x).to(options.device), torch.from_numpy(y).to(options.device)
    results: dict[str, Any] = {}
    for name, peer in peers_cuda.peers(options.device, case.heads, options.peers == "all").items():

        def work(peer: peers_cuda.Peer = peer) -> dict[str, Any]:
            step, at_once = peer(case, xs, ys)
            return timed_steps(case, step, at_once, options.device, options.budget)

        results[name] = attempt(name, work)
    return results


def scaled(case: Case, scale: float) -> Case:
    steps = max(2, round(case.rows * scale) // case.batch_size)
    return replace(case, heads=max(1, round(case.heads * scale)), rows=steps * case.batch_size)


def measure(case: Case, options: argparse.Namespace) -> dict[str, Any]:
    case = scaled(case, options.scale)
    print(f"{case.name}: {case.heads} heads, {case.rows} rows x {case.epochs} epochs", file=sys.stderr, flush=True)
    x, y = peers_cuda.rows_of(case)
    results = own_results(case, x, y, options)
    if options.peers == "none":
        return {**asdict(case), **judged(case, results)}
    results |= torch_peers(case, x, y, options)
    if options.device.startswith("cuda") and find_spec("jax"):
        results["JAX vmap + scan"] = attempt("JAX", lambda: peers_cuda.jax_apart(case))
    return {**asdict(case), **judged(case, results)}


def judged(case: Case, results: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(results.values()))
    known = {name: result["seconds"] for name, result in results.items() if "seconds" in result}
    others = {name: seconds for name, seconds in known.items() if not name.startswith("embedcache")}
    best = min(others, key=lambda name: others[name]) if others else None
    limit, what = bound(case)
    mine = first.get("seconds")
    return {
        "results": results,
        "goal_seconds": GOAL[case.name],
        "bound_seconds": limit,
        "bound_by": what,
        "fraction_of_bound": limit / mine if mine else None,
        "best_peer": best,
        "ratio": others[best] / mine if mine and best else None,
    }


def show(measured: dict[str, Any]) -> None:
    rows = measured["heads"] * measured["rows"] * measured["epochs"]
    print(f"\n{measured['name']} ({measured['heads']} heads, {measured['rows']} rows x {measured['epochs']} epochs)")
    for name, result in measured["results"].items():
        if "failed" in result:
            print(f"  {name:36} failed: {result['failed']}")
        else:
            print(f"  {name:36} {result['seconds']:10.3f} s {rows / result['seconds']:14,.0f} head-rows/s")
    if measured["fraction_of_bound"]:
        limit, by = measured["bound_seconds"], measured["bound_by"]
        print(f"  bound {limit:.3f} s ({by}): {measured['fraction_of_bound']:.0%} of it reached; ", end="")
        print(f"goal {measured['goal_seconds']} s", end="")
    if measured["ratio"]:
        print(f"; ratio to the best peer ({measured['best_peer']}): {measured['ratio']:.1f}", end="")
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=6.0, help="seconds for each peer in each case")
    parser.add_argument("--peers", choices=("all", "banks", "none"), default="all", help="banks: those without loops")
    parser.add_argument("--repeats", type=int, default=3, help="of the engine's runs")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--scale", type=float, default=1.0, help="fraction of the heads and rows, for a quick look")
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/cuda-heads-<gpu>.json, or under $OUT")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")  # TF32 for the peers too
    on_gpu = options.device.startswith("cuda") and torch.cuda.is_available()
    gpu = torch.cuda.get_device_name(options.device) if on_gpu else "none"
    about = {**machine("numpy", "torch"), "gpu": gpu, "cuda": torch.version.cuda}
    folder = Path(os.environ.get("OUT") or RESULTS)
    path = options.json or folder / f"cuda-heads-{slug(gpu)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = []
    for case in CASES:
        if options.only not in case.name:
            continue
        cases.append(measure(case, options))
        show(cases[-1])
        path.write_text(json.dumps({"machine": about, "cases": cases}, indent=2) + "\n")  # kept if the next one dies
    print(f"\nwritten: {path}")


if __name__ == "__main__":
    main()
