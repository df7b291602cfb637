"""Search among vectors stored as int8: exact results are those of the decoded rows, whichever way they are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.common.int8_rows import Int8Rows, to_int8
from embedcache.index.job import index_cache
from embedcache.index.search_index import SearchIndex
from tests.conftest import make_cache

N, D = 1300, 24
X = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32) * np.geomspace(0.3, 3, N)[:, None] + 0.2
TEXTS = [f"text {i}" for i in range(N)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "c.h5", TEXTS, Int8Rows(*to_int8(X.astype(np.float32))))


def nearest(x: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """By float64 cosines."""
    a, q = (one / np.linalg.norm(one, axis=1)[:, None] for one in (x.astype(np.float64), queries.astype(np.float64)))
    scores = q @ a.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(scores, rows, axis=1)


@pytest.mark.parametrize("center", [False, True])
def test_exact_search(path: Path, center: bool) -> None:
    with open_cache(path) as cache:
        index = SearchIndex.build(cache, center=center)
        exact, queries = cache.embeddings()[:], X[::40].astype(np.float32)
        mean = exact.astype(np.float64).mean(axis=0) if center else 0
        rows, scores = nearest(exact - mean, queries - mean, 5)
        for few in (queries[:3], queries, queries[:3]):  # row by row, by FAISS, by the copies of a second call
            found = index.search(few, 5)
            np.testing.assert_allclose(found.scores, scores[: len(few)], atol=2e-6)
            assert (found.rows == rows[: len(few)]).mean() > 0.99
        assert isinstance(index._rows.stored, Int8Rows), "left where it is"


def test_an_index_is_kept_grows_and_is_loaded(path: Path, tmp_path: Path) -> None:
    report = index_cache(path, kind="ivf", recall=0.9)
    assert report.kind == "ivf"
    assert index_cache(path, kind="ivf", recall=0.9).action == "kept"
    more = np.concatenate([X, X[:60] + 0.01]).astype(np.float32)
    path.unlink()
    make_cache(path, [*TEXTS, *(f"more {i}" for i in range(60))], Int8Rows(*to_int8(more)))
    assert index_cache(path, kind="ivf", recall=0.9).action == "extended"
    with open_cache(path) as cache:
        index = SearchIndex.load(path.with_suffix(".index"), cache)
        assert (index.search(cache.embeddings()[5:9], 1).rows[:, 0] == range(5, 9)).all()


def test_bare_vectors_are_saved_as_they_are_read(tmp_path: Path) -> None:
    rows = Int8Rows(*to_int8(X.astype(np.float32)))
    index = SearchIndex.from_vectors(rows)
    index.save(tmp_path / "x.index")
    a, b = (one.search(X[:50], 3) for one in (index, SearchIndex.load(tmp_path / "x.index")))
    assert (a.rows == b.rows).all() and (a.scores == b.scores).all()
