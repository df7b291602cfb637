"""Does a sweep of last layers pay, and is bfloat16 as accurate as float32, and native as torch? On real reviews.

    python -m benchmarks.finetune.bank CACHE --group movie [--seeds 8] [--rates 1e-4,3e-5] [--torch-seeds 3]

CACHE was made with ``extract --pooling cls --tokens 1 --keep movie``. Every run is ``finetune --train last --pooling
cls``, none stopped early, from one and the same head: two heads that validation likes equally may lead to accuracies a
point apart, in every seed. The bank: every learning rate and seed, once in float32 and once in bfloat16; one of them
alone, on the same threads; and the torch engine with the first seeds at the first rate. Seconds are of the training
alone, processor seconds beside them: of all threads, whatever else runs. Accuracies are of validation rows, at the
epoch that the validation loss chose; paired by seed and learning rate.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from benchmarks.machine import RESULTS, machine
from embedcache.finetune import engine_native
from embedcache.finetune.job import finetune
from embedcache.runs.job import train_head


class Clock:
    """Sums what calls of the native engine take."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.wall, self.processor = work, 0.0, 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        try:
            return self.work(*args, **options)
        finally:
            self.wall += time.perf_counter() - wall
            self.processor += time.process_time() - processor


def one(
    cache: str, run: Path, start: Path, seeds: range, rates: tuple[float, ...], epochs: int, **options: Any
) -> dict[str, Any]:
    """A sweep: its seconds, and the validation accuracy of each configuration."""
    clock, work = Clock(engine_native.train), engine_native.train
    engine_native.train = clock
    try:
        report = finetune(
            cache, run, train="last", pooling="cls", from_run=start, seed=list(seeds), lr=list(rates), epochs=epochs,
            early_stop=0, **options,
        )  # fmt: skip
    finally:
        engine_native.train = work
    with (run / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    native = clock.wall > 0
    return {
        **options,
        "blocks": len(rows),
        "engine": report.engine,
        "rows": {side: report.split[side] for side in ("train", "val", "test")},
        "seconds": clock.wall if native else report.train_seconds,
        "processor_seconds": clock.processor if native else None,
        "load": os.getloadavg()[0],
        "val_accuracy": {f"{float(row['lr']):g} {row['seed']}": float(row["val_accuracy"]) for row in rows},
        "test_accuracy_of_the_best": report.best["test_accuracy"],
    }


def differences(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    """Of the validation accuracies of the same configurations, second less first; spread: the first's own, by seed."""
    both = sorted(set(first["val_accuracy"]) & set(second["val_accuracy"]))
    ours = [first["val_accuracy"][key] for key in both]
    found = [second["val_accuracy"][key] - first["val_accuracy"][key] for key in both]
    deviation = statistics.stdev if len(both) > 1 else lambda _: 0.0
    return {
        "pairs": len(both),
        "mean": statistics.fmean(found),
        "deviation": deviation(found),
        "spread": deviation(ours),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--group", required=True)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--without", nargs="*", default=[], choices=["one", "torch"])
    parser.add_argument("--rates", default="1e-4,3e-5")
    parser.add_argument("--torch-seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-bank.json")
    asked = parser.parse_args()
    seeds, single, rates = range(asked.seeds), range(1), tuple(map(float, asked.rates.split(",")))
    found: dict[str, Any] = {"machine": machine("torch", "transformers"), "epochs": asked.epochs}
    plan: dict[str, tuple[range, tuple[float, ...], dict[str, str]]] = {
        "bank float32": (seeds, rates, {"engine": "native", "compute": "float32"}),
        "one float32": (single, rates[:1], {"engine": "native", "compute": "float32"}),
        "bank bfloat16": (seeds, rates, {"engine": "native", "compute": "bfloat16"}),
        "one bfloat16": (single, rates[:1], {"engine": "native", "compute": "bfloat16"}),
        "torch": (range(asked.torch_seeds), rates[:1], {"engine": "torch", "compute": "float32"}),
    }
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder, "start")
        train_head(asked.cache, start, pooling="cls", group=asked.group)
        for name, (some, of, options) in plan.items():
            if not some or name.split()[0] in asked.without:
                continue
            found[name] = one(
                asked.cache, Path(folder, name.replace(" ", "-")), start, some, of, asked.epochs, **options
            )
            print(name, json.dumps(found[name]), flush=True)
            for compute in ("float32", "bfloat16"):
                bank, alone = found.get(f"bank {compute}"), found.get(f"one {compute}")
                if bank and alone:
                    found[f"{compute}: a block of the bank, of one alone"] = {
                        clock: bank[clock] / bank["blocks"] / alone[clock] for clock in ("seconds", "processor_seconds")
                    }
            for second in ("bank bfloat16", "torch"):
                if second in found:
                    found[f"accuracy: {second} less bank float32"] = differences(found["bank float32"], found[second])
            asked.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
