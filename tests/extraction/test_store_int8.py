"""extract --store int8: the float32 vectors, each rounded by a scale of its own, with every promise of a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.cache.create import Writer
from embedcache.common.int8_rows import Int8Rows, as_stored
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import ExtractReport, extract
from embedcache.extraction.merge import merge
from tests.conftest import document, fails, make_reviews, write_csv
from tests.extraction.test_extract_faults import Stop

ROWS, FEW = 1100, 150  # two blocks, one


@pytest.fixture
def run(tiny_bert: Path, tmp_path: Path) -> Callable[..., ExtractReport]:
    def run(rows: int | list[tuple[str, str]] = ROWS, name: str = "cache.h5", **options: Any) -> ExtractReport:
        table = write_csv(tmp_path / "table.csv", make_reviews(rows) if isinstance(rows, int) else rows)
        settings = {"model": tiny_bert, "device": "cpu", "dtype": "float32", "pooling": ("cls", "mean")}
        return extract(table, tmp_path / name, **{**settings, "store": "int8", **options})

    return run


@pytest.fixture(scope="module")
def whole(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of an undisturbed run."""
    folder = tmp_path_factory.mktemp("whole")
    table = write_csv(folder / "table.csv", make_reviews(ROWS))
    options = {"model": tiny_bert, "device": "cpu", "dtype": "float32", "pooling": ("cls", "mean")}
    extract(table, folder / "cache.h5", store="int8", **options)
    return folder / "cache.h5"


def same(a: Path, b: Path) -> None:
    """To the bit, checksums and all."""
    with open_cache(a) as one, open_cache(b) as other:
        assert one.layout.datasets == other.layout.datasets
        for path in one.layout.datasets:
            assert one.array(path).tobytes() == other.array(path).tobytes(), path
        for path in one.layout.checked:
            assert one.checksums(path).tobytes() == other.checksums(path).tobytes(), path


def test_the_vectors_are_those_of_float32_rounded(run: Callable[..., ExtractReport], tmp_path: Path) -> None:
    reviews = [*make_reviews(60), *make_reviews(5)]  # five duplicates
    report = run(reviews)
    assert (report.encoded, report.duplicates, report.encoder["store"]) == (60, 5, "int8")
    (note,) = [one for one in report.notes if one.startswith("vectors are int8")]
    assert "72 bytes a row instead of float16's 128" in note and "cls 0.9999" in note
    run(reviews, "exact.h5", store="float32")
    with open_cache(tmp_path / "cache.h5") as cache, open_cache(tmp_path / "exact.h5") as exact:
        assert cache.fingerprint != exact.fingerprint
        for pooling in ("cls", "mean"):
            found = cache.embeddings(pooling)
            assert isinstance(found, Int8Rows)
            assert (found[:] == as_stored(np.array(exact.embeddings(pooling)), "int8")).all()
    assert not any("int8" in one for one in run([*reviews, ("new", "positive")]).notes), "said once"


def test_an_interrupted_run_goes_on(
    run: Callable[..., ExtractReport], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Writer.put

    def stop(writer: Writer, dataset: str, start: int, array: np.ndarray) -> None:
        if (dataset, start) == ("scales/mean", 1024):  # the second block has its values, not all of its scales
            raise Stop
        put(writer, dataset, start, array)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Writer, "put", stop)
        run()
    with open_cache(tmp_path / "cache.h5") as cache:
        assert cache.array("embeddings/mean")[1024:].any() and not cache.array("scales/mean")[1024:].any()
        assert cache.missing_rows("mean") == ROWS - 1024
        with pytest.raises(EmbedcacheError, match="rows have no vector"):
            cache.embeddings()
    report = run()
    assert (report.encoded, report.reused) == (ROWS - 1024, 1024)
    same(tmp_path / "cache.h5", whole)


def test_a_flipped_scale_is_found_and_made_again(
    run: Callable[..., ExtractReport], whole: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cache.h5"
    path.write_bytes(whole.read_bytes())
    with open_cache(path) as cache:
        place = cache.offset("scales/mean") + 4 * 1060 + 2
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 8]))
    assert verify(path).damaged == [("embeddings/mean", 1024, ROWS)]
    assert "embeddings/mean rows 1,024 to 1,099" in fails("verify", path)
    report = run()
    assert (report.repaired, report.encoded) == (1, ROWS - 1024)
    same(path, whole)


def test_rows_are_reused_by_content(run: Callable[..., ExtractReport], tmp_path: Path) -> None:
    reviews = make_reviews(FEW)
    run(reviews[:120])
    report = run([(text, "other") for text, _ in reversed(reviews)])
    assert (report.encoded, report.reused) == (30, 120)
    run([(text, "other") for text, _ in reversed(reviews)], "fresh.h5")
    same(tmp_path / "cache.h5", tmp_path / "fresh.h5")
    with pytest.raises(EmbedcacheError, match="store int8 in the cache, float16 asked"):
        run(reviews, store="float16")


def test_shards_are_merged(run: Callable[..., ExtractReport], tmp_path: Path) -> None:
    parts = [tmp_path / f"part-{i}.h5" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        run(FEW, part.name, shard=(i, 2))
    assert merge(parts, tmp_path / "joined.h5").complete
    run(FEW, "whole.h5")
    same(tmp_path / "joined.h5", tmp_path / "whole.h5")
    run(FEW, "part-2.h5", shard=(2, 2), store="float16", overwrite=True)
    with pytest.raises(EmbedcacheError, match="store int8 in the cache, float16 asked"):
        merge(parts, tmp_path / "other.h5")


def test_token_states_stay_float16(run: Callable[..., ExtractReport], tmp_path: Path) -> None:
    for store in ("int8", "float16"):
        run(40, f"{store}.h5", store=store, tokens=1)
    with open_cache(tmp_path / "int8.h5") as one, open_cache(tmp_path / "float16.h5") as other:
        found, exact = (cache.token_states().values for cache in (one, other))
        assert found.dtype == np.float16 and (found == exact).all()


def test_the_command(extract: Callable[..., list[Any]], reviews_csv: Path, tmp_path: Path) -> None:
    report = document(*extract(reviews_csv, "--store", "int8"))
    assert report["encoder"]["store"] == "int8"
    about = document("info", tmp_path / "cache.h5")
    assert about["encoder"]["store"] == "int8" and any("bytes a row" in note for note in about["notes"])
    assert "'float8' is not one of 'float16', 'float32', 'int8'" in fails(
        *extract(reviews_csv, "--store", "float8"), code=2
    )
