"""How long from a label to a retrained score, and from there to a new queue?

python -m benchmarks.active_learning.speed [--rows 12808,100000] [--json OUT]

Vectors are random ones around two middles, 384 wide, as MiniLM's; all labels are given for the retraining (the slowest
case), a tenth of them for the queue (else there would be no rows to rank). Medians of five.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from embedcache.active_learning.judgement import judge_labels, nearest_of
from embedcache.active_learning.queue import evidence_of, make_queue
from embedcache.active_learning.retrain import retrain
from embedcache.active_learning.snapshot import Pool, Snapshot

DIM, TURNS = 384, 5
JUDGED = 10_000  # labels


def seconds(work: Callable[[], Any]) -> float:
    took = []
    for _ in range(TURNS):
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return round(float(np.median(took)), 3)


def measure(rows: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows).astype(np.int32)
    x = (rng.standard_normal((rows, DIM)) + 0.1 * y[:, None]).astype(np.float16)
    pool = Pool.of(x, test=rng.random(rows) < 0.1)
    found: dict[str, float] = {"directions": seconds(lambda: Pool.of(x).directions)}
    whole = Snapshot(pool, y, ["a", "b"])
    found["retrain_all"] = seconds(lambda: retrain(whole))
    few = Snapshot(pool, np.where(rng.random(rows) < 0.1, y, -1).astype(np.int32), ["a", "b"])
    found["retrain_a_tenth"] = seconds(lambda: retrain(few))
    trained = retrain(few)
    some = few.learned[:JUDGED]
    found["neighbours_once"] = seconds(lambda: nearest_of(pool, some))
    nearest = nearest_of(pool, some)
    found["judge"] = seconds(lambda: judge_labels(few, trained, nearest))
    judged = judge_labels(few, trained, nearest)
    assert judged is not None
    found["queue_of_50"] = seconds(lambda: make_queue(evidence_of(few, trained, wrong=judged.wrong), 50))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="12808,100000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine("numpy", "scikit-learn"), "dim": DIM}
    for rows in map(int, options.rows.split(",")):
        results[str(rows)] = measure(rows)
        print(f"{rows:,} rows: {results[str(rows)]}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
