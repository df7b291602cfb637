"""Vectors on their way into a file: in int8 a row takes its scale along."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.cache.hdf5_reader import Hdf5
from embedcache.cache.hdf5_structure import read_structure
from embedcache.cache.stored_rows import joined, no_rows, parted, to_store
from embedcache.common.int8_rows import Int8Rows, to_int8
from embedcache.errors import EmbedcacheError
from tests.conftest import make_cache

N, D = 1500, 12
X = np.random.default_rng(0).standard_normal((N, D), dtype=np.float32)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "c.h5"
    return make_cache(
        path, [f"text {i}" for i in range(N)], {"cls": Int8Rows(*to_int8(X)), "mean": Int8Rows(*to_int8(2 * X))}
    )


def test_rows_and_their_scales_stay_together() -> None:
    values, scales = to_int8(X)
    rows = joined(values, scales)
    assert rows.dtype == no_rows("int8", D).dtype and rows.shape[1:] == no_rows("int8", D).shape[1:]
    for found, wanted in zip(parted(rows[::-1], "int8"), (values[::-1], scales[::-1]), strict=True):
        assert (found == wanted).all() and found.flags.c_contiguous
    assert (to_store(X, "int8", np.arange(N), ["text"] * N) == rows).all()
    assert [one.dtype for one in parted(no_rows("float16", D, 3), "float16")] == [np.float16]


def test_a_vector_that_is_not_finite_is_refused_as_in_float32() -> None:
    bad = X[:3].copy()
    bad[1, 2] = np.inf
    with pytest.raises(EmbedcacheError, match=r"vector of row 8 .'b'.* is not finite as the encoder gives it"):
        to_store(bad, "int8", np.array([7, 8, 9]), ["a", "b", "c"])


def test_a_file_of_them_is_read_in_place(sound: Path) -> None:
    with h5py.File(sound) as file:  # as the docs tell people to read it
        assert file.attrs["format_version"] == 2
        plain = file["embeddings/mean"][:] * file["scales/mean"][:][:, None]
    with open_cache(sound) as cache:
        rows = cache.embeddings("mean")
        assert isinstance(rows, Int8Rows) and not rows.values.flags.writeable and not rows.values.flags.owndata
        assert (rows[:] == plain).all() and (rows[:] == Int8Rows(*to_int8(2 * X))[:]).all()
        assert cache.info()["encoder"]["store"] == "int8" and cache.width(("cls", -1)) == D
        table = cache.to_arrow([5, 2], vectors="mean")
        assert (np.stack(table["mean"].to_numpy(zero_copy_only=False)) == plain[[5, 2]]).all()
    assert verify(sound).ok


def test_files_of_floats_are_as_they_were(tmp_path: Path) -> None:
    """Older versions read them: they say version 1, and have no scales."""
    path = make_cache(tmp_path / "c.h5", ["a", "b"], X[:2].astype(np.float16))
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == 1 and "scales" not in file
    with open_cache(path) as cache:
        assert cache.fingerprint == "56a8dceb711355e92e2f095e8972e661"


@pytest.mark.parametrize("dataset, row", [("scales/cls", 1100), ("embeddings/cls", 1100), ("scales/mean", 3)])
def test_verify_finds_a_flipped_bit(sound: Path, tmp_path: Path, dataset: str, row: int) -> None:
    path = Path(shutil.copy(sound, tmp_path / "c.h5"))
    with open_cache(path) as cache:
        place = cache.offset(dataset) + row * cache.array(dataset)[0].nbytes
    flipped = np.memmap(path, np.uint8, "r+")
    flipped[place] ^= 1
    flipped.flush()
    start, stop = (1024, N) if row > 1024 else (0, 1024)
    assert verify(path).damaged == [(f"embeddings/{dataset.split('/')[1]}", start, stop)]


def change(path: Path, name: str, data: np.ndarray | None) -> None:
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        del file[name]
        if data is not None:
            file[name] = data


CASES = {
    "no scales": lambda p: change(p, "scales/mean", None),
    "scales of some rows": lambda p: change(p, "scales/cls", np.ones(N - 1, np.float32)),
    "scales in float16": lambda p: change(p, "scales/cls", np.ones(N, np.float16)),
    "a scale for each number": lambda p: change(p, "scales/cls", np.ones((N, D), np.float32)),
    "vectors in float16": lambda p: change(p, "embeddings/cls", np.ones((N, D), np.float16)),
    "unsigned": lambda p: change(p, "embeddings/cls", np.ones((N, D), np.uint8)),
    "version 1": lambda p: rewrite(p, "format_version", 1),
    "another type in the encoder": lambda p: rewrite(
        p, "encoder", h5py.File(p).attrs["encoder"].replace('"store":"int8"', '"store":"float16"')
    ),
}


def rewrite(path: Path, name: str, value: object) -> None:
    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file.attrs[name] = value


@pytest.mark.parametrize("name", CASES)
def test_forged_files_are_refused(sound: Path, tmp_path: Path, name: str) -> None:
    path = Path(shutil.copy(sound, tmp_path / "c.h5"))
    CASES[name](path)
    try:
        data = np.fromfile(path, np.uint8)
        layout, _, created, _ = read_structure(Hdf5(data), data.size)
        rewrite(path, "seal", layout.seal(created))
    except Exception as error:
        assert name != "another type in the encoder", error
    with pytest.raises(EmbedcacheError, match="is damaged") as error:
        open_cache(path)
    assert "\n" not in str(error.value)
