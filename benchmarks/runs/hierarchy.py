"""A tree of classes: leaves and sums of them against a head for each level alone. The tables in docs/hierarchy.md.

python -m benchmarks.runs.hierarchy NEWSGROUPS [--splits 3] [--json FILE]

NEWSGROUPS: a cache of the 20 newsgroups (demo/data) with the label columns top (comp), second (comp.sys) and label
(comp.sys.mac.hardware). Every split is dealt anew, the same for all heads; each head is the default recipe's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.intervals import score_difference, score_interval
from embedcache.runs.job import train_head

LEVELS = ["top", "second", "label"]
SURE = (0.6, 0.7, 0.8, 0.9, 0.95)


def measure(cache: Path, seed: int, folder: Path) -> dict[str, Any]:
    """One split: each way at each level, and what --sure promises and keeps."""
    for level in LEVELS[:-1]:
        train_head(cache, folder / level, label=level, split=seed)
    report = train_head(cache, folder / "label", hierarchy=LEVELS, split=seed)
    with open_cache(cache) as opened:
        rows = np.flatnonzero(np.array(sides_of(folder / "label")) == "test")
        vectors = opened.embeddings(report.pooling)[rows].astype(np.float32)
        gold = {}
        for level in LEVELS:
            codes, names = opened.labels(level)
            gold[level] = np.array(names)[codes[rows]]
    run = load_run(folder / "label")
    tree = Hierarchy.of(run.info)
    assert tree is not None
    p = Classifier.load(folder / "label", "cpu", encode=False).predict_proba(vectors=vectors)
    nodes, names = tree.probabilities(p), np.array(tree.names)
    leaf = tree.own[p.argmax(axis=1)]
    alone = {level: np.array(load_run(folder / level).best.predict(vectors)) for level in LEVELS[:-1]}
    alone["label"] = names[leaf]
    found: dict[str, Any] = {"test_rows": len(rows), "hierarchical_f1": report.evaluation["test"]["hierarchical_f1"]}
    found["levels"] = {}
    for i, level in enumerate(LEVELS):
        ways = {
            "path of the leaf": names[tree.on_level(leaf, i)],
            "largest sum": names[np.where(tree.depths == i, nodes, -1).argmax(axis=1)],
            "head of the level": alone[level],
        }
        found["levels"][level] = compared(gold[level], ways)
    parents = {path[-1]: path[:-1] for path in tree.paths}
    apart = [(alone["top"][i], alone["second"][i]) != parents[alone["label"][i]] for i in range(len(rows))]
    found["heads_that_contradict"] = float(np.mean(apart))
    found["sure"] = [sure(folder / "label", least, vectors, gold["label"], tree) for least in SURE]
    return found


def compared(gold: np.ndarray, ways: dict[str, np.ndarray]) -> dict[str, Any]:
    """Accuracy of each way with its interval, and the first less each other on the same rows."""
    names = np.unique([gold, *ways.values()])
    y, *said = (np.searchsorted(names, one) for one in (gold, *ways.values()))
    found: dict[str, Any] = {}
    for name, one in zip(ways, said, strict=True):
        found[name] = {"accuracy": float((one == y).mean()), "interval": score_interval("accuracy", y, one)}
        if one is not said[0]:
            found[name]["less"] = score_difference("accuracy", y, said[0], one).to_dict()
    return found


def sure(run: Path, least: float, vectors: np.ndarray, gold: np.ndarray, tree: Hierarchy) -> dict[str, Any]:
    """What the validation rows promise, and what the test rows do."""
    classifier = Classifier.load(run, "cpu", encode=False, sure=least)
    rule = classifier.rules["label"]
    assert rule.tree is not None and rule.tree.promise is not None
    answers = classifier.answers(vectors)["label"]
    nodes = answers.nodes[0]
    said = nodes >= 0
    true = tree.own[np.searchsorted(classifier.classes, gold)]
    depths = tree.depths[nodes[said]]
    right = tree.chains[true[said], depths] == nodes[said]
    shares = np.bincount(depths, minlength=len(LEVELS)) / len(nodes)
    promise = {**vars(rule.tree.promise)}
    test = {"levels": dict(zip(LEVELS, shares.tolist(), strict=True)), "accuracy": float(right.mean())}
    return {"sure": least, "promise": promise, "test": test}


def sides_of(run: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_table(run / "predictions.parquet")["side"].to_pylist())


def show(splits: list[dict[str, Any]]) -> None:
    for level in LEVELS:
        for way in splits[0]["levels"][level]:
            values = [split["levels"][level][way] for split in splits]
            mean = np.mean([one["accuracy"] for one in values])
            less = [one["less"] for one in values if "less" in one]
            apart = [f"{one['difference']:+.4f} (p {one['p'] or 0:.3f})" for one in less]
            print(f"{level:8} {way:20} {mean:.4f}  path less this: {', '.join(apart)}")
    print("heads of each level contradict each other on", [f"{one['heads_that_contradict']:.1%}" for one in splits])
    for i, least in enumerate(SURE):
        some = [split["sure"][i] for split in splits]
        for side in ("promise", "test"):
            shares = {level: np.mean([one[side]["levels"][level] for one in some]) for level in LEVELS}
            right = np.mean([one[side]["accuracy"] for one in some])
            print(f"--sure {least} {side:8}", {k: f"{v:.1%}" for k, v in shares.items()}, f"right {right:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    splits = []
    for seed in range(arguments.splits):
        with tempfile.TemporaryDirectory() as folder, mock.patch("embedcache.runs.column.run_baselines", lambda _: {}):
            splits.append(measure(arguments.cache, seed, Path(folder)))  # TF-IDF is not asked here
    show(splits)
    if arguments.json:
        about = {**machine("numpy", "scikit-learn"), "load": os.getloadavg()[0]}
        arguments.json.write_text(json.dumps({"machine": about, "splits": splits}, indent=1) + "\n")


if __name__ == "__main__":
    main()
