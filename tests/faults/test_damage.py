"""Flipped bits and cut files: each is found or harmless, and exactly what is damaged is made again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from tests.conftest import make_reviews, write_csv
from tests.extraction.test_extract import assert_same, contents

VECTORS = ("embeddings", "rows/tokens")  # what is filled by encoding
ROWS = 2500  # three blocks, so that one can be damaged and the others not


@pytest.fixture(scope="module")
def made(tiny_bert, tmp_path_factory):
    """A folder with table.csv and its complete cache.h5, to be copied."""
    folder = tmp_path_factory.mktemp("made")
    table = write_csv(folder / "table.csv", make_reviews(ROWS))
    extract(table, folder / "cache.h5", model=tiny_bert, device="cpu", pooling=("cls", "mean"), id="label")
    return folder


def flip(path: Path, place: int, bit: int) -> None:
    with path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, place)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)


def sample_places(path: Path, count: int) -> list[tuple[int, int]]:
    """(byte, bit) all over the file: as many in each dataset, its checksums, and HDF5's structure and attributes."""
    rng = np.random.default_rng(0)
    structure = np.frombuffer(path.read_bytes(), np.uint8) != 0
    regions = []
    with open_cache(path) as cache:
        for name in [*cache.layout.datasets, *(f"blocks/{name}" for name in cache.layout.checked)]:
            regions.append(np.arange(cache.offset(name), cache.offset(name) + cache.array(name).nbytes))
            structure[regions[-1]] = False
    regions += [np.flatnonzero(structure)] * (len(regions) // 2)  # a third of all
    return [(int(rng.choice(regions[i % len(regions)])), int(rng.integers(8))) for i in range(count)]


def outcome(made: Path, model: Path, path: Path, place: int, bit: int, original: tuple) -> str:
    """What becomes of one flipped bit: ``unreadable``, ``harmless`` or ``repaired``, each proven."""
    shutil.copy(made / "cache.h5", path)
    flip(path, place, bit)
    options = {"model": model, "device": "cpu", "id": "label"}
    try:
        damaged = verify(path).damaged
    except EmbedcacheError:
        before = path.read_bytes()
        with pytest.raises(EmbedcacheError):
            extract(made / "table.csv", path, **options)
        assert path.read_bytes() == before
        return "unreadable"
    if not damaged:
        assert_same(contents(path), original)
        return "harmless"
    report = extract(made / "table.csv", path, **options)
    assert verify(path).ok and not list(path.parent.glob(".*"))
    if "attributes" in {span.dataset for span in damaged}:
        assert report.encoded == 0  # the vectors still prove which encoder made them
    else:
        # Token counts are made with the vectors, so their block is encoded again.
        blocks = {(span.start, span.stop) for span in damaged if span.dataset.startswith(VECTORS)}
        assert report.encoded == sum(stop - start for start, stop in blocks), damaged
        assert report.repaired == len(damaged)
    found = contents(path)
    for output, x in original[0].items():
        np.testing.assert_allclose(found[0].pop(output), x, atol=2e-3)
    assert found[1:] == original[1:]
    return "repaired"


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("flips", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_every_flipped_bit_is_found_or_harmless_and_repaired(made, tiny_bert, tmp_path, flips):
    original = contents(made / "cache.h5")
    places = sample_places(made / "cache.h5", flips)
    outcomes = [outcome(made, tiny_bert, tmp_path / "cache.h5", *place, original) for place in places]
    print({name: outcomes.count(name) for name in set(outcomes)})
    assert outcomes.count("repaired") >= flips / 2 and outcomes.count("unreadable") > 0, outcomes


def test_only_the_damaged_block_is_encoded_again(made, tiny_bert, tmp_path):
    path = Path(shutil.copy(made / "cache.h5", tmp_path))
    with open_cache(path) as cache:
        place = cache.offset("embeddings/mean") + 1500 * cache.dim * 2
    flip(path, place, 0)
    assert verify(path).damaged == [("embeddings/mean", 1024, 2048)]
    before = path.stat().st_ino
    report = extract(made / "table.csv", path, model=tiny_bert, device="cpu", id="label")
    assert (report.encoded, report.repaired) == (1024, 1) and path.stat().st_ino == before
    assert verify(path).ok


def test_a_file_cut_short_is_refused_and_overwritten_on_demand(made, tiny_bert, tmp_path):
    """At 50 places: no reader takes it, no extract changes it, ``overwrite`` makes it anew."""
    path, data = tmp_path / "cache.h5", (made / "cache.h5").read_bytes()
    options = {"model": tiny_bert, "device": "cpu", "id": "label"}
    for size in [*np.linspace(8, len(data) - 1, 48).astype(int).tolist(), 4096, len(data) - 4096]:
        path.write_bytes(data[:size])
        for read in (open_cache, verify, lambda path: extract(made / "table.csv", path, **options)):
            with pytest.raises(EmbedcacheError) as error:
                read(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert path.read_bytes() == data[:size]
    assert extract(made / "table.csv", path, overwrite=True, **options).encoded == ROWS
    assert verify(path).ok
