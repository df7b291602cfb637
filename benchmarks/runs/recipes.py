"""Test accuracy of the recipes beside the baselines, over several splits of a cache: the table in docs/recipes.md.

python -m benchmarks.runs.recipes CACHE [--label label] [--group movie] [--rows 4000] [--splits 8] [--json FILE]

"default" is all that train-head does where nothing is named: four heads, early stopping, the best of them.
"--epochs 15" is one head of 512 units without early stopping.
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
from embedcache.runs.automatic import settle
from embedcache.runs.baseline_features import BaselineRows
from embedcache.runs.baselines import run_baselines
from embedcache.runs.data import load_data, make_task
from embedcache.runs.leaderboard import predict_rows
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import make_split

HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("default", {}),
    "--epochs 15": ("default", {"epochs": 15}),
    "--epochs 15 --hidden 0": ("default", {"epochs": 15, "hidden": 0}),
    "article": ("article", {}),
}


def measure(cache: Cache, label: str | None, group: str | None, rows: int, seed: int) -> dict[str, float]:
    """Test accuracy of everything on one random choice of rows and one split of it, 80/10/10 for every recipe."""
    data = {pooling: load_data(cache, label, pooling, -1, group) for pooling in cache.poolings}
    first = next(iter(data.values()))
    left_out = np.random.default_rng(seed).permutation(cache.rows)[rows:]
    y = first.y.copy()
    y[left_out] = -1
    split = make_split(y, cache.hashes, first.keys, seed=seed)
    baselines = run_baselines(BaselineRows(cache.texts, first.x, y, split))
    results = {name: one.scores["test_accuracy"] for name, one in baselines.items()}
    for pooling, one in data.items():
        one.y = y
        for name, (recipe, changes) in HEADS.items():
            settings, stop = make_recipe(recipe, seed=seed, **changes), 0
            if recipe == "default":  # FEW_ROWS would be validated on by folds: see heads_small.py
                settled = settle(settings, changes, [rows], [rows])
                assert settled.folds is None
                settings, stop = settled.settings, settled.early_stop
            task = make_task(one, split, settings.standardize, "none")
            heads = [(spec, 0) for spec in settings.specs()]
            bank = train_bank([task], heads, batch_size=settings.batch_size, epochs=settings.epochs, early_stop=stop)
            predicted = predict_rows([bank.best], one.x, split.test)[0].argmax(1)
            results[f"{pooling}: {name}"] = float((predicted == y[split.test]).mean())
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--group")
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_cache(arguments.cache) as cache:
        rows = min(arguments.rows, cache.rows)
        runs = [measure(cache, arguments.label, arguments.group, rows, seed) for seed in range(arguments.splits)]
    accuracy = {name: [run[name] for run in runs] for name in runs[0]}
    print(f"test accuracy on {rows:,} rows, mean and standard deviation over {len(runs)} splits")
    for name, values in accuracy.items():
        print(f"{name:28} {np.mean(values):.3f}  {np.std(values, ddof=1):.3f}")
    if arguments.json:
        document = {"machine": machine("numpy", "scikit-learn"), "rows": rows, "test_accuracy": accuracy}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
