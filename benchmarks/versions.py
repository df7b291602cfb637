"""This checkout beside another one: heads, encoder and cold commands, in turns, so that a slower version is seen.

    python -m benchmarks.versions OTHER_CHECKOUT [--turns 5] [--json FILE]

OTHER_CHECKOUT is a worktree with its native libraries built (`python setup.py build_ext --inplace`). Every turn starts
new processes, first of the one, then of the other checkout. Reported are medians of seconds, this / other.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.extraction.data import fetch
from benchmarks.machine import ROOT, machine

TEXT = "a horror film that forgets to be scary"

# Runs in the checkout that is measured, so it uses pinned names only. Prints {name: seconds}.
HEADS = """
import json, sys, time
import numpy as np
import embedcache as ec

rng = np.random.default_rng(0)
x = rng.standard_normal((16384, 768), dtype=np.float32)
y = (x @ rng.standard_normal(768, dtype=np.float32) > 0).astype(np.int64)
one = lambda count: ec.head_grid(hidden=512, lr=1e-4, dropout=0.1, seed=range(count))
probes = ec.head_grid(hidden=0, lr=np.geomspace(1e-5, 1e-1, 256).tolist(), dropout=0.0)
cases = {
    "1 head, batch 32": (one(1), 16384, 32, "float32", 4),
    "16 heads, batch 32": (one(16), 4096, 32, "float32", 1),
    "16 heads, batch 256": (one(16), 4096, 256, "float32", 2),
    "16 heads, batch 32, bfloat16": (one(16), 4096, 32, "bfloat16", 1),
    "256 probes, batch 32": (probes, 16384, 32, "float32", 3),
}
seconds = {}
for name, (grid, rows, batch, compute, epochs) in cases.items():
    for part in (rows // 16, rows):  # the first warms up
        val = (x[: rows // 8], y[: rows // 8])
        start = time.perf_counter()
        r = ec.train_heads(x[:part], y[:part], grid, batch_size=batch, epochs=epochs, validation=val, engine="native",
                           device="cpu", compute=compute)
        seconds[name] = time.perf_counter() - start
    assert all(head.status == "ok" for head in r.heads)
print(json.dumps(seconds))
"""


def run(checkout: Path, folder: str, *command: str) -> tuple[float, str]:
    """Seconds of the process, and what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(command)[:200]}\n{done.stderr}")
    return seconds, done.stdout


def turn(checkout: Path, folder: str, name: str, model: str) -> dict[str, float]:
    """Everything once, {what: seconds}."""
    tool = ["-m", "embedcache"]
    cache, heads = f"{folder}/{name}.h5", f"{folder}/{name}"
    seconds = json.loads(run(checkout, folder, "-c", HEADS)[1])
    table = str(fetch.reviews())
    for dtype in ("bfloat16", "float32"):
        command = [*tool, "extract", table, "-o", cache, "--model", model, "--overwrite", "--dtype", dtype, "--json"]
        command += ["--pooling", "cls", "--max-length", "250"]  # the same vectors of every version
        whole, said = run(checkout, folder, *command)
        seconds[f"extract 4,000 reviews, {dtype}: encoding"] = json.loads(said)["seconds"]
        seconds[f"extract 4,000 reviews, {dtype}: the command"] = whole
    grid = ["--lr", "1e-4", "--hidden", "512", "--epochs", "5", "--seed", "0,1,2,3"]
    seconds["train-head, four heads, five epochs"] = run(
        checkout, folder, *tool, "train-head", cache, "-o", heads, *grid
    )[0]
    seconds["--help"] = run(checkout, folder, *tool, "--help")[0]
    seconds["info"] = run(checkout, folder, *tool, "info", cache)[0]
    seconds["predict TEXT"] = run(checkout, folder, *tool, "predict", heads, TEXT)[0]
    seconds["search TEXT"] = run(checkout, folder, *tool, "search", cache, TEXT)[0]
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    checkouts = {"this": ROOT, "other": arguments.other.resolve()}
    model = str(fetch.encoder())
    found: dict[str, dict[str, list[float]]] = {name: {} for name in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(arguments.turns + 1):  # the first one warms up
            for name, checkout in checkouts.items():
                for what, seconds in turn(checkout, folder, name, model).items():
                    if i:
                        found[name].setdefault(what, []).append(seconds)
            print(f"turn {i} of {arguments.turns}", file=sys.stderr, flush=True)
    for what, times in found["this"].items():
        this, other = statistics.median(times), statistics.median(found["other"][what])
        ratios = [a / b for a, b in zip(times, found["other"][what], strict=True)]
        print(f"{what:45} {this:7.2f} {other:7.2f} s   {this / other:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    if arguments.json:
        commits = {
            name: subprocess.run(["git", "-C", path, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
            for name, path in checkouts.items()
        }
        document = {
            "machine": machine("numpy", "torch"),
            "load_average_at_end": os.getloadavg()[0],
            "commits": {name: done.stdout.strip() for name, done in commits.items()},
            "seconds": found,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
