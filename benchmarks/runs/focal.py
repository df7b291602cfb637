"""What the focal loss and class weights change where the classes are unequal: the table in docs/recipes.md.

python -m benchmarks.runs.focal CACHE [--label label] [--pooling mean] [--hidden 512] [--splits 5] [--json FILE]
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
from embedcache.runs.data import load_data, make_task
from embedcache.runs.leaderboard import predict_rows
from embedcache.runs.metrics import evaluate
from embedcache.runs.recipes import make_recipe
from embedcache.runs.split import make_split

# name -> changes of the default recipe
HEADS: dict[str, dict[str, Any]] = {
    "nll": {},
    "focal, gamma 1": {"loss": "focal", "focal_gamma": 1.0},
    "focal, gamma 2": {"loss": "focal", "focal_gamma": 2.0},
    "focal, gamma 5": {"loss": "focal", "focal_gamma": 5.0},
    "nll, balanced": {"class_weight": "balanced"},
    "focal, gamma 2, balanced": {"loss": "focal", "class_weight": "balanced"},
}
CHOICES = ("loss", "macro_f1")  # what chooses the epoch on the validation rows


def measure(cache: Cache, arguments: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """Scores on the test rows of one split, 80/10/10, of every head and choice."""
    data = load_data(cache, arguments.label, arguments.pooling, -1, None)
    split = make_split(data.y, cache.hashes, data.keys, seed=seed)
    results = {}
    for choose in CHOICES:
        settings = [make_recipe("default", seed=seed, hidden=arguments.hidden, **changes) for changes in HEADS.values()]
        task = make_task(data, split, settings[0].standardize, "none")
        heads = [(one.specs()[0], 0) for one in settings]
        trained = train_bank([task], heads, epochs=arguments.epochs, choose=choose).heads
        outputs = predict_rows(trained, data.x, split.test)
        for name, logits in zip(HEADS, outputs, strict=True):
            found = evaluate(data.y[split.test], logits, data.classes)
            rarest = min((one for one in found.per_class if one.support), key=lambda one: one.support)
            about = {**found.scores, "rarest_recall": rarest.recall}
            about["ece"] = found.calibration.ece if found.calibration else float("nan")
            results[f"{name} | by {choose}"] = about
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with open_cache(arguments.cache) as cache:
        rows = cache.rows
        runs = [measure(cache, arguments, seed) for seed in range(arguments.splits)]
    print(f"test rows of {rows:,} rows, mean over {len(runs)} splits (standard deviation)")
    for name in runs[0]:
        values = {key: [run[name][key] for run in runs] for key in runs[0][name]}
        print(f"{name:42}", "  ".join(f"{k} {np.mean(v):.3f} ({np.std(v, ddof=1):.3f})" for k, v in values.items()))
    if arguments.json:
        about = {"rows": rows, "hidden": arguments.hidden, "epochs": arguments.epochs}
        document = {"machine": machine("numpy"), **about, "runs": runs}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
