"""What does --compute bfloat16 save where torch trains all layers on a CPU?

python -m benchmarks.finetune.compute MODEL,MODEL --texts reviews.csv [--rows 640] [--turns 3] [-o JSON]

An epoch of full, lora and adapter in float32 and in bfloat16, in turns, validation included. Texts have
a column "text" and a column "label".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from pyarrow.csv import read_csv

from benchmarks.machine import RESULTS, machine
from embedcache.extraction.job import extract
from embedcache.finetune.job import finetune
from embedcache.runs.folder import load_run

WAYS, COMPUTES = ("full", "lora", "adapter"), ("float32", "bfloat16")


def measure(model: str, table: Any, turns: int, folder: Path) -> dict[str, Any]:
    """Seconds of the training alone, by way and compute."""
    cache = folder / "cache.h5"
    extract(table, cache, model=model)
    found: dict[str, Any] = {way: {compute: [] for compute in COMPUTES} for way in WAYS}
    for turn in range(turns + 1):
        for way in WAYS:
            for compute in COMPUTES:
                run = folder / f"{way}-{compute}-{turn}"
                finetune(cache, run, train=way, compute=compute, epochs=1, early_stop=0)
                if turn:  # the first one warms up
                    found[way][compute].append(load_run(run).info["times"]["training"])
    for way in WAYS:
        ratios = [one / other for one, other in zip(*(found[way][compute] for compute in COMPUTES), strict=True)]
        found[way]["ratio"] = {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}
        print(f"{model} {way}: {json.dumps(found[way])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", help="folders, separated by commas")
    parser.add_argument("--texts", required=True)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-compute.json")
    options = parser.parse_args()
    table = read_csv(options.texts).select(["text", "label"]).slice(0, options.rows)
    characters = statistics.mean(pc.utf8_length(table["text"]).to_pylist())
    models: dict[str, Any] = {}
    for model in options.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            models[Path(model).name] = measure(model, table, options.turns, Path(folder))
    document = {"machine": machine("torch", "transformers", "peft"), "load": os.getloadavg(), "rows": options.rows}
    document |= {"mean_characters": characters, "turns": options.turns, "models": models}
    options.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
