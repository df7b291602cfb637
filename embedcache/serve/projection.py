"""A map of a cache: its vectors in two dimensions, near where they are alike; computed once and kept beside it."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.fingerprint import output_fingerprint
from embedcache.common.int8_rows import Matrix
from embedcache.common.whole_file import whole_binary
from embedcache.errors import EmbedcacheError
from embedcache.index.own_row import without_own
from embedcache.index.search_index import unit_length

FORMAT = {"format": "embedcache-map", "format_version": "1"}
FIT_ROWS = 30_000  # of more rows a sample is fitted, and the rest placed among it
PERPLEXITY = 15  # rows that count as near
EARLY, ITERATIONS = 150, 300  # of the gradient descent, exaggerated and not
PLACE_NEAREST = 5  # fitted rows between which another one is placed
FEWEST = 30  # rows that have a neighbourhood worth fitting
FFT_ROWS = 1000  # of fewer the grid costs more than the tree
CHUNK_ROWS = 8192


def default_map_path(cache_path: str | Path) -> Path:
    """reviews.h5 -> reviews.map.safetensors beside it."""
    return Path(cache_path).with_suffix(".map.safetensors")


def project(X: Matrix, *, seed: int = 0, fit_rows: int = FIT_ROWS) -> np.ndarray:
    """float32 [N, 2] within -1 and 1: where each vector of [N, D] lies on the map.

    t-SNE (van der Maaten and Hinton 2008) of the vectors' directions from their mean, started from the two principal
    components so that the map's large parts mean something (Kobak and Berens 2019), by openTSNE's interpolated
    gradient (Linderman et al. 2019). Of more than ``fit_rows`` rows a random sample is fitted; each of the others comes
    to lie at the median of the 5 rows of the sample that are most like it. The same vectors and seed on the same
    machine give the same map.

    Raises:
        EmbedcacheError: openTSNE or FAISS is not installed.
    """
    rows = len(X)
    if not rows:
        return np.empty((0, 2), np.float32)
    generator = np.random.default_rng(seed)
    sample = np.sort(generator.choice(rows, fit_rows, replace=False)) if rows > fit_rows else np.arange(rows)
    mean = _mean(X)
    fitted_vectors = unit_length(np.asarray(X[sample], np.float32) - mean)
    fitted = _fit(fitted_vectors, seed)
    points = np.empty((rows, 2), np.float32)
    points[sample] = fitted
    others = np.setdiff1d(np.arange(rows), sample, assume_unique=True)
    if len(others):
        index = _neighbour_index(fitted_vectors)
        spread = 0.002 * np.ptp(fitted, axis=0).max()  # rows with the same neighbours must not lie on one another
        for start in range(0, len(others), CHUNK_ROWS):
            part = others[start : start + CHUNK_ROWS]
            _, near = index.search(unit_length(np.asarray(X[part], np.float32) - mean), PLACE_NEAREST)
            points[part] = np.median(fitted[near], axis=1) + generator.normal(0, spread, (len(part), 2))
    return _scaled(points)


def make_map(cache: Cache, pooling: str | None = None, layer: int = -1) -> np.ndarray:
    """The map of a cache's rows, float32 [N, 2]; without a name of ``Cache.preferred``.

    Raises:
        EmbedcacheError: no such vectors; see also ``project``.
    """
    return project(cache.embeddings(pooling, layer))


def save_map(path: str | Path, points: np.ndarray, cache: Cache, pooling: str | None = None, layer: int = -1) -> None:
    """Write a map as safetensors, with what it belongs to, whole or not at all. Raises EmbedcacheError."""
    from safetensors.numpy import save

    data = save({"points": np.ascontiguousarray(points)}, _about(cache, pooling, layer))
    with whole_binary(path, "check the folder and the disk") as file:
        file.write(data)


def load_map(path: str | Path, cache: Cache, pooling: str | None = None, layer: int = -1) -> np.ndarray | None:
    """The points of a map, float32 [N, 2]; None where there is none of just these rows and vectors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            if file.metadata() != _about(cache, pooling, layer):
                return None
            points: np.ndarray = file.get_tensor("points")
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError):  # a number type that NumPy does not have
        return None
    right = points.shape == (cache.rows, 2) and points.dtype == np.float32 and np.isfinite(points).all()
    return points if right else None


def _about(cache: Cache, pooling: str | None, layer: int) -> dict[str, str]:
    """What a map belongs to: the encoder, the output, and the texts in their order."""
    digest = blake2b(output_fingerprint(cache.encoder, (pooling or cache.preferred(layer), layer)), digest_size=16)
    for start in range(0, cache.rows, 1 << 20):
        digest.update(cache.hashes[start : start + (1 << 20)].tobytes())
    return {**FORMAT, "rows": str(cache.rows), "digest": digest.hexdigest()}


def _mean(X: Matrix) -> np.ndarray:
    """float32 [D], of the rows that are finite."""
    total, count = np.zeros(X.shape[1]), 0
    for start in range(0, len(X), CHUNK_ROWS):
        part = np.asarray(X[start : start + CHUNK_ROWS], np.float64)
        part = part[np.isfinite(part).all(axis=1)]
        total, count = total + part.sum(axis=0), count + len(part)
    return (total / max(count, 1)).astype(np.float32)


def _fit(X: np.ndarray, seed: int) -> np.ndarray:
    """float32 [n, 2] of unit vectors."""
    start = _principal_components(X)
    if len(X) < FEWEST or not np.ptp(start):
        return start.astype(np.float32)
    try:
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PerplexityBasedNN
        from openTSNE.nearest_neighbors import PrecomputedNeighbors
    except ImportError as error:
        raise EmbedcacheError(
            "a map needs openTSNE, which is not installed: pip install 'embedcache[serve]'"
        ) from error
    perplexity = min(PERPLEXITY, (len(X) - 1) // 3)
    rows, distances = _nearest(X, 3 * perplexity)
    near = PrecomputedNeighbors(rows, distances)
    affinities = PerplexityBasedNN(perplexity=perplexity, knn_index=near, n_jobs=1, random_state=seed)
    # One thread: the order of sums would differ from run to run, and with it the whole map.
    gradient = "fft" if len(X) > FFT_ROWS else "bh"
    embedding: Any = TSNEEmbedding(
        start / start[:, 0].std() * 1e-4, affinities, negative_gradient_method=gradient, n_jobs=1, random_state=seed
    )
    embedding.optimize(n_iter=EARLY, exaggeration=12, momentum=0.5, inplace=True)
    embedding.optimize(n_iter=ITERATIONS, momentum=0.8, inplace=True)
    return np.asarray(embedding, np.float32)


def _principal_components(X: np.ndarray) -> np.ndarray:
    """float64 [n, 2]: the first two; of one-dimensional vectors the second is zero."""
    centered = X - X.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(centered.T @ centered)  # the largest eigenvalue comes last
    found = centered @ directions[:, ::-1][:, :2]
    found *= np.where(found[np.abs(found).argmax(axis=0), range(found.shape[1])] < 0, -1, 1)  # a sign is arbitrary
    return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _nearest(X: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and Euclidean distances [n, k] of each unit vector's nearest, itself left out."""
    scores, rows = _neighbour_index(X).search(X, k + 1)
    rows, scores = without_own(np.arange(len(X)), rows, scores)
    return rows, np.sqrt(np.maximum(2 - 2 * scores, 0))


def _neighbour_index(X: np.ndarray) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise EmbedcacheError("a map needs FAISS, which is not installed: pip install 'embedcache[cpu]'") from error
    index = faiss.IndexFlatIP(X.shape[1])
    index.add(X)
    return index


def _scaled(points: np.ndarray) -> np.ndarray:
    low, high = points.min(axis=0), points.max(axis=0)
    size = float((high - low).max()) or 1.0
    return np.ascontiguousarray((points - (low + high) / 2) * (2 / size), np.float32)
