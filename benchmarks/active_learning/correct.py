"""Does correcting what audit lists first bring the accuracy back? 5% of the labels are exchanged, then looked at.

python -m benchmarks.active_learning.correct [--data reviews,newsgroups] [--seeds 10] [--json OUT]

5% of the training labels become another class, drawn evenly. The same heads (active_learning.retrain) are trained on
the labels as they were, on these, and on these after the 5% of the rows that come first were given their label from
before; the test rows keep theirs. Who says which come first:

- audit: `embedcache audit`, heads, neighbours and words;
- queue: active_learning.judgement, the heads and neighbours that are there anyway while people label;
- random: rows by chance, which find a twentieth of the errors.

Recovered is (corrected - exchanged) / (as they were - exchanged), of the means over the seeds. Small losses make it
shaky: the JSON has every seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import embedcache as ec
from benchmarks.active_learning.simulate import load
from benchmarks.extraction.data import fetch
from benchmarks.machine import machine
from embedcache.active_learning.judgement import judge_labels, nearest_of
from embedcache.active_learning.retrain import retrain
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.audit.job import AuditedRows, Opinions, find_nearest

SHARE = 0.05
NEIGHBOURS = 20
TRAININGS = 5


class Corrected:
    """One data set, whose training labels are spoilt and mended."""

    def __init__(self, data: str, caches: Path) -> None:
        self.rows = load(data, "minilm", caches)
        self.cache = ec.open_cache(caches / f"active-{data}-minilm.h5")
        self.table = AuditedRows(self.cache, "label", "model", -1, None, 5, None)
        self.nearest = find_nearest(self.table, NEIGHBOURS, None)
        side = np.zeros(len(self.rows.truth), bool)
        side[self.rows.test] = True
        self.pool = Pool.of(self.rows.x, test=side)
        self.quick = nearest_of(self.pool, self.rows.pool)

    def snapshot(self, y: np.ndarray) -> Snapshot:
        return Snapshot(self.pool, y, self.rows.classes)

    def accuracy(self, y: np.ndarray) -> float:
        """The mean of some trainings, whose luck is as large as what 5% of errors cost."""
        snapshot = self.snapshot(y)
        scores = [retrain(snapshot, seed=seed).test for seed in range(TRAININGS)]
        return float(np.mean([score.value for score in scores if score is not None]))

    def turn(self, seed: int) -> dict[str, Any]:
        """Accuracies of one seed, and the share of the errors among the rows that each lists first."""
        truth, pool, rng = self.rows.truth, self.rows.pool, np.random.default_rng(seed)
        count = round(SHARE * len(pool))
        wrong = rng.permutation(pool)[:count]
        y = truth.copy()
        y[wrong] = (y[wrong] + rng.integers(1, len(self.rows.classes), count)) % len(self.rows.classes)
        found: dict[str, Any] = {"as_they_were": self.accuracy(truth), "exchanged": self.accuracy(y)}
        for name, rows in {"audit": self.audit(y), "queue": self.queue(y), "random": rng.permutation(pool)}.items():
            mended = y.copy()
            mended[rows[:count]] = truth[rows[:count]]
            found[name] = self.accuracy(mended)
            found[f"{name}_errors"] = float(np.isin(rows[:count], wrong).mean())
        return found

    def audit(self, y: np.ndarray) -> np.ndarray:
        known = np.full(len(y), -1, np.int32)
        known[self.rows.pool] = y[self.rows.pool]
        table = self.table
        table.data = replace(table.data, y=np.where(table.found, known, -1).astype(np.int32))
        judged = Opinions(table, self.nearest, [0], None).judged
        return np.asarray(judged.rows[judged.order])

    def queue(self, y: np.ndarray) -> np.ndarray:
        snapshot = self.snapshot(y)
        judged = judge_labels(snapshot, retrain(snapshot), self.quick)
        assert judged is not None
        return np.argsort(-np.nan_to_num(judged.wrong, nan=-1), kind="stable")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="reviews,newsgroups")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--caches", type=Path, default=fetch.DATA)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {"machine": machine("numpy", "scikit-learn"), "share": SHARE}
    for data in options.data.split(","):
        what = Corrected(data, options.caches)
        turns = []
        for seed in range(options.seeds):
            turns.append(what.turn(seed))
            print(f"{data} seed {seed}", file=sys.stderr, flush=True)
        mean = {name: float(np.mean([turn[name] for turn in turns])) for name in turns[0]}
        lost = mean["as_they_were"] - mean["exchanged"]
        back = {name: (mean[name] - mean["exchanged"]) / lost for name in ("audit", "queue", "random")}
        results[data] = {"mean": mean, "recovered": back, "turns": turns}
        print(f"{data}: {mean['as_they_were']:.4f}, exchanged {mean['exchanged']:.4f}")
        for name, share in back.items():
            errors = mean[f"{name}_errors"]
            print(
                f"  {name}: {mean[name]:.4f}, {share:.0%} of the loss back; {errors:.0%} of its rows wrong", flush=True
            )
        if options.json:
            options.json.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
