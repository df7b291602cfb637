"""The map of a cache: near where vectors are alike, the same each time, kept beside the cache while it fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.serve.projection import default_map_path, load_map, make_map, project, save_map
from tests.conftest import make_cache


def clusters(rows: int, dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors about three directions, and which of them."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, 3, rows)
    return (np.eye(3, dim)[of] * 4 + rng.normal(size=(rows, dim)) * 0.3).astype(np.float32), of


def agreement(points: np.ndarray, of: np.ndarray) -> float:
    """How often the nearest point on the map is of the same cluster."""
    from sklearn.neighbors import NearestNeighbors

    near = NearestNeighbors(n_neighbors=2).fit(points).kneighbors(points, return_distance=False)[:, 1]
    return float((of[near] == of).mean())


@pytest.mark.parametrize("fit_rows", [1000, 150], ids=["all rows fitted", "a sample fitted"])
def test_what_is_alike_lies_together(fit_rows: int) -> None:
    x, of = clusters(400)
    points = project(x, fit_rows=fit_rows)
    assert points.shape == (400, 2) and points.dtype == np.float32
    assert np.abs(points).max() <= 1 + 1e-6 and np.ptp(points, axis=0).max() == pytest.approx(2, abs=1e-5)
    assert agreement(points, of) > 0.95


def test_the_same_vectors_give_the_same_map() -> None:
    x, _ = clusters(300)
    np.testing.assert_array_equal(project(x, fit_rows=200), project(x, fit_rows=200))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 10, 29, 30, 31, 50])
def test_few_rows(rows: int) -> None:
    points = project(clusters(rows)[0])
    assert points.shape == (rows, 2) and np.isfinite(points).all()


@pytest.mark.parametrize("rows", [5, 200])
def test_odd_vectors(rows: int) -> None:
    x = clusters(rows)[0].astype(np.float16)
    for odd in (np.zeros_like(x), np.ones_like(x), x[:, :1], np.repeat(x[:1], rows, axis=0)):
        assert np.isfinite(project(odd)).all()
    x[0], x[1] = np.nan, np.inf
    assert np.isfinite(project(x)).all()


@pytest.fixture
def cache_path(tmp_path: Path) -> Path:
    x, _ = clusters(60)
    return make_cache(tmp_path / "made.h5", [f"text {i}" for i in range(60)], {"cls": x, "mean": -x})


def test_a_map_is_kept_beside_the_cache(cache_path: Path) -> None:
    path = default_map_path(cache_path)
    assert path.name == "made.map.safetensors" and path.parent == cache_path.parent
    with open_cache(cache_path) as cache:
        assert load_map(path, cache) is None
        points = make_map(cache)
        save_map(path, points, cache)
        np.testing.assert_array_equal(load_map(path, cache), points)
        assert load_map(path, cache, "mean") is None, "other vectors"
    assert [file.name for file in path.parent.iterdir() if "partial" in file.name] == []


def test_a_map_of_other_rows_is_stale(cache_path: Path, tmp_path: Path) -> None:
    path = default_map_path(cache_path)
    with open_cache(cache_path) as cache:
        save_map(path, make_map(cache), cache)
    x, _ = clusters(60)
    texts = [f"text {i}" for i in range(60)]
    others: list[dict[str, Any]] = [
        {"texts": [*texts[:-1], "another"], "vectors": x},
        {"texts": texts[::-1], "vectors": x},
        {"texts": texts, "vectors": x, "encoder": {"identity": {"weights": "other"}}},
    ]
    for number, other in enumerate(others):
        with open_cache(make_cache(tmp_path / f"other-{number}.h5", **other)) as cache:
            assert load_map(path, cache) is None


def test_a_damaged_map_is_none(cache_path: Path) -> None:
    path = default_map_path(cache_path)
    with open_cache(cache_path) as cache:
        points = make_map(cache)
        save_map(path, points, cache)
        whole = path.read_bytes()
        for broken in (b"", whole[:50], whole[:-4], b"x" * len(whole)):
            path.write_bytes(broken)
            assert load_map(path, cache) is None
        save_map(path, np.full_like(points, np.nan), cache)
        assert load_map(path, cache) is None
        with pytest.raises(EmbedcacheError, match="there is no folder"):
            save_map(cache_path.parent / "missing" / "x.safetensors", points, cache)
