"""Indexes, maps, audits, caches' attributes and embedcache.toml that were changed by somebody who means harm."""

from __future__ import annotations

import json
import random
import shutil
import tarfile
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.index import SearchIndex, file_format
from embedcache.index.job import index_cache
from embedcache.report.audit_section import read_audit
from embedcache.search.searcher import Query, Searcher
from embedcache.serve.projection import default_map_path, load_map
from tests.conftest import fails, invoke
from tests.faults.hostile_json import VALUES, cases, dump, with_value
from tests.faults.test_hostile_runs import outcome
from tests.test_old_files import PACKED


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile-files")
    with tarfile.open(PACKED) as packed:
        packed.extractall(folder, filter="data")
    return folder


# ---- indexes ----


def split_index(path: Path) -> tuple[bytes, Any]:
    """(what stands before the footer, the footer)."""
    data = path.read_bytes()
    size = int.from_bytes(data[-file_format.TAIL : -16], "little")
    return data[: -file_format.TAIL - size], json.loads(data[-file_format.TAIL - size : -file_format.TAIL])


def write_index(path: Path, before: bytes, footer: bytes) -> None:
    """With the digest that belongs to it."""
    path.write_bytes(before + footer + len(footer).to_bytes(8, "little") + blake2b(footer, digest_size=16).digest())


@pytest.mark.parametrize("most", [40, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.timeout(1800)
def test_the_footer_of_an_index(old: Path, tmp_path: Path, kind: str, most: int | None) -> None:
    """It is refused, or finds rows of the cache; `embedcache index` keeps it, or makes it anew."""
    path, cache = tmp_path / "reviews.index", Path(shutil.copy(old / "cache.h5", tmp_path / "cache.h5"))
    before, footer = split_index(old / f"{kind}.index")
    footer["cache"] = "cache.h5"

    def search() -> None:
        index = SearchIndex.load(path)
        found = index.search(np.ones((1, index.dim), np.float32), k=3)
        assert ((found.rows >= -1) & (found.rows < 60)).all()

    def ask() -> None:
        searcher = Searcher.open(cache, index=path)
        try:
            searcher.search([Query((3,))], 3)
        finally:
            searcher.close()

    def build() -> None:
        index_cache(cache, path, kind=kind, pooling="mean")

    counts = {"refused": 0, "taken": 0}
    for place, value, remove in cases(footer, random.Random(0), most):
        changed = dump(with_value(footer, place, value, remove))
        for use in (search, ask, build):
            write_index(path, before, changed)
            try:
                counts[outcome(use)] += 1
            except Exception as error:
                error.add_note(f"{place} {'removed' if remove else repr(value)[:80]}")
                raise
    print(counts)
    assert counts["refused"] > 50


@pytest.mark.parametrize("footer", [b"", b"{", b"[" * 100_000, b'{"format_version": 2, "x": ' + b"[" * 100_000])
def test_a_footer_that_is_none(old: Path, tmp_path: Path, footer: bytes) -> None:
    write_index(tmp_path / "reviews.index", b"embedcache index\n", footer)
    line = fails("search", old / "cache.h5", "--row", 3, "--index", tmp_path / "reviews.index")
    assert "(unexpected:" not in line and "index" in line


# ---- maps ----


@pytest.mark.parametrize(
    "points",
    [np.zeros((60, 3), np.float32), np.zeros((60, 2), np.float64), np.full((60, 2), np.nan, np.float32), None],
)
def test_a_map_of_something_else_is_made_anew(old: Path, tmp_path: Path, points: np.ndarray | None) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(str(default_map_path(old / "cache.h5")), framework="numpy") as file:
        about = file.metadata()
    path = tmp_path / "x.map.safetensors"
    if points is None:  # a type that NumPy does not have
        data = json.dumps(
            {"__metadata__": about, "points": {"dtype": "BF16", "shape": [60, 2], "data_offsets": [0, 240]}}
        ).encode()
        path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(240))
    else:
        save_file({"points": points}, str(path), about)
    with open_cache(old / "cache.h5") as cache:
        assert load_map(path, cache) is None


# ---- audits ----


@pytest.mark.parametrize("most", [400, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_what_an_audit_wrote(old: Path, tmp_path: Path, most: int | None) -> None:
    path, audit = tmp_path / "audit.json", json.loads((old / "runs" / "classification" / "audit.json").read_text())
    counts = {"refused": 0, "taken": 0}
    for place, value, remove in cases(audit, random.Random(0), most):
        path.write_bytes(dump(with_value(audit, place, value, remove)))
        try:
            counts[outcome(lambda: read_audit(path))] += 1
        except Exception as error:
            error.add_note(f"{place} {'removed' if remove else repr(value)[:80]}")
            raise
    print(counts)
    assert counts["refused"] > 50


# ---- the attributes of a cache ----


def with_encoder(path: Path, text: str | bytes) -> None:
    """The cache with another description of its encoder, sealed again."""
    import h5py

    from tests.faults.cases import reseal

    with h5py.File(path, "r+", libver=("v110", "v110")) as file:
        file.attrs["encoder"] = text
    reseal(path)


@pytest.mark.parametrize("most", [60, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_the_encoder_of_a_cache(old: Path, tmp_path: Path, most: int | None) -> None:
    with open_cache(old / "cache.h5") as cache:
        encoder = cache.encoder
    path = tmp_path / "cache.h5"

    def use() -> None:
        with open_cache(path) as cache:
            json.dumps(cache.info(), allow_nan=False).encode()
        searcher = Searcher.open(path)
        try:
            searcher.search([Query((3,))], 3)
        finally:
            searcher.close()

    counts = {"refused": 0, "taken": 0}
    for place, value, remove in cases(encoder, random.Random(0), most):
        shutil.copy(old / "cache.h5", path)
        with_encoder(path, dump(with_value(encoder, place, value, remove)).decode())
        try:
            counts[outcome(use)] += 1
        except Exception as error:
            error.add_note(f"{place} {'removed' if remove else repr(value)[:80]}")
            raise
    print(counts)
    assert counts["refused"] > 5


# ---- embedcache.toml ----


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 100_000,
        "[train-head]\nlr = " + "[" * 50 + "]" * 50,
        "[train-head]\nlr = nan",
        "[train-head]\nlr = inf",
        "[train-head]\nepochs = 1" + "0" * 5000,
        "[train-head]\nepochs = 1.5",
        "[train-head]\nseed = 1979-05-27",
        "[train-head.lr]\na = 1",
        "[[train-head]]\nlr = 1",
        '[train-head]\nengine = "\\u0000"',
        '[train-head]\nlabel = "\\uD800"',
        "[train-head]\n" + "\n".join(f"k{i} = 1" for i in range(10_000)),
        "a." * 5_000 + "b = 1",
        '[extract]\nmodel = "' + "x" * (1 << 21) + '"',
    ],
    ids=range(14),
)
def test_embedcache_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "embedcache.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    result = invoke("info", "nothing.h5")
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit), result.exception
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: embedcache.toml") and "(unexpected:" not in last and len(last) < 2000, last[:300]


def test_every_value_in_embedcache_toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"train-head": ["lr", "epochs", "resume", "label", "device"], "search": ["k", "where", "dedupe"]}
    for command, names in options.items():
        for name in names:
            for value in VALUES:
                try:
                    text = json.dumps(value)
                except ValueError:
                    continue
                text = {"NaN": "nan", "Infinity": "inf", "null": "''"}.get(text, text)
                (tmp_path / "embedcache.toml").write_text(f"[{command}]\n{name} = {text}\n")
                result = invoke("info", "nothing.h5")
                says = result.stderr.strip().splitlines()[-1]
                begin = "Error: no such file: " if result.exit_code == 1 else "Error: embedcache.toml"
                assert isinstance(result.exception, SystemExit) and says.startswith(begin), (name, text[:80], says)
