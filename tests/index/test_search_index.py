"""An index against brute force in float64; its file, and what must be refused."""

from __future__ import annotations

import json
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.index import SearchIndex, build
from embedcache.index.exact import Exact, StoredRows, _widened, unit_length
from tests.conftest import make_cache
from tests.search.brute_force import assert_exact, cosines


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("k", [1, 10, 5000])
def test_equals_brute_force(dtype: Any, k: int) -> None:
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(1000, 32)) + 0.5).astype(dtype)
    X[7], X[8] = 0, X[9]
    Q = rng.normal(size=(30, 32)) * 100
    found = SearchIndex.from_vectors(X).search(Q, k=k)
    assert found.rows.shape == found.scores.shape == (30, min(k, 1000))
    assert (found.rows.dtype, found.scores.dtype) == (np.int64, np.float32)
    assert_exact(found, cosines(Q, X))


def test_a_filter_is_exact() -> None:
    rng = np.random.default_rng(1)
    X, Q = rng.normal(size=(1003, 16)), rng.normal(size=(5, 16))
    index = SearchIndex.from_vectors(X)
    for share in (0.5, 0.01, 0.0):
        among = rng.random(1003) < share
        found = index.search(Q, k=20, among=among)
        assert found.rows.shape == (5, min(20, among.sum()))
        assert among[found.rows].all()
        if among.any():
            assert_exact(found, np.where(among, cosines(Q, X), -2))


def test_rows_without_a_direction_are_safe() -> None:
    X = np.random.default_rng(2).normal(size=(50, 8))
    X[0], X[1, 3], X[2, 0], X[3] = 0, np.nan, np.inf, 1e200
    index = SearchIndex.from_vectors(X)
    found = index.search(X[10], k=50)
    assert sorted(found.rows[0]) == list(range(50))
    assert np.isfinite(found.scores).all()
    assert found.rows[0, 0] == 10
    assert (found.scores[0][np.isin(found.rows[0], [0, 1, 2])] == 0).all()
    assert (index.search(np.zeros(8), k=3).scores == 0).all()
    with pytest.raises(EmbedcacheError, match="NaN"):
        index.search(np.full(8, np.nan))


def test_torch_tensors_and_single_vectors() -> None:
    import torch

    X = torch.randn(20, 8, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    assert SearchIndex.from_vectors(X).search(X[3], k=1).rows.tolist() == [[3]]


@pytest.mark.parametrize("X", [np.zeros((3, 0)), np.array([["a"]]), np.zeros((2, 2, 2))])
def test_what_is_no_matrix_of_vectors(X: np.ndarray) -> None:
    with pytest.raises(EmbedcacheError, match="vectors must be numbers"):
        SearchIndex.from_vectors(X)


def test_vectors_of_another_width() -> None:
    with pytest.raises(EmbedcacheError, match="7 wide, the index 8"):
        SearchIndex.from_vectors(np.eye(8)).search(np.zeros((2, 7)))
    with pytest.raises(EmbedcacheError, match="from vectors alone"):
        SearchIndex.from_vectors(np.eye(8)).search(["text"])


def test_save_and_load(tmp_path: Path) -> None:
    X = np.random.default_rng(3).normal(size=(40, 8))
    index, path = SearchIndex.from_vectors(X), tmp_path / "reviews.index"
    index.save(path)
    again = SearchIndex.load(path)
    assert (again.rows, again.dim, again.encoder, again.pooling) == (40, 8, None, "cls")
    np.testing.assert_array_equal(again.search(X).rows, index.search(X).rows)
    assert [p.name for p in tmp_path.iterdir()] == ["reviews.index"]
    with pytest.raises(EmbedcacheError, match="there is no folder"):
        index.save(tmp_path / "none" / "reviews.index")


@pytest.mark.parametrize("driver", [False, True])
def test_without_faiss(driver: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a GPU may be, of which FAISS would have to be asked."""
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(build, "may_have_gpu", lambda: driver)
    index = SearchIndex.from_vectors(np.eye(8))
    assert index.search(np.eye(8)[3], k=1).rows.tolist() == [[3]]
    with pytest.raises(EmbedcacheError, match=r"pip install 'embedcache\[cpu\]', or 'embedcache\[gpu\]'"):
        index.search(np.random.default_rng(0).normal(size=(100, 8)))


def cache_of(folder: Path, X: np.ndarray, name: str = "reviews.h5", **more: Any) -> Path:
    return make_cache(folder / name, [f"text {i}" for i in range(len(X))], X, **more)


@pytest.mark.parametrize("center", [False, True])
def test_an_index_of_a_cache_holds_no_vectors(tmp_path: Path, center: bool) -> None:
    X = (np.random.default_rng(4).normal(size=(3000, 64)) + 1).astype(np.float16)
    path = tmp_path / "reviews.index"
    with open_cache(cache_of(tmp_path, X)) as cache:
        index = SearchIndex.build(cache, center=center)
        assert index.save(path) == path.stat().st_size < 4000
        for again in (SearchIndex.load(path, cache), SearchIndex.load(path)):
            found = again.search(X[5], k=7)
            assert (again.kind, again.recall, again.center) == ("exact", 1.0, center)
            np.testing.assert_array_equal(found.rows, index.search(X[5], k=7).rows)


def test_centred(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    X, Q = (rng.normal(size=(n, 12)) + 5 for n in (500, 9))
    X[3], X[4, 0] = 0, np.nan
    index = SearchIndex.from_vectors(X, center=True)
    mean = np.delete(X, [3, 4], axis=0).mean(axis=0)
    expected = cosines(Q - mean, np.nan_to_num(X - mean))
    expected[:, [3, 4]] = 0
    assert_exact(index.search(Q, k=20), expected)
    np.testing.assert_allclose(np.linalg.norm(index.vectors([0, 1, 3, 4]), axis=1), [1, 1, 0, 0], atol=1e-6)
    assert index.center


def test_stale_and_foreign(tmp_path: Path) -> None:
    X = np.random.default_rng(6).normal(size=(2100, 8)).astype(np.float32)
    made = cache_of(tmp_path, X)
    path = tmp_path / "my reviews.index"
    with open_cache(made) as cache:
        SearchIndex.build(cache).save(path)
    made.rename(tmp_path / "0.h5")  # and then it changes
    changed = X.copy()
    changed[2080] += 1
    cases = {
        "2 rows were added": (np.concatenate([X, X[:2]]), {}),
        "rows of .* have changed since": (changed, {}),
        "rows .*have changed": (X[:2000], {}),
        "but of other vectors": (X, {"encoder": {"identity": {"weights": {}}}}),
    }
    for i, (words, (vectors, more)) in enumerate(cases.items()):
        with open_cache(cache_of(tmp_path, vectors, f"{i}.h5", **more)) as other:
            with pytest.raises(EmbedcacheError, match=words) as error:
                SearchIndex.load(path, other)
            command = f"run embedcache index {other.path} -o '{path}'"  # as this system's shell reads a space
            assert command.replace("'", '"' if sys.platform == "win32" else "'") in str(error.value)
            assert "\n" not in str(error.value)


def test_of_another_cache(tmp_path: Path) -> None:
    """No command is named that would write over it."""
    X = np.random.default_rng(6).normal(size=(50, 8)).astype(np.float32)
    mine, theirs = cache_of(tmp_path, X[:40] + 1, "mine.h5"), cache_of(tmp_path, X, "theirs.h5")
    path, same = tmp_path / "theirs.index", {"encoder": {"identity": {"weights": {}}}}
    with open_cache(theirs) as cache:
        SearchIndex.build(cache).save(path)
    told = re.escape(f"belongs to another cache, {theirs}, not to {mine}")
    for vectors, more in ((X[:40] + 1, {}), (np.concatenate([X, X]), {}), (X, same)):
        with open_cache(cache_of(tmp_path, vectors, "mine.h5", **more)) as cache:
            with pytest.raises(EmbedcacheError, match=told) as error:
                SearchIndex.load(path, cache)
            assert f"run embedcache index {mine}, leave out --index" in str(error.value)
            (tmp_path / "mine.index").write_bytes(path.read_bytes())  # put where its own would be
            with pytest.raises(EmbedcacheError, match="belongs to another cache") as error:
                SearchIndex.load(tmp_path / "mine.index", cache)
            assert f"-o {tmp_path / 'mine-own.index'} and search with --index" in str(error.value)
            with pytest.raises(EmbedcacheError, match=r"leave out --index, .*mine\.index is there"):
                SearchIndex.load(path, cache)
            (tmp_path / "mine.index").unlink()
    with open_cache(cache_of(tmp_path, X, "copy.h5")) as cache:
        assert SearchIndex.load(path, cache).rows == 50


@pytest.mark.parametrize(
    "spoil", ["cut", "empty", "text", "footer", "length", "version", "section", "missing", "folder"]
)
def test_a_damaged_file(tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "reviews.index"
    SearchIndex.from_vectors(np.eye(8)).save(path)
    raw = bytearray(path.read_bytes())
    if spoil == "cut":
        raw = raw[:-30]
    elif spoil == "empty":
        raw = bytearray()
    elif spoil == "text":
        raw = bytearray(b"not an index\n" * 50)
    elif spoil == "footer":
        raw[-100] ^= 1
    elif spoil == "length":
        raw[-24:-16] = (1 << 60).to_bytes(8, "little")
    elif spoil == "version":
        footer = json.loads(raw[len(raw) - 24 - int.from_bytes(raw[-24:-16], "little") : -24])
        text = json.dumps({**footer, "format_version": 99}).encode()
        raw = raw[:17] + text + len(text).to_bytes(8, "little") + blake2b(text, digest_size=16).digest()
    elif spoil == "section":
        raw[60] ^= 1
    path.unlink()
    if spoil == "folder":
        path.mkdir()
    elif spoil != "missing":
        path.write_bytes(raw)
    with pytest.raises(EmbedcacheError, match=r"reviews\.index") as error:
        SearchIndex.load(path)
    assert "\n" not in str(error.value)


def test_every_float16_number() -> None:
    X = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    finite = np.isfinite(X[:, 0])
    np.testing.assert_array_equal(_widened(X)[finite], X[finite].astype(np.float32))
    signs = np.sign(np.where(finite, X[:, 0], 0)).astype(np.float64)
    np.testing.assert_allclose(unit_length(X)[:, 0], signs, rtol=1e-6)
    wide = unit_length(np.repeat(X, 300, axis=1))
    np.testing.assert_allclose(wide.sum(axis=1), signs * 300**0.5, rtol=1e-5)


def test_many_threads_and_the_float16_scan() -> None:
    rng = np.random.default_rng(7)
    X = (rng.normal(size=(20_000, 24)) + 3).astype(np.float16)  # crowded: cosines of 0.8 and more
    Q = rng.normal(size=(64, 24)) + 3
    expected = cosines(Q, X)
    index = SearchIndex.from_vectors(X)
    index.search(Q[0])
    with ThreadPoolExecutor(8) as pool:
        for i, found in enumerate(pool.map(index.search, Q)):
            assert_exact(found, expected[i : i + 1])
    among = rng.random(len(X)) < 0.5
    assert_exact(index.search(Q[:3], among=among), np.where(among, expected[:3], -2))
    assert index._engine._scan is not None


def test_equal_vectors_do_not_confuse_the_float16_scan() -> None:
    X = np.random.default_rng(8).normal(size=(5000, 8)).astype(np.float32)
    X[1000:4000] = X[1000] * (1 + 1e-4 * np.random.default_rng(9).normal(size=(3000, 8)))
    index = Exact(StoredRows(X))
    index.prepare()
    Q = (X[1000] / np.linalg.norm(X[1000]))[None].astype(np.float32)
    scores, _ = index.search(Q, 10, None)
    expected = cosines(Q, X)
    np.testing.assert_allclose(scores[0], -np.sort(-expected[0])[:10], atol=2e-6)


def test_among_must_fit() -> None:
    with pytest.raises(EmbedcacheError, match="one bool for each of 8 rows"):
        SearchIndex.from_vectors(np.eye(8)).search(np.eye(8), among=np.ones(7, bool))
