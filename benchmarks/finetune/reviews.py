"""How accurate are tuned layers on real reviews, split by film? One run a way and seed, each with its one test score.

python -m benchmarks.finetune.reviews CACHE --group movie [--ways head,last,top:2,full] [--seeds 0,1,2]

CACHE was made with ``extract --tokens 2``. Every way has the same split and its own defaults, so nothing favours one
but the defaults; the start is the best head of that seed. The test rows are the same in every run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, machine
from embedcache.finetune.job import finetune
from embedcache.runs.job import train_head

KEPT = ("val_accuracy", "test_accuracy", "test_accuracy_interval", "test_macro_f1", "test_groups")


def one(cache: str, way: str, seed: int, group: str, epochs: int, folder: Path) -> dict[str, Any]:
    """A run of one way and seed."""
    run, begun, cpu = folder / f"{way}-{seed}".replace(":", "-"), time.perf_counter(), time.process_time()
    if way == "head":
        report: Any = train_head(cache, run, group=group, seed=seed)
        trained: dict[str, Any] = {"parameters": 0}
    else:
        report = finetune(cache, run, train=way, group=group, seed=seed, epochs=epochs)
        trained = report.trained
    return {
        "way": way,
        "seed": seed,
        "pooling": report.pooling,
        "parameters": trained["parameters"],
        "split": {side: report.split[side] for side in ("train", "val", "test")},
        "best_epoch": report.best["best_epoch"],
        **{key: report.best[key] for key in KEPT},
        "baselines": {name: scores.get("test_accuracy") for name, scores in report.baselines.items()},
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - cpu,
        "train_seconds": report.train_seconds,
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache")
    parser.add_argument("--group", required=True)
    parser.add_argument("--ways", default="head,last,top:2,full")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-reviews.json")
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for way in options.ways.split(","):
            for seed in map(int, options.seeds.split(",")):
                found = one(options.cache, way, seed, options.group, options.epochs, Path(folder))
                runs.append(found)
                print(json.dumps(found), flush=True)
                document = {
                    "machine": machine("torch", "transformers", "numpy"),
                    "epochs": options.epochs,
                    "runs": runs,
                }
                options.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
