"""Validation accuracy of heads trained in bfloat16 against float32, on a cache of real reviews.

    python -m benchmarks.heads.bfloat16 CACHE... [--label label] [--group movie] [--seeds 8] [--json FILE]

Every seed makes a split (80/10/10; the article 80/20), initial weights, row order and dropout, the same for both modes;
the best epoch is chosen by validation loss, as always. Accuracies in points of 100; the spread is that of the
difference between the two modes over the seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from benchmarks.machine import RESULTS, machine
from embedcache.cache import open_cache
from embedcache.heads.train import train_bank
from embedcache.runs.data import load_data, make_task
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import make_split

MODES = ("float32", "bfloat16")
RECIPES = ("default", "article")


def measure(path: str, label: str | None, group: str | None, seeds: int) -> dict[str, dict[str, list[float]]]:
    """Accuracy of each seed, for every pooling and recipe, in both modes."""
    accuracy: dict[str, dict[str, list[float]]] = {}
    with open_cache(path) as cache:
        for pooling in cache.poolings:
            data = load_data(cache, label, pooling, -1, group)
            for name in RECIPES:
                of = accuracy[f"{pooling}: {name}"] = {mode: [] for mode in MODES}
                for seed in range(seeds):
                    recipe = make_recipe(name, seed=seed)
                    split = make_split(data.y, cache.hashes, data.keys, seed=seed, val=recipe.val, test=recipe.test)
                    task = make_task(data, split, recipe.standardize, "none")
                    heads = [(spec, 0) for spec in recipe.specs()]
                    for mode in MODES:
                        how = {"batch_size": recipe.batch_size, "epochs": recipe.epochs, "compute": mode}
                        bank = train_bank([task], heads, engine="native", device="cpu", **how)
                        of[mode].append(100 * bank.heads[0].val_accuracy)
    return accuracy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", nargs="+")
    parser.add_argument("--label")
    parser.add_argument("--group")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--json", type=Path, default=RESULTS / "bfloat16.json")
    arguments = parser.parse_args()
    results = []
    for path in arguments.cache:
        accuracy = measure(path, arguments.label, arguments.group, arguments.seeds)
        with open_cache(path) as cache:
            rows, dim = cache.rows, cache.embeddings(cache.poolings[0]).shape[1]
        print(f"{Path(path).name}: {rows:,} rows of {dim}; validation accuracy, mean over {arguments.seeds} seeds")
        for name, of in accuracy.items():
            float32, bfloat16 = (np.array(of[mode]) for mode in MODES)
            print(f"  {name:16} float32 {float32.mean():6.2f}  bfloat16 {bfloat16.mean():6.2f}", end="  ")
            print(f"difference {(bfloat16 - float32).mean():+.2f}, spread {(bfloat16 - float32).std(ddof=1):.2f}")
        results.append({"cache": Path(path).name, "rows": rows, "dim": dim, "validation_accuracy": accuracy})
    document = {"machine": machine("numpy"), "seeds": arguments.seeds, "results": results}
    arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
