"""Token counts beside the vectors: kept, copied, repaired, absent from older files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import verify
from embedcache.cache.tokens import counts_of, reading_of
from embedcache.encoder import Encoder
from tests.conftest import make_reviews, write_csv

LONG = "a film so dull that it is wonderful " * 6  # read whole by the tokenizer: its count is exact
ODD = "映画 great 映画"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [*make_reviews(60), (LONG, "positive"), (ODD, "positive"), (LONG, "negative"), ("", "negative")]
    return write_csv(tmp_path / "t.csv", rows)


def exact(model: Path, texts: Any) -> np.ndarray:
    """Tokens of whole texts, by the tokenizer itself, and unknown ones among the first 30."""
    tokenizer = Encoder.load(model, max_length=30).tokenizer
    rows = [tokenizer(text)["input_ids"] for text in texts]
    return np.array([[len(row), ([*row[:29], row[-1]] if len(row) > 30 else row).count(1)] for row in rows])


def old_extract(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Any:
    """As the first versions wrote it: without token counts."""
    from embedcache.cache import create

    assert callable(ec.extract)  # imports its module
    with monkeypatch.context() as patch:
        module = sys.modules["embedcache.extraction.job"]  # the package's attribute of that name is the function
        patch.setattr(
            module, "make_contents", lambda *args, counted, positions, **more: create.make_contents(*args, **more)
        )
        return ec.extract(*arguments, **options)


def test_every_text_is_counted(table: Path, tmp_path: Path, tiny_bert: Path) -> None:
    report = ec.extract(table, tmp_path / "c.h5", model=tiny_bert, max_length=30)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        found, wanted = counts_of(cache), exact(tiny_bert, list(cache.texts))
        assert found.dtype == np.int32 and np.array_equal(found, wanted)
        assert cache.layout.positions == 512
        assert np.array_equal(cache.truncated == 1, wanted[:, 0] > 30)
    assert report.reading["lost"] == np.maximum(wanted[:, 0] - 30, 0).sum() > 0
    assert report.truncated == (wanted[:, 0] > 30).sum() and "of all tokens are not read" in report.notes[0]
    assert verify(tmp_path / "c.h5").ok


def test_counts_come_along_with_vectors(table: Path, tmp_path: Path, tiny_bert: Path) -> None:
    path = tmp_path / "c.h5"
    ec.extract(table, path, model=tiny_bert, max_length=30)
    more = write_csv(tmp_path / "more.csv", [("you slow thin mess", "negative")])
    report = ec.extract([more, table], path, model=tiny_bert, max_length=30)
    assert report.encoded == 1
    with ec.open_cache(path) as cache:
        assert np.array_equal(counts_of(cache), exact(tiny_bert, list(cache.texts)))


def test_a_cache_without_counts_opens_and_goes_on(
    table: Path, tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, settings = tmp_path / "c.h5", {"model": tiny_bert, "max_length": 30}
    old_extract(monkeypatch, table, path, **settings)
    before, inode = path.read_bytes(), path.stat().st_ino
    report = ec.extract(table, path, **settings)
    assert report.encoded == 0 and path.stat().st_ino == inode and path.read_bytes() == before
    assert report.truncated > 0 and "was not counted" in report.notes[0]
    more = write_csv(tmp_path / "more.csv", [(LONG + " you", "negative")])
    report = ec.extract([table, more], path, **settings)
    with ec.open_cache(path) as cache:
        counts = counts_of(cache)
        assert (counts[:-1] == -1).all() and counts[-1, 0] == exact(tiny_bert, [LONG + " you"])[0, 0]
        assert reading_of(cache).counted == 1
    assert report.encoded == 1


def test_the_seal_is_that_of_a_file_without_counts(table: Path, tmp_path: Path, tiny_bert: Path) -> None:
    """So that an older embedcache, which does not look at them, opens the file."""
    ec.extract(table, tmp_path / "c.h5", model=tiny_bert)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert cache.layout.counted
        assert cache.layout.uncounted().seal(cache.created) == cache.layout.seal(cache.created)


def test_a_spoilt_count_is_found_and_made_again(table: Path, tmp_path: Path, tiny_bert: Path) -> None:
    path = tmp_path / "c.h5"
    ec.extract(table, path, model=tiny_bert, max_length=30)
    whole = path.read_bytes()
    with ec.open_cache(path) as cache:
        place = cache.offset("rows/tokens") + 7 * 8
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    assert [span.dataset for span in verify(path).damaged] == ["rows/tokens"]
    report = ec.extract(table, path, model=tiny_bert, max_length=30)
    assert report.repaired == 1 and path.read_bytes() == whole


def test_merged_shards_have_the_counts_of_the_whole(table: Path, tmp_path: Path, tiny_bert: Path) -> None:
    parts = []
    for i in (1, 2, 3):
        parts.append(tmp_path / f"part{i}.h5")
        ec.extract(table, parts[-1], model=tiny_bert, max_length=30, shard=(i, 3))
    from embedcache.extraction.merge import merge

    merge(parts, tmp_path / "m.h5")
    ec.extract(table, tmp_path / "c.h5", model=tiny_bert, max_length=30)
    with ec.open_cache(tmp_path / "m.h5") as merged, ec.open_cache(tmp_path / "c.h5") as whole:
        assert np.array_equal(counts_of(merged), counts_of(whole)) and merged.layout.positions == 512
