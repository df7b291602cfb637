"""How often the 95% intervals of embedcache/runs/intervals.py hold the truth: the figures in docs/recipes.md.

python -m benchmarks.runs.intervals CACHE [--label label] [--pooling mean] [--group movie] [--samples 1000]
                                    [--json FILE]

A population is the rows of the groups that two logistic regressions (on the vectors of 60 groups, and of 20) did not
learn from. A sample is some groups of it, drawn with replacement, with all their rows, or for single rows some rows. An
interval holds if the population's value lies in it. "rows" is Wilson's interval over the rows of the grouped samples,
which train-head gave before. A second population is made up: its groups differ more than films do, in size and in how
well the model does on them, and its classes are unequal.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.runs.data import load_data
from embedcache.runs.intervals import accuracy_interval, score_difference, score_interval
from embedcache.runs.metrics import score_labels

GROUPS = (5, 10, 25, 50)  # in a sample
ROWS = (60, 200, 600)
ACCURACY_AND_F1 = ("accuracy", "macro_f1")
Population = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # y, two models' predictions, groups: int [n]


def reviews(arguments: argparse.Namespace) -> Population:
    with open_cache(arguments.cache) as cache:
        data = load_data(cache, arguments.label, arguments.pooling, -1, arguments.group)
        x, y, groups = np.array(data.x, np.float32), data.y, data.groups
    assert groups is not None
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    rest = np.isin(groups, order[60:])
    predicted = []
    for some in (order[:60], order[:20]):
        rows = np.isin(groups, some)
        scaler = StandardScaler().fit(x[rows])
        model = LogisticRegression(C=0.01, max_iter=1000).fit(scaler.transform(x[rows]), y[rows])
        predicted.append(model.predict(scaler.transform(x[rest])))
    return y[rest], predicted[0], predicted[1], groups[rest]


def made_up() -> Population:
    rng = np.random.default_rng(1)
    groups = 3000
    sizes = np.maximum(1, rng.lognormal(2.5, 1.0, groups).round()).astype(int)
    group, share = np.arange(groups).repeat(sizes), rng.beta(2.4, 0.8, groups)
    y = rng.choice(3, len(group), p=[0.65, 0.25, 0.1])
    predicted = []
    for right in (share, np.clip(share - 0.1 + rng.normal(0, 0.2, groups), 0, 1)):
        guess = rng.choice(3, len(group), p=[0.7, 0.2, 0.1])
        predicted.append(np.where(rng.random(len(group)) < right[group], y, guess))
    return y, predicted[0], predicted[1], group


def count(population: Population, size: int, grouped: bool, samples: int) -> dict[str, dict[str, float]]:
    """Of every interval: in how many of 100 samples it holds, and its mean width."""
    y, first, second, groups = population
    scores = [score_labels(model, y) for model in (first, second)]
    of_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(np.unique(groups, return_counts=True)[1])[:-1])
    rng = np.random.default_rng(size)
    found: dict[str, list[tuple[bool, float]]] = {}

    def look(name: str, interval: tuple[float, float] | None, truth: float) -> None:
        low, high = interval or (0.0, 1.0)  # none was given: nothing was claimed
        found.setdefault(name, []).append((low - 1e-9 <= truth <= high + 1e-9, high - low))

    for _ in range(samples):
        some = rng.integers(0, len(of_group) if grouped else len(y), size)
        rows = np.concatenate([of_group[g] for g in some]) if grouped else some
        unit = np.arange(size).repeat([len(of_group[g]) for g in some]) if grouped else None
        truth, a, b = y[rows], first[rows], second[rows]
        if grouped:
            look("accuracy, rows", accuracy_interval(float((truth == a).mean()), len(rows)), scores[0][0])
        for i, metric in enumerate(ACCURACY_AND_F1):
            look(metric, score_interval(metric, truth, a, unit), scores[0][i])
            between = score_difference(metric, truth, a, b, unit).interval
            look(f"{metric}, difference", between, scores[0][i] - scores[1][i])
    return {
        name: {
            "held_of_100": round(100 * np.mean([h for h, _ in some]), 1),
            "width": float(np.mean([w for _, w in some])),
        }
        for name, some in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--label")
    parser.add_argument("--pooling", default="mean")
    parser.add_argument("--group", default="movie")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report: dict[str, Any] = {"machine": machine(), "samples": arguments.samples, "populations": {}}
    for name, population in (("reviews", reviews(arguments)), ("made up", made_up())):
        y, first, second, groups = population
        about: dict[str, Any] = {"rows": len(y), "groups": len(np.unique(groups))}
        about["scores"] = [dict(zip(ACCURACY_AND_F1, score_labels(model, y), strict=True)) for model in (first, second)]
        about["samples"] = {
            f"{size} {what}": count(population, size, what == "groups", arguments.samples)
            for what, sizes in (("groups", GROUPS), ("rows", ROWS))
            for size in sizes
        }
        report["populations"][name] = about
        print(f"{name}: {about['rows']:,} rows in {about['groups']:,} groups; scores {about['scores']}")
        for sample, found in about["samples"].items():
            print(
                f"  {sample:10} " + ", ".join(f"{key} {one['held_of_100']}" for key, one in found.items()), flush=True
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
