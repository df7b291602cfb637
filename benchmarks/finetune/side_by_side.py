"""What does it save that configurations of one sweep read their states together? On a CPU.

python -m benchmarks.finetune.side_by_side CACHE [--rows 1024] [--turns 5] [-o JSON]

CACHE: of extract --tokens K. An epoch of four learning rates by the torch engine, one after another as before, and
side by side as now; the same bits (checked). By processor time of the process (user and system), as other work on the
machine changes the clock's; the ratios of a turn are what counts. The states are in the system's memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import RESULTS, machine
from embedcache.cache import open_cache
from embedcache.encoder import Encoder
from embedcache.finetune.config import Config, Way
from embedcache.finetune.inputs import States
from embedcache.finetune.lift import lift
from embedcache.finetune.loop import LoopOptions, Training, train_together
from embedcache.finetune.top import Top, first_alone
from embedcache.finetune.trainee import Trainee
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View

RATES, BATCH = (1e-5, 3e-5, 1e-4, 3e-4), 32


def make_trainings(encoder: Encoder, keep: int, pooling: str, inputs: Any, rows: int, folder: Path) -> list[Training]:
    y = (np.arange(rows) % 2).astype(np.int32)
    view = View(np.zeros((rows, 1), np.float32), y, np.arange(rows))
    start = {"w2": np.zeros((2, encoder.dim), np.float32), "b2": np.zeros(2, np.float32)}
    found = []
    for rate in RATES:
        config = Config(Way.parse(f"top:{keep}"), pooling, HeadSpec(hidden=0, lr=rate), rate, BATCH, 1)
        top = Top(encoder.model, keep, first_alone(encoder.model, pooling), int(inputs.lengths.max()))
        trainee = Trainee(top, encoder, pooling, TrainedHead(HeadSpec(hidden=0), dict(start)))
        options = LoopOptions(0, "loss", "cpu", False, folder / f"{rate}", False, lambda rows: None)
        found.append(Training(trainee, inputs, Task(view, None, 2), config, "", options))
    return found


def measure(make: Callable[[], list[Training]], turns: int) -> dict[str, Any]:
    """Seconds of an epoch of all four, in turns."""
    cpu: dict[str, list[float]] = {"one by one": [], "side by side": []}
    wall: dict[str, list[float]] = {name: [] for name in cpu}
    weights = {}
    for turn in range(turns + 1):
        for name in cpu:
            trainings = make()
            groups = [trainings] if name == "side by side" else [[one] for one in trainings]
            begun, used = time.perf_counter(), time.process_time()
            for group in groups:
                train_together(group)
            if turn:  # the first is a warm-up
                cpu[name].append(time.process_time() - used)
                wall[name].append(time.perf_counter() - begun)
            weights[name] = [one.state.best for one in trainings]
    for mine, theirs in zip(*weights.values(), strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in theirs)
    found: dict[str, Any] = {name: statistics.median(some) for name, some in cpu.items()}
    ratios = [before / now for before, now in zip(*cpu.values(), strict=True)]
    clock = [before / now for before, now in zip(*wall.values(), strict=True)]
    return {
        "cpu_seconds": found,
        "seconds": {name: statistics.median(some) for name, some in wall.items()},
        "ratio_cpu": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "ratio": {"median": statistics.median(clock), "least": min(clock), "most": max(clock)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cache")
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "finetune-side-by-side.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with open_cache(options.cache) as cache, tempfile.TemporaryDirectory() as folder:
        encoder = Encoder.load(cache.encoder["source"], dtype="float32", kernel="plain")
        stored: Any = cache.token_states()
        lengths = np.asarray(stored.lengths)[: options.rows]
        for keep in range(1, stored.layers + 1):
            states: Any = States(stored, lengths)
            inputs = states if keep == stored.layers else lift(encoder, states, stored.layers, stored.layers - keep)
            for pooling in ("cls", "mean"):
                name = f"top:{keep}, {pooling}"
                make = partial(make_trainings, encoder, keep, pooling, inputs, options.rows, Path(folder))
                found[name] = measure(make, options.turns)
                print(name, json.dumps(found[name]), flush=True)
    document = {
        "machine": machine("torch", "transformers"),
        "threads": 1,
        "load": os.getloadavg(),
        "rates": RATES,
        "rows": options.rows,
        "batch": BATCH,
        "mean_tokens": float(lengths.mean()),
        "turns": options.turns,
        "ways": found,
    }
    options.output.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
