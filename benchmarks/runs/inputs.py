"""Does it pay to let the validation rows choose what heads read? The table in docs/recipes.md.

python -m benchmarks.runs.inputs CACHE... [--group movie] [--splits 5] [--json FILE]

CACHE: with the poolings model, cls and mean. Every split is dealt anew; each sweep is the default recipe's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.runs.job import train_head

SWEEPS = {
    "model": "model",
    "cls": "cls",
    "mean": "mean",
    "each": "model,cls,mean",
    "each, and cls+mean": "model,cls,mean,cls+mean",
}


def measure(cache: Path, pooling: str, seed: int, group: str | None) -> dict[str, Any]:
    """Test accuracy, what was chosen and seconds of training of one sweep on one split."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        report = train_head(cache, Path(folder) / "run", pooling=pooling, split=seed, group=group)
        seconds = time.perf_counter() - start
    accuracy = report.best["test_accuracy"]
    about = {"test_accuracy": accuracy, "val_loss": report.best["val_loss"], "chosen": report.pooling}
    return {**about, "train_seconds": report.train_seconds, "seconds": seconds, "heads": report.heads}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--group", help="of the caches that keep such a column")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for cache in arguments.caches:
        with open_cache(cache) as opened:
            rows, group = opened.rows, arguments.group if arguments.group in opened.column_names else None
        runs = {
            name: [measure(cache, pooling, seed, group) for seed in range(arguments.splits)]
            for name, pooling in SWEEPS.items()
        }
        found[cache.stem] = {"rows": rows, "group": group, "runs": runs}
        base = np.array([run["test_accuracy"] for run in runs["model"]])
        print(f"{cache.stem}: {rows:,} rows, mean over {arguments.splits} splits (standard deviation)")
        for name, some in runs.items():
            more = np.array([run["test_accuracy"] for run in some]) - base
            seconds = np.mean([run["train_seconds"] for run in some])
            chosen = sorted(run["chosen"] for run in some)
            print(
                f"{name:20} {np.mean(more + base):.3f}  over model {np.mean(more):+.3f} ({np.std(more, ddof=1):.3f})  "
                f"{some[0]['heads']} heads in {seconds:.1f} s  chosen: {', '.join(chosen)}"
            )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine("numpy"), "caches": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
