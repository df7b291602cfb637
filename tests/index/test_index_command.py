"""embedcache index: what it builds, keeps, extends, builds anew and refuses."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from embedcache.index.kinds import KINDS
from tests.conftest import document, fails, invoke, make_cache


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads of tiny works wait for each other more than they work."""
    faiss.omp_set_num_threads(1)


X = np.random.default_rng(0).normal(size=(3000, 16)).astype(np.float16)


def cache_of(folder: Path, vectors: np.ndarray, name: str = "reviews.h5") -> Path:
    (folder / name).unlink(missing_ok=True)
    return make_cache(folder / name, [f"text {i}" for i in range(len(vectors))], vectors)


def test_the_document(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, X)
    made = document("index", cache)
    assert made.pop("seconds") >= made.pop("build_seconds") >= 0
    assert made.pop("bytes") == (tmp_path / "reviews.index").stat().st_size
    assert made == {
        "index": str(tmp_path / "reviews.index"), "cache": str(cache), "action": "built", "kind": "exact",
        "rows": 3000, "added": 3000, "dim": 16, "pooling": "cls", "layer": -1, "center": False,
        "recall": {"asked": 0.99, "measured": 1.0}, "reached": True, "held_out": 0, "parameters": {},
    }  # fmt: skip
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["reviews.h5", "reviews.index"]


@pytest.mark.parametrize("kind", KINDS)
def test_built_kept_extended_and_built_anew(tmp_path: Path, kind: str) -> None:
    cache, asked = cache_of(tmp_path, X[:2000]), ("--kind", kind, "--recall", "0.9")
    assert document("index", cache, *asked)["action"] == "built"
    assert document("index", cache, *asked)["action"] == "kept"
    cache_of(tmp_path, X)
    line = fails("search", cache, "--row", 1)
    assert f"1,000 rows were added to {cache} since: run embedcache index {cache}" in line
    more = document("index", cache, *asked)
    assert (more["action"], more["added"], more["rows"], more["kind"]) == ("extended", 1000, 3000, kind)
    assert more["recall"]["measured"] >= 0.9
    found = document("search", cache, "--row", 2500, "-k", 5)
    assert len(found["results"]) == 5
    changed = X.copy()
    changed[7] = 1
    cache_of(tmp_path, changed)
    assert "have changed since" in fails("search", cache, "--row", 1)
    assert document("index", cache, *asked)["action"] == "built"
    assert document("index", cache, *asked, "--center")["action"] == "built"
    assert document("index", cache, *asked)["center"] is True, "as the index is"


def test_outgrown(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, X[:1000])
    document("index", cache, "--kind", "ivf", "--recall", 0.9)
    cache_of(tmp_path, X)
    assert document("index", cache, "--kind", "ivf", "--recall", 0.9)["action"] == "built"


def test_on_the_screen(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, X)
    exact = invoke("index", cache)
    assert "exact index of 3,000 rows of 16, built" in exact.stdout
    assert "up to 200,000 rows nothing else is needed" in exact.stderr
    ivf = invoke("index", cache, "--kind", "ivf", "-o", tmp_path / "other.index")
    assert "of memory are needed" in ivf.stderr
    assert "recall@10 0.99" in ivf.stdout and "held-out rows" in ivf.stdout and "probes" in ivf.stdout


def test_what_is_refused(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, X)
    assert "no such file" in fails("index", tmp_path / "none.h5")
    text = tmp_path / "notes.txt"
    text.write_text("mine")
    assert "exists and is not an index" in fails("index", cache, "-o", text)
    assert text.read_text() == "mine"
    assert "exists and is not an index" in fails("index", cache, "-o", cache)
    assert "is a folder" in fails("index", cache, "-o", tmp_path)
    assert "not an HDF5 file" in fails("index", text)
    assert "cannot write the index" in fails("index", cache, "-o", tmp_path / "none" / "x.index")
    assert "has no mean vectors" in fails("index", cache, "--pooling", "mean")
    assert "has no cls (layer -3) vectors" in fails("index", cache, "--layers", "-3")
    for wrong in (["--recall", "0"], ["--recall", "1.5"], ["--recall", "x"], ["--kind", "best"], ["--layers", "x"]):
        fails("index", cache, *wrong, code=2)
    assert "FAISS finds no cuda" in fails("index", cache, "--device", "cuda")
    assert not (tmp_path / "reviews.index").exists()


def test_the_index_of_another_cache_is_not_written_over(tmp_path: Path) -> None:
    mine, theirs = cache_of(tmp_path, X[:900], "mine.h5"), cache_of(tmp_path, X, "theirs.h5")
    document("index", theirs)
    path = tmp_path / "theirs.index"
    before = path.read_bytes()
    line = fails("search", mine, "--row", 1, "--index", path)
    assert f"{path} belongs to another cache, {theirs}, not to {mine}: run embedcache index {mine}, leave" in line
    line = fails("index", mine, "-o", path)
    assert f"{path} is the index of another cache, {theirs}: name another file with -o, or remove it" in line
    assert path.read_bytes() == before
    assert document("index", mine)["rows"] == 900


def test_no_rows_and_a_cache_that_is_not_complete(tmp_path: Path) -> None:
    empty = make_cache(tmp_path / "empty.h5", [], np.empty((0, 4), np.float32))
    assert "has no rows to search" in fails("index", empty)
    part = make_cache(tmp_path / "part.h5", ["a", "b"], np.eye(2, 4, dtype=np.float32), incomplete=True)
    assert "is not complete" in fails("index", part)


def test_a_damaged_index_is_built_anew(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, X)
    document("index", cache)
    path = tmp_path / "reviews.index"
    path.write_bytes(path.read_bytes()[:-40])
    assert "run embedcache index" in fails("search", cache, "--row", 1)
    assert document("index", cache)["action"] == "built"


def test_a_crash_leaves_the_old_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_of(tmp_path, X[:2000])
    document("index", cache)
    before = (tmp_path / "reviews.index").read_bytes()
    cache_of(tmp_path, X)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "No space left" in fails("index", cache)
    assert (tmp_path / "reviews.index").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2
