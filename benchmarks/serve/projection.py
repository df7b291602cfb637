"""Which projection makes the map: quality and time of PCA, t-SNE (the one that serve shows) and UMAP on a cache.

    python -m benchmarks.serve.projection reviews.h5 --pooling mean --label label --json FILE

UMAP is measured where umap-learn is installed. Quality, on a sample of 4,000 rows: how many of a row's 10 nearest rows
on the map have its label (and of the 10 nearest by cosine: more cannot be asked), scikit-learn's trustworthiness, and
how many of the 10 nearest by cosine are among the 10 nearest on the map.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from benchmarks.machine import machine
from embedcache.cache import open_cache
from embedcache.index.exact import unit_length
from embedcache.serve.projection import project

SAMPLE, NEAR = 4000, 10


def pca(x: np.ndarray) -> np.ndarray:
    from sklearn.decomposition import PCA

    return PCA(2, random_state=0).fit_transform(x)


def umap(x: np.ndarray) -> np.ndarray:
    from umap import UMAP

    return UMAP(metric="cosine", random_state=0).fit_transform(x)


METHODS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"PCA": pca, "t-SNE (embedcache)": project, "UMAP": umap}


def nearest(points: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    near = NearestNeighbors(n_neighbors=NEAR + 1, metric=metric).fit(points)
    found = near.kneighbors(points[rows], return_distance=False)
    return np.array([[other for other in some if other != row][:NEAR] for some, row in zip(found, rows, strict=True)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--pooling", default="cls")
    parser.add_argument("--label", default="label")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    with open_cache(options.cache) as cache:
        x = np.array(cache.embeddings(options.pooling), np.float32)
        y = np.array(cache.labels(options.label)[0])
    centred = unit_length(x - x.mean(axis=0))
    rows = np.random.default_rng(0).choice(len(x), min(SAMPLE, len(x)), replace=False)
    best = nearest(centred, rows, "cosine")
    found: dict[str, Any] = {
        "machine": machine("openTSNE", "scikit-learn"),
        "cache": Path(options.cache).name,
        "rows": len(x),
        "dim": x.shape[1],
        "pooling": options.pooling,
        "label_agreement_by_cosine": round(float((y[best] == y[rows][:, None]).mean()), 4),
        "methods": {},
    }
    for name in options.methods.split(","):
        start = time.perf_counter()
        try:
            points = METHODS[name](x if name.startswith("t-SNE") else centred)
        except ImportError as error:
            print(f"{name}: {error}")
            continue
        seconds = time.perf_counter() - start
        near = nearest(points, rows, "euclidean")
        kept = [len(set(a) & set(b)) / NEAR for a, b in zip(near, best, strict=True)]
        found["methods"][name] = {
            "seconds": round(seconds, 1),
            "label_agreement": round(float((y[near] == y[rows][:, None]).mean()), 4),
            "trustworthiness": round(float(trustworthiness(centred[rows], points[rows], n_neighbors=NEAR)), 4),
            "neighbours_kept": round(float(np.mean(kept)), 4),
        }
        print(name, found["methods"][name], flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
