"""Files made to hurt: each is refused with one line, before anything in it is mapped."""

from __future__ import annotations

import shutil
from contextlib import suppress

import h5py
import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.cache.hdf5_reader import Hdf5
from embedcache.cache.hdf5_structure import read_structure
from embedcache.errors import EmbedcacheError
from tests.conftest import make_cache

N = 1500


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    x = np.ones((N, 4), np.float16)
    labels = {"label": ["a", "b", "c"] * 500, "topics": [["a", "b"], [], None] * 500}
    return make_cache(tmp_path_factory.mktemp("sound") / "c.h5", ["text"] * N, x, labels, columns={"k": ["v"] * N})


def edit(path):
    """With the structure that caches have, so that it is the content that is refused."""
    return h5py.File(path, "r+", libver=("v110", "v110"))


def replace(path, name, data=None, **options):
    """Put another dataset in the place of one."""
    with edit(path) as file:
        attrs = dict(file[name].attrs)
        del file[name]
        dataset = file.create_dataset(name, data=data, **options)
        dataset.attrs.update(attrs)


def external(path, name):
    with edit(path) as file:
        del file[name]
        shape = (N, 4)
        file.create_dataset(name, shape, "<f2", external=[(str(path.with_name("secret")), 0, N * 8)])


def link(path, name, target):
    with edit(path) as file:
        del file[name]
        file[name] = target


def write_attribute(path, where, name, value):
    with edit(path) as file:
        file[where].attrs[name] = value


def delete_attribute(path, where, name):
    with edit(path) as file:
        del file[where].attrs[name]


def reseal(path):
    """Make the seal right again: whoever forges the content can do that too."""
    data = np.fromfile(path, np.uint8)
    layout, _, created, _ = read_structure(Hdf5(data), data.size)
    with edit(path) as file:
        file.attrs["seal"] = layout.seal(created)


CASES = {
    "wrong shape": lambda p: replace(p, "embeddings/cls", np.ones((N - 1, 4), np.float16)),
    "wrong rank": lambda p: replace(p, "embeddings/cls", np.ones((N, 2, 2), np.float16)),
    "float64": lambda p: replace(p, "embeddings/cls", np.ones((N, 4))),
    "big endian": lambda p: replace(p, "labels/label", np.zeros(N, ">i4")),
    "compound": lambda p: replace(p, "rows/hash", np.zeros((N, 16), [("a", "u1")])),
    "strings": lambda p: replace(p, "text/bytes", ["a", "b"]),
    "scalar": lambda p: replace(p, "rows/hash", 1),
    "null": lambda p: replace(p, "rows/hash", h5py.Empty("u1")),
    "chunked": lambda p: replace(p, "embeddings/cls", np.ones((N, 4), np.float16), chunks=(10, 4)),
    "huge": lambda p: replace(p, "embeddings/cls", shape=(N, 1 << 50), dtype="<f2", chunks=(1, 1 << 20)),
    "never allocated": lambda p: replace(p, "embeddings/cls", shape=(N, 4), dtype="<f2"),
    "external file": lambda p: external(p, "embeddings/cls"),
    "soft link": lambda p: link(p, "embeddings/cls", h5py.SoftLink("/rows/hash")),
    "external link": lambda p: link(p, "embeddings/cls", h5py.ExternalLink("other.h5", "/x")),
    "external link to a group": lambda p: link(p, "embeddings", h5py.ExternalLink("other.h5", "/x")),
    "group for dataset": lambda p: link(p, "rows/hash", h5py.SoftLink("/")),
    "no checksums": lambda p: link(p, "blocks", h5py.SoftLink("/nowhere")),
    "negative offsets": lambda p: replace(p, "text/offsets", np.r_[0, -5, np.full(N - 1, 4 * N)].astype("<i8")),
    "offsets past the end": lambda p: replace(p, "text/offsets", np.r_[np.zeros(N), 1 << 40].astype("<i8")),
    "offsets go back": lambda p: replace(p, "columns/k/offsets", np.r_[0, 9, 3, np.full(N - 2, N)].astype("<i8")),
    "codes out of range": lambda p: replace(p, "labels/label", np.full(N, 3, "<i4")),
    "codes below -1": lambda p: replace(p, "labels/label", np.full(N, -2, "<i4")),
    "several labels of another kind": lambda p: write_attribute(p, "labels/topics", "kind", "regression"),
    "kind a number": lambda p: write_attribute(p, "labels/topics", "kind", 3),
    "a kind for single labels": lambda p: write_attribute(p, "labels/label", "kind", "multilabel"),
    "several labels without a kind": lambda p: delete_attribute(p, "labels/topics", "kind"),
    "more labels than columns": lambda p: write_attribute(p, "labels/topics", "classes", ["a", "b", "c"]),
    "labels of 2": lambda p: replace(p, "labels/topics", np.full((N, 2), 2, "i1")),
    "labels of -2": lambda p: replace(p, "labels/topics", np.full((N, 2), -2, "i1")),
    "half a row labelled": lambda p: replace(p, "labels/topics", np.tile(np.array([1, -1], "i1"), (N, 1))),
    "half a row labelled, the other half": lambda p: replace(
        p, "labels/topics", np.tile(np.array([-1, 1], "i1"), (N, 1))
    ),
    "encoder no JSON": lambda p: write_attribute(p, "/", "encoder", "{"),
    "encoder deep JSON": lambda p: write_attribute(p, "/", "encoder", "[" * 100_000),
    "encoder a list": lambda p: write_attribute(p, "/", "encoder", "[]"),
    "encoder a number": lambda p: write_attribute(p, "/", "encoder", 3),
    "version a string": lambda p: write_attribute(p, "/", "format_version", "1"),
    "version zero": lambda p: write_attribute(p, "/", "format_version", 0),
    "id column missing": lambda p: write_attribute(p, "/", "id_column", "nowhere"),
    "classes a number": lambda p: write_attribute(p, "labels/label", "classes", 7),
    "dataset gone": lambda p: link(p, "text/bytes", h5py.SoftLink("/text/bytes")),
}


@pytest.mark.parametrize("name", CASES)
def test_refused(sound, tmp_path, name):
    path = shutil.copy(sound, tmp_path / "c.h5")
    CASES[name](path)
    with suppress(Exception):  # most cannot even be sealed
        reseal(path)
    with pytest.raises(EmbedcacheError) as error:
        open_cache(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    with suppress(EmbedcacheError):
        assert not verify(path).ok


def test_attributes_are_sealed(sound, tmp_path):
    path = shutil.copy(sound, tmp_path / "c.h5")
    write_attribute(path, "labels/label", "classes", ["a", "b", "x"])
    with pytest.raises(EmbedcacheError, match="attributes have changed"):
        open_cache(path)
    assert verify(path).damaged == [("attributes", 0, N)]


def test_text_that_is_not_utf8(sound, tmp_path):
    path = shutil.copy(sound, tmp_path / "c.h5")
    with edit(path) as file:
        file["text/bytes"][4:8] = 255
    with open_cache(path) as cache, pytest.raises(EmbedcacheError, match="row 1 is damaged: not UTF-8"):
        _ = cache.texts[1]
    assert verify(path).damaged == [("text/bytes", 0, 1024)]


def test_overlapping_datasets(tmp_path, sound):
    """Two names for the same bytes: a writer would spoil one with the other."""
    path = shutil.copy(sound, tmp_path / "c.h5")
    with edit(path) as file:
        del file["rows/hash"], file["blocks/text/bytes"], file["blocks/text/offsets"]
        file["blocks/text/bytes"] = file["blocks/embeddings/cls"]
        file["blocks/text/offsets"] = file["blocks/embeddings/cls"]
        file["rows/hash"] = np.zeros((N, 16), np.uint8)
    with pytest.raises(EmbedcacheError, match="overlap"):
        open_cache(path)


def test_random_bytes_never_crash_the_reader(sound, tmp_path):
    """Several bytes of HDF5's own structure spoilt at once."""
    rng = np.random.default_rng(0)
    data = np.frombuffer(sound.read_bytes(), np.uint8)
    places = np.flatnonzero(data)
    path = tmp_path / "c.h5"
    for _ in range(150):
        spoilt = data.copy()
        spoilt[rng.choice(places, 3)] = rng.integers(0, 256, 3)
        path.write_bytes(spoilt.tobytes())
        try:
            with open_cache(path) as cache:
                cache.info()
                list(cache.texts[:3])
        except EmbedcacheError:
            pass


@pytest.mark.parametrize("bounds", [("v110", "v110"), ("earliest", "v110")], ids=["-j 2 -k 2", "as h5repack does"])
def test_a_file_that_another_program_rewrote(sound, tmp_path, bounds):
    """As h5repack does it: every object copied into a new file, in HDF5's older format unless told otherwise."""
    path = tmp_path / "rewritten.h5"
    with h5py.File(sound, "r") as old, h5py.File(path, "w", libver=bounds) as new:
        for name in old:
            old.copy(name, new)
        new.attrs.update(old.attrs)
    if bounds[0] == "v110":
        assert verify(path).ok
    else:
        with pytest.raises(EmbedcacheError, match=r"^.*rewritten\.h5 was rewritten .* h5repack -j 2 -k 2 .*$"):
            open_cache(path)
