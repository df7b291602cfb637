"""recall@10 and queries/s against exact FAISS, autofaiss, hnswlib and usearch, on all threads of this machine.

    python -m benchmarks.search.speed [--data glove,reviews] [--turns 5] [--json FILE]

Queries are held out: they are not in the index. Every contender is built once; its curve is measured over its knob;
then the least knob that reaches recall 0.99 *on these very queries* is found for every peer (an advantage: embedcache
takes what it has tuned on rows of its own), and all of them answer the whole batch in alternate turns. Medians count;
of a point of the curve the best of three.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, machine, slug
from benchmarks.search.data import split
from benchmarks.search.peers import Contender, Ours, contenders

RECALL = 0.99
SINGLE = 300  # queries one at a time
EXACT_QUERIES = 1000  # exact search of all would take most of the time
PACKAGES = ("faiss-cpu", "hnswlib", "usearch", "numpy")


def truth_of(X: np.ndarray, Q: np.ndarray) -> np.ndarray:
    """[q, 10] true neighbours."""
    import faiss

    return faiss.knn(Q, X, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]


def recall_of(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean())


def timed(one: Contender, Q: np.ndarray, knob: int) -> tuple[float, float, np.ndarray]:
    """Queries a second of the clock, and of the processor's time of one core; rows."""
    clock, used = time.perf_counter(), time.process_time()
    found = one.search(Q, knob)
    return len(Q) / (time.perf_counter() - clock), len(Q) / (time.process_time() - used), found


def curve_of(one: Contender, Q: np.ndarray, truth: np.ndarray) -> list[dict[str, float]]:
    points = []
    for knob in one.knobs:
        if knob == 1:  # exact
            Q, truth = Q[:EXACT_QUERIES], truth[:EXACT_QUERIES]
        one.search(Q[:200], knob)
        found = one.search(Q, knob)
        rate, per_core = (max(some) for some in zip(*(timed(one, Q, knob)[:2] for _ in range(3)), strict=True))
        recall = recall_of(found, truth)
        points.append({"knob": knob, "recall": recall, "queries_per_second": rate, "per_core_second": per_core})
        if recall > 0.9995 and len(one.knobs) > 1:
            break
    return points


def knob_at(one: Contender, points: list[dict[str, float]], Q: np.ndarray, truth: np.ndarray) -> int | None:
    """The least knob that reaches RECALL; None where none does."""
    if isinstance(one, Ours):
        return int(RECALL * 1e4)
    reached = [point["knob"] for point in points if point["recall"] >= RECALL]
    missed = [point["knob"] for point in points if point["recall"] < RECALL]
    if not reached:
        return None
    low, high = int(max(missed, default=reached[0] - 1)), int(reached[0])
    while high - low > max(1, high // 32):
        middle = (low + high) // 2
        if recall_of(one.search(Q, middle), truth) >= RECALL:
            high = middle
        else:
            low = middle
    return high


def compare(name: str, turns: int, threads: int) -> dict[str, Any]:
    X, Q = split(name)
    truth = truth_of(X, Q)
    results: dict[str, dict[str, Any]] = {}
    chosen: dict[str, tuple[Contender, int]] = {}
    for one in contenders(name):
        start, used = time.perf_counter(), os.times()
        one.build(X, threads)
        seconds, now = time.perf_counter() - start, os.times()
        core_seconds = sum(now[:4]) - sum(used[:4])  # of child processes, too
        points = curve_of(one, Q, truth)
        result = results[one.name] = {"settings": one.settings, "build_seconds": seconds, "curve": points}
        result |= {"build_core_seconds": core_seconds, "bytes": one.size()}
        if isinstance(one, Ours):
            result["build_seconds_without_tuning"] = one.build_seconds
        knob = knob_at(one, points, Q, truth)
        if knob is not None:
            chosen[one.name] = one, knob
        print(f"{name}: {one.name} ({one.settings}): built in {seconds:.1f} s, knob {knob}", file=sys.stderr)
    for name_of, (one, knob) in chosen.items():
        results[name_of]["at"] = {"knob": knob, "turns": [], "core_turns": []}
        some = 1 if one.knobs == (1,) else None
        results[name_of]["at"]["recall"] = recall_of(one.search(Q[:EXACT_QUERIES] if some else Q, knob),
                                                     truth[:EXACT_QUERIES] if some else truth)  # fmt: skip
        results[name_of]["at"]["single_ms"] = single(one, Q, knob)
    for _ in range(turns):
        for name_of, (one, knob) in chosen.items():
            rate, per_core, _ = timed(one, Q[:EXACT_QUERIES] if one.knobs == (1,) else Q, knob)
            results[name_of]["at"]["turns"].append(rate)
            results[name_of]["at"]["core_turns"].append(per_core)
    for result in results.values():
        if "at" in result:
            result["at"]["queries_per_second"] = statistics.median(result["at"]["turns"])
            result["at"]["per_core_second"] = statistics.median(result["at"]["core_turns"])
    return {"data": name, "rows": len(X), "dim": X.shape[1], "queries": len(Q), "results": results}


def single(one: Contender, Q: np.ndarray, knob: int) -> float:
    """p50 of one query at a time, in ms."""
    seconds = []
    for i in range(SINGLE):
        start = time.perf_counter()
        one.search(Q[i : i + 1], knob)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="glove,reviews")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="default: benchmarks/results/search-<data>-<cpu>.json for each")
    asked = parser.parse_args()
    about = machine(*PACKAGES)
    for data in asked.data.split(","):
        report: dict[str, Any] = {"machine": about, "recall": RECALL, "k": 10, "turns": asked.turns}
        report["load_average_at_start"] = os.getloadavg()[0]
        report["cases"] = [compare(data, asked.turns, about["cores"])]
        report["load_average_at_end"] = os.getloadavg()[0]
        path = asked.json or RESULTS / f"search-{data}-{slug(about['cpu'])}.json"
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
