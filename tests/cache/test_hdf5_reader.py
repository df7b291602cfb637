"""The reader of HDF5 structure against h5py, on all shapes of structure that HDF5 makes for a cache."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.cache.hdf5_bytes import InvalidError, lookup3
from embedcache.cache.hdf5_reader import Hdf5, Node
from tests.conftest import make_cache


def compare(file: Hdf5, node: Node, item: h5py.Group) -> int:
    """That both read the same below a group; returns how many objects there are."""
    assert sorted(node.links) == sorted(item)
    count = 0
    for name, address in node.links.items():
        found, there = file.node(address), item[name]
        assert found.attributes.keys() == set(there.attrs)
        for key in there.attrs:
            assert file.strings(found.attributes[key]) == np.atleast_1d(there.attrs[key]).tolist()
        if isinstance(there, h5py.Group):
            count += compare(file, found, there)
        else:
            assert (found.kind, found.shape) == (there.dtype.str, there.shape)
            stored = there.id.get_storage_size()
            assert found.data == (there.id.get_offset(), stored) or not stored
        count += 1
    return count


@pytest.mark.parametrize("columns", [0, 1, 4, 5, 9, 60, 400, pytest.param(1500, marks=pytest.mark.slow)])
def test_the_same_as_h5py(tmp_path, columns):
    """Up to eight links lie in the group itself, more in a heap with an index, many in several levels of both."""
    names = [f"column {i} " + "ü" * (i % 90) for i in range(columns)]
    texts = ["a", "b"] * 3
    vectors = {"cls": np.ones((6, 3), np.float32), "mean": np.ones((6, 3), np.float32)}
    labels = {"label": ["x"] * 6, "topics": [["a", "ü"], [], None] * 2}
    path = make_cache(tmp_path / "c.h5", texts, vectors, labels, columns=dict.fromkeys(names, texts))
    with h5py.File(path) as there:
        file = Hdf5(np.fromfile(path, np.uint8))
        assert compare(file, file.root, there) >= 4 * columns + 15
    with open_cache(path) as cache:
        assert sorted(cache.column_names) == sorted(names)


@pytest.mark.parametrize("classes", [0, 1, 4000, 5000, 9999])
def test_few_and_many_classes(tmp_path, classes):
    """A list of more than 64 KB is stored apart."""
    labels = [f"klasse {i:05}" + "ß" * (i % 30) for i in range(classes)] or [None]
    path = make_cache(
        tmp_path / "c.h5", labels if classes else [""], np.ones((len(labels), 1), np.float16), {"y": labels}
    )
    with open_cache(path) as cache:
        assert cache.labels("y")[1] == [label for label in labels if label]


def test_attributes_that_a_user_adds(tmp_path):
    path = make_cache(tmp_path / "c.h5", ["a"], np.ones((1, 1), np.float16), {"y": ["x"]})
    with h5py.File(path, "r+") as file:
        for i in range(20):
            file.attrs[f"note {i}"] = ["mine", "x" * 5000][i % 2]
        file["mine"] = [1, 2, 3]
        file["embeddings/cls"].attrs["n"] = np.arange(20_000)
    with open_cache(path) as cache:
        assert cache.rows == 1


def test_its_own_checksum():
    assert [lookup3(b""), lookup3(b"Four score and seven years ago")] == [0xDEADBEEF, 0x17770551]


def test_every_spoilt_byte_of_checked_structure_is_noticed(tmp_path):
    path = make_cache(tmp_path / "c.h5", ["a"], np.ones((1, 1), np.float16), {"y": ["x"]})
    data = np.fromfile(path, np.uint8)
    root = Hdf5(data)._root_address
    for place in [*range(8, 48), *range(root, root + 100)]:
        spoilt = data.copy()
        spoilt[place] ^= 8
        with pytest.raises(InvalidError):
            Hdf5(spoilt).root  # noqa: B018 - reads
