"""What temperature scaling changes on the test rows, over several splits of a cache: the figures in docs/recipes.md.

python -m benchmarks.runs.calibration CACHE [--label label] [--pooling mean] [--group movie] [--splits 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import Cache, open_cache
from embedcache.heads.train import train_bank
from embedcache.runs.calibration import fit_temperature, measure_calibration
from embedcache.runs.data import load_data, make_task
from embedcache.runs.leaderboard import predict_rows
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import make_split

# name -> changes of the default recipe, and whether the last epoch is kept in place of the best
HEADS: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, False),
    "label smoothing 0.2": ({"label_smoothing": 0.2}, False),
    "lr 1e-3": ({"lr": 1e-3}, False),
    "lr 1e-3, last epoch": ({"lr": 1e-3}, True),
}


def measure(cache: Cache, arguments: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Of every head on one split, 80/10/10: the temperature, ECE and loss on the test rows without and with it."""
    data = load_data(cache, arguments.label, arguments.pooling, -1, arguments.group)
    split = make_split(data.y, cache.hashes, data.keys, seed=seed)
    results = {}
    for name, (changes, last) in HEADS.items():
        settings = make_recipe("default", seed=seed, **changes)
        task = make_task(data, split, settings.standardize, "none")
        if last:
            task.val = None
        heads = [(spec, 0) for spec in settings.specs()]
        head = train_bank([task], heads, batch_size=settings.batch_size, epochs=settings.epochs).heads[0]
        val, test = (predict_rows([head], data.x, rows)[0] for rows in (split.val, split.test))
        temperature = fit_temperature(data.y[split.val], val, "classification") or 1.0
        plain, scaled = (measure_calibration(data.y[split.test], test, "classification", t) for t in (1.0, temperature))
        results[name] = {"temperature": temperature, "ece": plain.ece, "ece_scaled": scaled.ece}
        results[name] |= {"loss": plain.loss, "loss_scaled": scaled.loss}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--group")
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_cache(arguments.cache) as cache:
        rows = cache.rows
        runs = [measure(cache, arguments, seed) for seed in range(arguments.splits)]
    print(f"test rows of {rows:,} rows, mean over {len(runs)} splits")
    for name in HEADS:
        means = {key: np.mean([run[name][key] for run in runs]) for key in runs[0][name]}
        print(f"{name:22}", "  ".join(f"{key} {value:.3f}" for key, value in means.items()))
    if arguments.json:
        document = {"machine": machine("numpy", "scipy"), "rows": rows, "runs": runs}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
