"""How far float32 engines end from float64 after 200 steps at full size: the native engine and a plain PyTorch loop.

    python -m benchmarks.heads.parity [CACHE] [--seeds 4] [--json FILE]

768-512-2 (or D-512-C of the cache's first label column), batch 32. The distance is the norm of the difference over the
norm of the way travelled from the initial weights. A pre-activation within rounding of zero can switch its ReLU in any
float32 engine; such a run ends a hundred times and more as far away, whichever engine it hits, so flips are counted
beside the medians. The tests use 64 hidden units, where they are rare.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import Task, View, train_bank
from tests.heads.engines import make_task
from tests.heads.float64_reference import distance, train
from tests.heads.pytorch_loop import pytorch_train

ROWS, BATCH, EPOCHS = 1600, 32, 4  # 200 steps
FLIPPED = 1e-4  # no run without a flip came near


def cached_task(path: str) -> Task:
    with open_cache(path) as cache:
        y, classes = cache.labels(cache.label_names[0])
        x = cache.embeddings(cache.poolings[0]).astype(np.float32)
    rows = np.flatnonzero(y >= 0)[:ROWS]
    return Task(View(x, y, rows), None, len(classes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", nargs="?")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    task = cached_task(arguments.cache) if arguments.cache else make_task(ROWS, 768, 2, noise=1.0)
    distances: dict[str, list[float]] = {"embedcache native": [], "torch float32": []}
    loss_errors = []  # of the native engine's epoch losses, relative, the worst of a run
    for lr in (1e-3, 1e-4):
        for dropout in (0.0, 0.1):
            for seed in range(arguments.seeds):
                spec = HeadSpec(hidden=512, dropout=dropout, seed=seed, lr=lr)
                reference = train(task, spec, BATCH, EPOCHS)
                bank = train_bank([task], [(spec, 0)], batch_size=BATCH, epochs=EPOCHS, engine="native")
                losses = bank.history["train_loss"][0]
                loss_errors.append(float(np.max(np.abs(losses - reference.train_loss) / reference.train_loss)))
                ends = [bank.heads[0].weights, pytorch_train(task, spec, BATCH, EPOCHS, torch.float32)]
                for values, weights in zip(distances.values(), ends, strict=True):
                    values.append(distance(weights, reference.weights, reference.initial))
    for name, values in distances.items():
        smooth = [value for value in values if value < FLIPPED]
        middle = f"{statistics.median(smooth):.1e}" if smooth else "-"
        print(f"{name:20} {len(values) - len(smooth)} of {len(values)} runs with a flip; median of the others {middle}")
    close = sum(error < 1e-5 for error in loss_errors)
    print(f"native: every epoch's loss within 1e-5 of float64 in {close} of {len(loss_errors)} runs;", end=" ")
    print(f"median {statistics.median(loss_errors):.1e}, worst {max(loss_errors):.1e}")
    if arguments.json:
        data = "random" if arguments.cache is None else Path(arguments.cache).name
        document = {"machine": machine("numpy", "torch"), "data": data, "distances": distances}
        document["native_loss_errors"] = loss_errors
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
