"""`embedcache extract` as users run it, and what its dtype does to heads; for speed.py."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction.peers import MAX_LENGTH
from benchmarks.extraction.yardstick import Utilisation

SEEDS, EPOCHS = range(3), 8


def extract_file(
    rows: Sequence[tuple[str, str]], folder: Path, device: str, dtype: str, scratch: Path, more: bool
) -> dict[str, Any]:
    """Seconds of the real command, process start and model load included, on a new file of (text, label) rows.

    ``load_seconds`` is the same command on one row; ``rows_per_second_loaded`` is without it. With ``more``: the last
    1% of the rows comes in a second run, and a third finds nothing to do.
    """
    cache, table = scratch / f"{dtype}.h5", scratch / "rows.csv"
    cache.unlink(missing_ok=True)
    last = len(rows) - len(rows) // 100 if more else len(rows)

    def run(part: Sequence[tuple[str, str]], target: Path) -> tuple[float, dict[str, Any]]:
        with table.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *part])
        command = ["extract", str(table), "-o", str(target), "--model", str(folder), "--dtype", dtype]
        command += ["--pooling", "cls", "--max-length", str(MAX_LENGTH)]
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "embedcache", *command, "--device", device, "--json"],
            stdout=subprocess.PIPE,
            check=True,
        )
        return time.perf_counter() - start, json.loads(done.stdout)

    load = min(run(rows[i : i + 1], scratch / f"one-{i}.h5")[0] for i in range(2))
    for i in range(2):
        (scratch / f"one-{i}.h5").unlink()
    with Utilisation() as gpu:
        seconds, report = run(rows[:last], cache)
    measured = {
        "rows": report["rows"],
        "encoded": report["encoded"],
        "tokens": report["tokens"],
        "seconds": seconds,
        "load_seconds": load,
        "rows_per_second": report["encoded"] / seconds,
        "rows_per_second_loaded": report["encoded"] / (seconds - load),
        "rows_per_second_said": report["rows_per_second"],
    }
    if gpu.percent:
        measured["gpu_utilisation_every_100_ms"] = gpu.percent
    if more:
        appended, report = run(rows, cache)
        measured |= {"append_rows": report["encoded"], "append_seconds": appended}
        measured["again_seconds"] = run(rows, cache)[0]
    return measured


def head_accuracy(caches: dict[str, Path]) -> dict[str, Any]:
    """Validation accuracy of heads on the vectors of each cache, the same splits and seeds for all: does dtype matter?

    80/20 splits, standardized vectors; a linear probe and a 512-unit head, each at its best epoch by validation loss.
    """
    import embedcache as ec

    grids = {"linear probe": {"hidden": 0, "lr": 1e-3}, "512 units": {"hidden": 512, "lr": 1e-4, "dropout": 0.1}}
    accuracy: dict[str, dict[str, list[float]]] = {name: {dtype: [] for dtype in caches} for name in grids}
    for dtype, path in caches.items():
        with ec.open_cache(path) as cache:
            vectors, (codes, _) = np.asarray(cache.embeddings("cls"), np.float32), cache.labels("label")
        for seed in SEEDS:
            order = np.random.default_rng(seed).permutation(len(codes))
            held, rest = order[: len(order) // 5], order[len(order) // 5 :]
            mean, spread = vectors[rest].mean(0), vectors[rest].std(0) + 1e-6
            x, y = (vectors - mean) / spread, np.asarray(codes)
            for name, settings in grids.items():
                how = {"epochs": EPOCHS, "validation": (x[held], y[held]), "compute": "float32"}
                result = ec.train_heads(x[rest], y[rest], ec.head_grid(**settings, seed=seed), **how)
                accuracy[name][dtype].append(float((result.best.predict(x[held]) == y[held]).mean()))
    return {"rows": len(codes), "seeds": len(SEEDS), "epochs": EPOCHS, "validation_accuracy": accuracy}
