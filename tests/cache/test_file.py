"""Reading a cache: views without copies, clear errors for everything that is not a sound cache."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from tests.conftest import make_cache

TEXTS = ["a fine film", "", "退屈な映画 🎬", "مملة", "a fine film"] * 500


@pytest.fixture
def vectors():
    return np.random.default_rng(0).standard_normal((len(TEXTS), 8)).astype(np.float16)


@pytest.fixture
def cache_path(tmp_path, vectors):
    labels = {"label": ["good", "bad", "bad", None, "good"] * 500, "a/b %": ["x"] * 2500}
    columns = {"id": [f"r{i}" for i in range(2500)], ".": ["dot"] * 2500}
    return make_cache(tmp_path / "c.h5", TEXTS, vectors, labels, columns=columns, id="id")


def test_everything_comes_back(cache_path, vectors):
    with open_cache(cache_path) as cache:
        assert (cache.rows, cache.dim, cache.poolings, cache.complete) == (2500, 8, ["cls"], True)
        np.testing.assert_array_equal(cache.embeddings(), vectors)
        codes, classes = cache.labels("label")
        assert classes == ["bad", "good"] and codes[:5].tolist() == [1, 0, 0, -1, 1] and codes.dtype == np.int32
        assert cache.label_names == ["a/b %", "label"] and sorted(cache.column_names) == [".", "id"]
        assert list(cache.texts) == TEXTS and cache.texts[-1] == "a fine film" and cache.texts[1:3] == TEXTS[1:3]
        assert cache.ids is not None and cache.ids[2499] == "r2499" and cache.column(".")[0] == "dot"
        assert (cache.hashes[0] == cache.hashes[4]).all() and (cache.hashes[0] != cache.hashes[1]).any()


def test_embeddings_are_a_view_of_the_file(cache_path, vectors):
    cache = open_cache(cache_path)
    x = cache.embeddings()
    assert isinstance(x, np.memmap) and not x.flags.writeable and not x.flags.owndata
    cache.close()
    np.testing.assert_array_equal(x, vectors)  # handed out before the close


def test_plain_h5py_reads_it(cache_path, vectors):
    with h5py.File(cache_path, "r") as file:
        assert file.attrs["format"] == "embedcache" and file.attrs["format_version"] == 1
        np.testing.assert_array_equal(file["embeddings/cls"][:], vectors)
        assert list(file["labels/label"].attrs["classes"]) == ["bad", "good"]
        begin, end = file["text/offsets"][2:4]
        assert file["text/bytes"][begin:end].tobytes().decode() == TEXTS[2]
        for path in ("embeddings/cls", "rows/hash", "text/bytes", "labels/label", "blocks/embeddings/cls"):
            assert file[path].id.get_offset() % 4096 == 0 and file[path].chunks is None


def test_ten_thousand_long_unicode_classes(tmp_path):
    classes = [f"クラス {i:05} " + "長" * 40 for i in range(10_000)]
    path = make_cache(tmp_path / "c.h5", classes, np.ones((10_000, 4), np.float32), {"label": classes})
    with open_cache(path) as cache:
        codes, found = cache.labels("label")
        assert found == sorted(classes) and [found[i] for i in codes] == classes
    assert verify(path).ok


@pytest.mark.parametrize("rows", [0, 1, 1023, 1024, 1025])
def test_sizes_around_a_block(tmp_path, rows):
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    path = make_cache(tmp_path / "c.h5", [""] * rows, x, {"label": [None] * rows})
    with open_cache(path) as cache:
        np.testing.assert_array_equal(cache.embeddings(), x)
        assert list(cache.texts) == [""] * rows and cache.complete and cache.labels("label")[1] == []
        assert cache.info()["rows"] == rows
    assert verify(path).ok


TOPICS = [["b", "a"], [], None, ["c"], ["a"]]


def test_lists_of_labels(tmp_path, vectors):
    path = make_cache(tmp_path / "c.h5", TEXTS, vectors, {"label": ["x", "y"] * 1250, "a/b": TOPICS * 500})
    with open_cache(path) as cache:
        matrix, classes = cache.labels("a/b")
        assert classes == ["a", "b", "c"] and matrix.dtype == np.int8 and matrix.shape == (2500, 3)
        assert matrix[-5:].tolist() == [[1, 1, 0], [0, 0, 0], [-1, -1, -1], [0, 0, 1], [1, 0, 0]]
        assert np.shares_memory(matrix, cache.array("labels/a%2Fb")) and not matrix.flags.writeable
        assert [cache.label_kind(name) for name in ("label", "a/b")] == ["classification", "multilabel"]
        info = cache.info()["labels"]
        assert info["a/b"] == {"kind": "multilabel", "missing": 500, "classes": {"a": 1000, "b": 500, "c": 500}}
        assert info["label"] == {"kind": "classification", "missing": 0, "classes": {"x": 1250, "y": 1250}}
        with pytest.raises(EmbedcacheError, match="no label column"):
            cache.label_kind("id")
    with h5py.File(path) as file:
        assert file["labels/a%2Fb"].attrs["kind"] == "multilabel" and "kind" not in file["labels/label"].attrs
        assert file["labels/a%2Fb"].id.get_offset() % 4096 == 0 and file["labels/a%2Fb"].dtype == "int8"
    assert verify(path).ok
    data = bytearray(path.read_bytes())
    with open_cache(path) as cache:
        data[cache.offset("labels/a%2Fb") + 3 * 2000] ^= 1
    path.write_bytes(data)
    assert verify(path).damaged == [("labels/a%2Fb", 1024, 2048)]


@pytest.mark.parametrize("topics", [[[]] * 5, [None, [], None]])
def test_lists_without_any_label(tmp_path, topics):
    x = np.zeros((len(topics), 2), np.float32)
    path = make_cache(tmp_path / "c.h5", ["t"] * len(topics), x, {"topics": topics})
    with open_cache(path) as cache:
        assert cache.labels("topics")[0].shape == (len(topics), 0) and cache.info()["labels"]["topics"]["classes"] == {}
    assert verify(path).ok


def test_incomplete_says_how_many_are_missing(tmp_path, vectors):
    path = make_cache(tmp_path / "c.h5", TEXTS, vectors, incomplete=True)
    with open_cache(path) as cache:
        assert not cache.complete and cache.missing_rows() == 2500 - 2048
        with pytest.raises(EmbedcacheError, match="452 of 2,500 rows have no vector; run the same extract again"):
            cache.embeddings()
        assert cache.embeddings(allow_incomplete=True).shape == (2500, 8)
    report = verify(path)
    assert report.ok and report.incomplete == [("embeddings/cls", 2048, 2500)]


def test_unknown_names_say_what_there_is(cache_path):
    with open_cache(cache_path) as cache:
        with pytest.raises(EmbedcacheError, match="no mean vectors, only cls"):
            cache.embeddings("mean")
        with pytest.raises(EmbedcacheError, match=r"cls \(layer -4\)"):
            cache.embeddings("cls", -4)
        with pytest.raises(EmbedcacheError, match="no label column 'x'; it has 'a/b %', 'label'"):
            cache.labels("x")
        with pytest.raises(EmbedcacheError, match="no kept column"):
            cache.column("label")


def write(path, data):
    path.write_bytes(data)
    return path


def test_not_a_cache(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1, 2, 3]
    cases = {
        tmp_path / "missing.h5": "no such file",
        tmp_path: "is not a file",
        write(tmp_path / "empty.h5", b""): "not an HDF5 file",
        write(tmp_path / "text.csv", b"text,label\n" * 100): "not an HDF5 file",
        write(tmp_path / "signature.h5", b"\x89HDF\r\n\x1a\n" + bytes(1000)): "not an embedcache file",
        tmp_path / "other.h5": "not an embedcache file",
    }
    for path, message in cases.items():
        for function in (open_cache, verify):
            with pytest.raises(EmbedcacheError, match=message):
                function(path)


def test_newer_version_asks_for_an_upgrade(cache_path):
    with h5py.File(cache_path, "r+") as file:
        file.attrs["format_version"] = 3
    with pytest.raises(EmbedcacheError, match=r"format version 3, .* upgrade"):
        open_cache(cache_path)


def test_cut_short(cache_path):
    data = cache_path.read_bytes()
    for size in np.linspace(8, len(data) - 1, 50).astype(int):
        cache_path.write_bytes(data[:size])
        with pytest.raises(EmbedcacheError):
            open_cache(cache_path)
