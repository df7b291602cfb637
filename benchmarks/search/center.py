"""What --center does to neighbours: how often the nearest rows have the same label, and are of the same film.

    embedcache extract demo/data/reviews-all.csv -o minilm.h5 --model demo/data/minilm --keep movie --pooling cls,mean
    python -m benchmarks.search.center minilm.h5 [mpnet.h5 ...] --group movie --json FILE

Neighbours are exact. Agreement is the share of the k nearest rows, the row itself left out, with the row's label; in
other groups: the same among rows of other films, since a film's reviews share more than their judgement.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import embedcache as ec
from benchmarks.machine import machine

QUERIES = 4000


def measure(X: np.ndarray, labels: np.ndarray, groups: np.ndarray, center: bool, k: int) -> dict[str, float]:
    """Of float32 [N, D] vectors, with integer labels and groups."""
    X = X - X.mean(axis=0) if center else X
    X = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12)
    asked = np.random.default_rng(0).permutation(len(X))[:QUERIES]
    same_label, same_group, other_label, cosines = [], [], [], []
    for part in np.array_split(asked, max(1, len(asked) // 500)):
        scores = X[part] @ X.T
        cosines.append(np.median(scores))
        scores[np.arange(len(part)), part] = -9
        near = np.argpartition(-scores, k, axis=1)[:, :k]
        same_label.append(labels[near] == labels[part][:, None])
        same_group.append(groups[near] == groups[part][:, None])
        scores[groups[None] == groups[part][:, None]] = -9
        near = np.argpartition(-scores, k, axis=1)[:, :k]
        other_label.append(labels[near] == labels[part][:, None])
    return {
        "label_agreement": float(np.concatenate(same_label).mean()),
        "label_agreement_other_groups": float(np.concatenate(other_label).mean()),
        "same_group": float(np.concatenate(same_group).mean()),
        "median_cosine": float(np.median(cosines)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("caches", nargs="+", type=Path)
    parser.add_argument("--label", default="label")
    parser.add_argument("--group", default="movie")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases: list[dict[str, Any]] = []
    for path in options.caches:
        with ec.open_cache(path) as cache:
            labels = cache.labels(options.label)[0]
            groups = np.unique(list(cache.column(options.group)), return_inverse=True)[1]
            for pooling, layer in cache.outputs:
                X = cache.embeddings(pooling, layer).astype(np.float32)
                for center in (False, True):
                    case = {"cache": path.name, "rows": cache.rows, "dim": cache.dim, "pooling": pooling}
                    case |= {"center": center, "k": options.k, **measure(X, labels, groups, center, options.k)}
                    cases.append(case)
                    print(json.dumps(case))
    if options.json:
        options.json.write_text(json.dumps({"machine": machine("numpy"), "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
