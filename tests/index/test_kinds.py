"""HNSW, IVF and IVF with product quantization against brute force: recall, filters, growth, files, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex, build
from embedcache.index.exact import StoredRows
from embedcache.index.file_format import About
from embedcache.index.kinds import KINDS
from embedcache.index.kinds.ivfpq import IvfPq
from tests.search.brute_force import cosines

APPROXIMATE = [kind for kind in KINDS if kind != "exact"]
N, D = 12_000, 24


def clustered(count: int, seed: int) -> np.ndarray:
    centers = np.random.default_rng(0).normal(size=(60, D))
    rng = np.random.default_rng(seed)
    return (centers[rng.integers(0, 60, count)] + 0.7 * rng.normal(size=(count, D))).astype(np.float32)


X, Q = clustered(N, 1), clustered(200, 2)
X[5], X[6, 0], X[7] = 0, np.nan, X[8]
TRUE = cosines(Q, np.nan_to_num(X) * np.isfinite(X).all(axis=1)[:, None])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Threads of tiny works wait for each other more than they work."""
    faiss.omp_set_num_threads(1)


@pytest.fixture(scope="module")
def indexes() -> dict[str, SearchIndex]:
    return {kind: SearchIndex.from_vectors(X, kind=kind, recall=0.97) for kind in APPROXIMATE}


def recall_of(rows: np.ndarray, expected: np.ndarray) -> float:
    """Against float64 scores [q, N]; ties count."""
    k = rows.shape[1]
    worst = -np.partition(-expected, k - 1, axis=1)[:, k - 1]
    return float((np.take_along_axis(expected, rows, axis=1) >= worst[:, None] - 1e-6).mean())


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_recall_is_what_was_measured(indexes: dict[str, SearchIndex], kind: str) -> None:
    index = indexes[kind]
    found = index.search(Q)
    assert (index.kind, index.about.held_out, index.about.asked) == (kind, 1000, 0.97)
    assert 0.97 <= index.recall <= 1
    assert abs(recall_of(found.rows, TRUE) - index.recall) < 0.02
    np.testing.assert_allclose(found.scores, np.take_along_axis(TRUE, found.rows, axis=1), atol=2e-6)
    assert (np.diff(found.scores, axis=1) <= 0).all()
    assert not np.isin(found.rows, [5, 6]).any(), "rows without a direction are far from everything"


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.01, 1, 0])
def test_filters(indexes: dict[str, SearchIndex], kind: str, share: float) -> None:
    among = np.random.default_rng(3).random(N) < share
    if share == 1:
        among = np.arange(N) == 77
    found = indexes[kind].search(Q, 10, among=among)
    assert found.rows.shape == (len(Q), min(10, among.sum()))
    assert among[found.rows].all()
    assert all(len(set(rows)) == found.rows.shape[1] for rows in found.rows.tolist())
    if among.any():
        assert recall_of(found.rows, np.where(among, TRUE, -2)) >= 0.95


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_filter_on_one_side_of_the_data(indexes: dict[str, SearchIndex], kind: str) -> None:
    among = TRUE[0] < np.median(TRUE[0])  # half of the rows, all of them far from the query
    found = indexes[kind].search(Q[0], 10, among=among)
    assert found.rows.shape == (1, 10)
    assert among[found.rows].all()


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("k", [1, 100, 3000, N])
def test_any_k(indexes: dict[str, SearchIndex], kind: str, k: int) -> None:
    found = indexes[kind].search(Q[:20], k)
    assert found.rows.shape == (20, k)
    assert all(len(set(rows)) == k for rows in found.rows.tolist())
    assert recall_of(found.rows, TRUE[:20]) >= 0.9


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_alone_as_among_others_and_in_threads(indexes: dict[str, SearchIndex], kind: str) -> None:
    together = indexes[kind].search(Q)
    with ThreadPoolExecutor(8) as pool:
        alone = list(pool.map(indexes[kind].search, Q))
    np.testing.assert_array_equal(np.concatenate([one.rows for one in alone]), together.rows)
    np.testing.assert_array_equal(np.concatenate([one.scores for one in alone]), together.scores)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_a_file(indexes: dict[str, SearchIndex], kind: str, tmp_path: Path) -> None:
    indexes[kind].save(tmp_path / "x.index")
    again = SearchIndex.load(tmp_path / "x.index")
    assert again.about == indexes[kind].about
    np.testing.assert_array_equal(again.search(Q).rows, indexes[kind].search(Q).rows)
    raw = bytearray((tmp_path / "x.index").read_bytes())
    for place in np.linspace(0, len(raw) - 1, 20).astype(int).tolist():
        spoilt = raw.copy()
        spoilt[place] ^= 0x10
        (tmp_path / "y.index").write_bytes(spoilt)
        with pytest.raises(EmbedcacheError, match=r"y\.index is not an index of this version, or is damaged"):
            SearchIndex.load(tmp_path / "y.index")


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_added_rows_are_found_as_if_built_with_them(kind: str) -> None:
    old = 8000
    engine, found = build.build(StoredRows(X[:old]), kind=kind, recall=0.97, device="cpu")
    about = About(rows=old, dim=D, **found)
    engine.rows = StoredRows(X)
    changed = build.extend(engine, about, 0.97)
    assert (changed["rows"], changed["measured"] >= 0.97) == (N, True)
    index = SearchIndex(About(**{**vars(about), **changed}), engine.rows, engine, own_vectors=True)
    assert recall_of(index.search(Q).rows, TRUE) >= 0.95
    for row in (0, old - 1, old, N - 1):
        assert index.search(X[row], 1).rows[0, 0] == row


def test_few_added_rows_keep_what_hnsw_measured() -> None:
    engine, found = build.build(StoredRows(X[:3000]), kind="hnsw", recall=0.9, device="cpu")
    about, effort = About(rows=3000, dim=D, **found), engine.effort
    engine.rows = StoredRows(X[:3001])
    changed = build.extend(engine, about, 0.9)
    assert (set(changed), engine.effort) == ({"rows", "asked", "seconds"}, effort)
    assert len(engine.order) == 3001


@pytest.mark.parametrize("kind", APPROXIMATE)
@pytest.mark.parametrize("rows", [1, 2, 11, 60])
def test_few_rows(kind: str, rows: int) -> None:
    index = SearchIndex.from_vectors(X[10 : 10 + rows], kind=kind)
    assert index.search(X[10], 5).rows.shape == (1, min(5, rows))
    assert index.search(X[10], 1).rows.tolist() == [[0]]


def test_auto_falls_back_on_exact_where_the_recall_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.index.plan.EXACT_ROWS", 100)
    monkeypatch.setattr(IvfPq, "factors", (1,))  # re-rank nothing: codes alone do not reach it
    noise = np.random.default_rng(4).normal(size=(3000, 64)).astype(np.float32)
    assert SearchIndex.from_vectors(noise, recall=0.99).kind == "exact"
    honest = SearchIndex.from_vectors(noise, recall=0.99, kind="ivfpq")
    assert honest.kind == "ivfpq"
    assert honest.recall < 0.99


def test_reranked_from_the_stored_vectors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "memory_free", lambda: 12_000 * 24 * 2)
    index = SearchIndex.from_vectors(X, kind="ivfpq", recall=0.97)
    assert index.parameters["rerank"] == "stored"
    assert recall_of(index.search(Q).rows, TRUE) >= 0.95
    index.save(tmp_path / "x.index")
    np.testing.assert_array_equal(SearchIndex.load(tmp_path / "x.index").search(Q).rows, index.search(Q).rows)


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_centred(kind: str) -> None:
    index = SearchIndex.from_vectors(X + 5, kind=kind, recall=0.97, center=True)
    mean = np.delete(X + 5, 6, axis=0).mean(axis=0)
    V = np.nan_to_num(X + 5 - mean)
    V[6] = 0
    assert recall_of(index.search(Q + 5).rows, cosines(Q + 5 - mean, V)) >= 0.95


@pytest.mark.parametrize("kind", APPROXIMATE)
def test_rows_without_any_direction_are_refused(kind: str) -> None:
    with pytest.raises(EmbedcacheError, match="no row has a usable vector"):
        SearchIndex.from_vectors(np.zeros((300, D), np.float32), kind=kind)
