"""Parts of one input: extracted apart and merged, they are the file that one extract makes, to the bit."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from embedcache.cache import open_cache, verify
from embedcache.errors import EmbedcacheError
from embedcache.extraction import shards
from embedcache.extraction.job import extract
from embedcache.extraction.merge import merge
from embedcache.extraction.shards import Shard
from tests.conftest import document, fails, invoke, make_reviews, write_csv
from tests.extraction.test_extract import assert_same, contents

ROWS = 5000


@pytest.fixture(scope="module", autouse=True)
def small_stripes():
    """Of one block, so that tables of a few thousand rows have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedcache.extraction.shards.STRIPE", 1024)
        yield


@pytest.fixture(scope="module")
def made(tiny_bert, tmp_path_factory):
    """table.csv, with texts that several shards share, blank ones and lists; whole.h5, and part-1.h5 to part-3.h5."""
    folder = tmp_path_factory.mktemp("shards")
    reviews = make_reviews(ROWS)
    rows = [
        (text, label, json.dumps(["long"] if len(text) > 100 else []), str(i))
        for i, (text, label) in enumerate(reviews)
    ]
    for i in range(0, ROWS - 1000, 37):
        rows[i + 900] = (rows[i][0], *rows[i + 900][1:])
    rows[3000] = ("\u3000 ", "", "", "blank")
    rows[4100] = ("", "", "", "empty")
    table = write_csv(folder / "table.csv", rows, ("text", "label", "tags", "key"))
    for name, shard in [("whole", None), *((f"part-{i}", (i, 3)) for i in (1, 2, 3))]:
        make(table, folder / f"{name}.h5", tiny_bert, shard=shard)
    return folder


def make(table, cache, model, **options):
    settings = {"model": model, "device": "cpu", "pooling": ("cls", "mean"), "labels": ("label", "tags"), "id": "key"}
    return extract(table, cache, **{**settings, **options})


def parts(folder):
    return [folder / f"part-{i}.h5" for i in (1, 2, 3)]


def assert_same_cache(a, b):
    assert_same(contents(a), contents(b))
    with open_cache(a) as one, open_cache(b) as other:
        assert one.layout == other.layout
        for path in one.layout.datasets:
            np.testing.assert_array_equal(one.array(path), other.array(path), err_msg=path)
        for path in one.layout.checked:
            np.testing.assert_array_equal(one.checksums(path), other.checksums(path), err_msg=path)


def test_rows_are_dealt_out_in_stripes(monkeypatch):
    monkeypatch.setattr(shards, "STRIPE", 8192)
    all_rows = [Shard(i, 3).rows(50_000) for i in (1, 2, 3)]
    np.testing.assert_array_equal(np.sort(np.concatenate(all_rows)), np.arange(50_000))
    assert all_rows[1][:3].tolist() == [8192, 8193, 8194] and all_rows[0][8192] == 3 * 8192
    assert Shard.parse("2/3") == Shard.parse((2, 3)) == Shard(2, 3)


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "3", "a/b", "1/0", "-1/3", "1/3/5", "", (1,), (0, 2)])
def test_what_is_no_shard_number(wrong):
    with pytest.raises(EmbedcacheError, match="part I of N parts"):
        Shard.parse(wrong)


def test_merged_shards_are_the_whole(made, tmp_path):
    report = merge(parts(made)[::-1], tmp_path / "merged.h5")
    assert (report.rows, report.shards, report.missing_rows, report.complete) == (ROWS, 3, 0, True)
    assert_same_cache(tmp_path / "merged.h5", made / "whole.h5")
    assert verify(tmp_path / "merged.h5").ok
    assert [path.name for path in tmp_path.iterdir()] == ["merged.h5"]


def test_extract_goes_on_with_what_was_merged(made, tiny_bert, tmp_path):
    merge(parts(made), tmp_path / "merged.h5")
    before = (tmp_path / "merged.h5").read_bytes()
    assert make(made / "table.csv", tmp_path / "merged.h5", tiny_bert).encoded == 0
    assert (tmp_path / "merged.h5").read_bytes() == before


def test_a_shard_is_a_cache_of_its_rows(made, tiny_bert):
    for i, path in enumerate(parts(made), 1):
        with open_cache(path) as part, open_cache(made / "whole.h5") as whole:
            rows = Shard(i, 3).rows(ROWS)
            assert part.complete and list(part.texts) == [whole.texts[int(row)] for row in rows]
            np.testing.assert_allclose(part.embeddings(), whole.embeddings()[rows], atol=2e-3)
            assert list(part.ids) == [whole.ids[int(row)] for row in rows]
            assert part.info()["shard"] == f"{i}/3" and whole.info()["shard"] is None
        report = make(made / "table.csv", path, tiny_bert, shard=f"{i}/3")
        assert (report.encoded, report.shard, report.blank) == (0, f"{i}/3", 1 if i in (2, 3) else 0)
        assert report.rows == len(rows) and report.reused + report.duplicates == report.rows


def test_unfinished_shards(made, tiny_bert, tmp_path):
    def stop(done, total, count):
        if count > 1100:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # many small batches: most are still to come when it is raised
        make(made / "table.csv", tmp_path / "part-2.h5", tiny_bert, shard=(2, 3), progress=stop, batch_tokens=64)
    files = [made / "part-1.h5", tmp_path / "part-2.h5", made / "part-3.h5"]
    line = fails("merge", *files, "-o", tmp_path / "merged.h5")
    assert (
        "part-2.h5 is not finished or damaged" in line
        and "of 5,000 rows have no vector" in line
        and "merge again" in line
    )
    with open_cache(tmp_path / "merged.h5") as cache:
        assert 904 <= cache.missing_rows() < ROWS
    assert verify(tmp_path / "merged.h5").ok
    result = invoke("merge", *files, "-o", tmp_path / "merged.h5", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1 and not found["complete"] and found["unfinished"] == [str(files[1])]
    inode = (tmp_path / "merged.h5").stat().st_ino
    make(made / "table.csv", tmp_path / "part-2.h5", tiny_bert, shard=(2, 3))
    assert document("merge", *files, files[0], "-o", tmp_path / "merged.h5")["complete"]  # one of them twice
    assert_same_cache(tmp_path / "merged.h5", made / "whole.h5")
    assert (tmp_path / "merged.h5").stat().st_ino == inode, "the file was gone on with"


def test_what_an_unfinished_merge_lacks_can_be_extracted(made, tiny_bert, tmp_path):
    shutil.copy(made / "part-3.h5", tmp_path / "part-3.h5")
    with open_cache(tmp_path / "part-3.h5") as cache:
        place = cache.offset("embeddings/cls") + 100
    data = bytearray((tmp_path / "part-3.h5").read_bytes())
    data[place] ^= 1
    (tmp_path / "part-3.h5").write_bytes(data)
    report = merge([*parts(made)[:2], tmp_path / "part-3.h5"], tmp_path / "merged.h5")
    assert report.unfinished == [str(tmp_path / "part-3.h5")] and 1024 <= report.missing_rows < 4000
    # The block after it shares a text with it, so it was not copied either.
    assert 900 < make(made / "table.csv", tmp_path / "merged.h5", tiny_bert).encoded <= 2048
    assert verify(tmp_path / "merged.h5").ok and open_cache(tmp_path / "merged.h5").complete


def test_shards_that_are_missing(made, tmp_path):
    line = fails("merge", made / "part-2.h5", "-o", tmp_path / "merged.h5")
    assert "2 of 3 shards are missing: 1/3, 3/3" in line and "--shard 1/3" in line
    assert not list(tmp_path.iterdir())


def test_shards_that_do_not_belong_together(made, tiny_bert, tmp_path):
    def refused(*files):
        return fails("merge", *files, "-o", tmp_path / "merged.h5")

    first, _, third = parts(made)
    make(made / "table.csv", tmp_path / "a.h5", tiny_bert, shard=(2, 3), max_length=99)
    assert "max_length 250 in the cache, 99 asked" in refused(first, tmp_path / "a.h5", third)
    make(made / "table.csv", tmp_path / "b.h5", tiny_bert, shard=(2, 3), pooling="cls")
    assert "different poolings" in refused(first, tmp_path / "b.h5", third)
    make(made / "table.csv", tmp_path / "c.h5", tiny_bert, shard=(2, 3), keep="label")
    assert "different columns" in refused(first, tmp_path / "c.h5", third)
    make(made / "table.csv", tmp_path / "d.h5", tiny_bert, shard=(2, 4))
    assert "different inputs (shard 1/3" in refused(first, tmp_path / "d.h5", third)
    other = write_csv(tmp_path / "other.csv", [(f"{t} x", "a", "[]", "") for t, _ in make_reviews(ROWS)],
                      ("text", "label", "tags", "key"))  # fmt: skip
    make(other, tmp_path / "e.h5", tiny_bert, shard=(2, 3))
    assert "different inputs" in refused(first, tmp_path / "e.h5", third)
    assert "is not a shard" in refused(first, made / "whole.h5", third)
    assert "not an HDF5 file" in refused(first, made / "table.csv", third)
    assert "no such file" in refused(first, tmp_path / "nowhere.h5", third)
    assert not (tmp_path / "merged.h5").exists()


def test_what_is_there_is_not_written_over(made, tmp_path):
    shutil.copy(made / "part-1.h5", tmp_path / "merged.h5")
    before = (tmp_path / "merged.h5").read_bytes()
    assert "holds something else" in fails("merge", *parts(made), "-o", tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == before
    assert document("merge", *parts(made), "-o", tmp_path / "merged.h5", "--overwrite")["complete"]
    assert_same_cache(tmp_path / "merged.h5", made / "whole.h5")
    (tmp_path / "merged.h5").write_text("my diary")
    assert "not an HDF5 file" in fails("merge", *parts(made), "-o", tmp_path / "merged.h5", "--overwrite")
    assert (tmp_path / "merged.h5").read_text() == "my diary"


def test_a_shard_with_damaged_texts_is_refused(made, tmp_path):
    shutil.copy(made / "part-2.h5", tmp_path / "part-2.h5")
    with open_cache(made / "part-2.h5") as cache:
        place = cache.offset("text/bytes") + 50
    data = bytearray((tmp_path / "part-2.h5").read_bytes())
    data[place] ^= 1
    (tmp_path / "part-2.h5").write_bytes(data)
    line = fails("merge", made / "part-1.h5", tmp_path / "part-2.h5", made / "part-3.h5", "-o", tmp_path / "m.h5")
    assert "part-2.h5: text/bytes is damaged" in line


@pytest.mark.parametrize(("rows", "of"), [(10, 3), (7, 7), (5, 4), (1500, 2)])
def test_small_inputs(tiny_bert, tmp_path, rows, of):
    table = write_csv(tmp_path / "table.csv", make_reviews(rows))
    options = {"model": tiny_bert, "device": "cpu", "dtype": "float32", "store": "float32"}
    extract(table, tmp_path / "whole.h5", **options)
    files = [tmp_path / f"{i}.h5" for i in range(of)]
    sizes = [extract(table, file, shard=(i, of), **options).rows for i, file in enumerate(files, 1)]
    assert min(sizes) >= 1 and sum(sizes) == rows
    assert merge(files, tmp_path / "merged.h5").complete
    with open_cache(tmp_path / "whole.h5") as whole, open_cache(tmp_path / "merged.h5") as merged:
        assert list(merged.texts) == list(whole.texts)
        # smaller windows make other batches, which with torch's kernels may change the last digits
        np.testing.assert_allclose(merged.embeddings(), whole.embeddings(), atol=1e-5)


def test_more_shards_than_rows(tiny_bert, tmp_path):
    table = write_csv(tmp_path / "table.csv", make_reviews(5))
    with pytest.raises(EmbedcacheError, match="5 rows are too few for 6 shards: use fewer"):
        make(table, tmp_path / "c.h5", tiny_bert, shard=(1, 6), labels="label", id="label")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.parametrize("wrong", ["0/3", "4/3", "3", "a/b", "1/-3", ""])
def test_wrong_usage(wrong):
    assert "part I of N" in fails("extract", "t.csv", "-o", "c.h5", "--shard", wrong, code=2)


def test_merge_wants_files_and_a_name():
    fails("merge", "-o", "c.h5", code=2)
    fails("merge", "a.h5", code=2)
