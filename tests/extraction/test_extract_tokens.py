"""extract --tokens K: the states are those of plain transformers, made in the same pass, and kept like the vectors."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from embedcache.cache import open_cache, verify
from embedcache.cache.lock import writer_lock
from embedcache.cache.state_files import StateFiles, index_path, values_path
from embedcache.cache.state_writer import StateFill
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from embedcache.extraction.merge import merge
from tests.conftest import document, fails, invoke, make_reviews, write_csv
from tests.extraction.token_files import files_of

ROWS = 1100  # two blocks
SOME = 300
KERNELS = ["native", pytest.param("packed", marks=pytest.mark.slow)]


@pytest.fixture
def run(tiny_bert, tmp_path):
    """extract(rows) into cache.h5 of this test's folder."""

    def run(rows, name="cache.h5", **options):
        reviews = make_reviews(rows) if isinstance(rows, int) else rows
        table = write_csv(tmp_path / "table.csv", reviews)
        settings = {"model": tiny_bert, "device": "cpu", "dtype": "float32", "pooling": "cls"}
        return extract(table, tmp_path / name, **{**settings, **options})

    return run


@pytest.fixture
def cache_path(tmp_path):
    return tmp_path / "cache.h5"


@torch.inference_mode()
def from_transformers(folder, texts: list[str], layer: int) -> list[np.ndarray]:
    encoder = Encoder.load(folder, device="cpu", dtype="float32", kernel="plain")
    rows = encoder.tokenize(texts).ids
    return [
        encoder.model(torch.tensor([row]), output_hidden_states=True).hidden_states[layer][0].numpy() for row in rows
    ]


def test_states_and_vectors_in_one_pass(run, cache_path, tiny_bert):
    reviews = [*make_reviews(60), *make_reviews(10)]  # ten duplicates
    lines = []
    report = run(reviews, tokens=1, tell=lines.append)
    assert (report.encoded, report.duplicates) == (60, 10)
    cache = open_cache(cache_path)
    states = cache.token_states()
    assert (states.layers, states.layer, states.dim, len(states)) == (1, 1, 32, 70)
    wanted = from_transformers(tiny_bert, [text for text, _ in reviews], 1)
    values, offsets = states.take(np.arange(70)[::-1])
    for row, theirs in enumerate(wanted):
        mine = values[offsets[69 - row] : offsets[70 - row]].astype(np.float32)
        assert mine.shape == theirs.shape
        assert (
            np.abs(mine - theirs).max() <= 2**-11 * np.abs(theirs).max() + 1e-4
        )  # half a float16 rounding, and theirs
    assert states.tokens == sum(len(one) for one in wanted[:60]) == int(cache.array("rows/tokens")[:60, 0].sum())
    made = report.token_states
    assert (made["layers"], made["texts"], made["tokens"], made["encoded"]) == (1, 60, states.tokens, 60)
    assert made["bytes"] == states.bytes == states.tokens * 64
    (line,) = lines
    assert line.startswith("token states of 60 texts to make: ") and str(values_path(cache_path)) in line
    run(reviews, name="without.h5")
    assert np.array_equal(open_cache(cache_path.with_name("without.h5")).embeddings(), cache.embeddings())


def test_a_cache_gets_states_later_and_no_vector_again(run, cache_path, monkeypatch):
    run(SOME)
    before, asked = cache_path.read_bytes(), []
    encode = Encoder.encode
    monkeypatch.setattr(
        Encoder, "encode", lambda self, ids, outputs: asked.extend(outputs) or encode(self, ids, outputs)
    )
    report = run(SOME, tokens=2)
    assert set(asked) == {("tokens", 0)} and cache_path.read_bytes() == before
    assert (report.encoded, report.reused, report.token_states["encoded"]) == (SOME, 0, SOME)
    later = files_of(cache_path)
    run(SOME, name="together.h5", tokens=2)
    assert files_of(cache_path.with_name("together.h5")) == later


def test_more_texts_other_labels_and_another_order(run, cache_path, monkeypatch):
    reviews = make_reviews(SOME + 50)
    run(reviews[:SOME], tokens=1)
    first = values_path(cache_path).read_bytes()
    seen = []
    tokenize = Encoder.tokenize
    monkeypatch.setattr(Encoder, "tokenize", lambda self, texts: seen.append(len(texts)) or tokenize(self, texts))
    report = run(reviews, tokens=1)
    assert (report.encoded, report.token_states["encoded"], report.token_states["reused"]) == (50, 50, SOME)
    assert seen == [50, 50]  # counted, then encoded
    whole = values_path(cache_path).read_bytes()
    assert whole[4096 : len(first)] == first[4096:]  # nothing was moved
    before, some = files_of(cache_path), open_cache(cache_path).token_states().take([3, SOME + 20])[0]
    monkeypatch.undo()
    monkeypatch.setattr("embedcache.extraction.encoders.EncodingPass.encoders", None)  # nothing is encoded
    report = run([(text, "other") for text, _ in reviews[::-1]])  # the states stay without being named
    assert report.encoded == 0 and report.token_states["reused"] == SOME + 50 and files_of(cache_path) == before
    last = SOME + 49
    assert np.array_equal(open_cache(cache_path).token_states().take([last - 3, last - SOME - 20])[0], some)


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_interrupted_run_ends_as_an_undisturbed_one(run, cache_path, monkeypatch, kernel):
    if kernel == "packed":
        monkeypatch.setattr("embedcache.encoder.encoder.may_be_native", lambda *_: False)
        monkeypatch.setattr("embedcache.encoder.runner.may_be_native", lambda *_: False)
    run(ROWS, name="undisturbed.h5", tokens=1)
    put = StateFill.put

    def stop(self, row, values):
        if row >= 1050:  # in the second window, of which others have been written
            raise Stop
        return put(self, row, values)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(StateFill, "put", stop)
        run(ROWS, tokens=1)
    with pytest.raises(EmbedcacheError, match=r"not complete: 76 of 1,100 rows have no token states"):
        open_cache(cache_path).token_states()
    report = run(ROWS)
    assert (report.encoded, report.token_states["encoded"], report.token_states["repaired"]) == (76, 76, 0)
    undisturbed = cache_path.with_name("undisturbed.h5")
    assert files_of(cache_path) == files_of(undisturbed)
    assert np.array_equal(open_cache(cache_path).embeddings(), open_cache(undisturbed).embeddings())


def test_nothing_is_left_of_a_run_that_saved_nothing(run, tmp_path, monkeypatch):
    def stop(*_):
        raise Stop

    monkeypatch.setattr(StateFill, "put", stop)
    with pytest.raises(Stop):
        run(100, tokens=1)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


DAMAGE = ("states", "hash", "structure", "no values")
MORE_DAMAGE = [pytest.param(what, marks=pytest.mark.slow) for what in ("span", "checksum", "attribute", "end")]


@pytest.mark.parametrize("what", [*DAMAGE, *MORE_DAMAGE])
def test_damage_is_found_and_made_good(run, cache_path, what):
    run(100, tokens=1)
    before, files = files_of(cache_path), StateFiles(cache_path)
    index, values = bytearray(index_path(cache_path).read_bytes()), bytearray(values_path(cache_path).read_bytes())
    places = {"hash": "texts/hash", "span": "texts/spans", "checksum": "texts/checksums"}
    if what in places:
        index[files.offset(places[what]) + 16 * 7 + 1] ^= 2
    elif what == "states":
        values[4096 + int(files.spans[7, 0]) * 64 + 9] ^= 1
    elif what == "attribute":
        index[index.index(b'"max_length":250') + 13] ^= 1
    elif what == "structure":
        index[20] ^= 1
    elif what == "end":
        del values[-1000:]
    index_path(cache_path).write_bytes(index)
    values_path(cache_path).unlink() if what == "no values" else values_path(cache_path).write_bytes(values)
    report = verify(cache_path)
    spans = [(span.start, span.stop) for span in report.damaged]
    assert not report.ok and {span.dataset for span in report.damaged} == {"token states"}
    assert spans == ([(7, 8)] if what in ("states", "checksum", "hash") else spans)
    report = run(100, tokens=1)
    assert verify(cache_path).ok and report.encoded == report.token_states["encoded"]
    if what in ("states", "checksum", "hash", "span"):
        assert 1 <= report.encoded <= 2
    if what in ("states", "checksum", "attribute", "end", "no values"):
        assert files_of(cache_path) == before
    assert verify(cache_path).ok
    values, _ = open_cache(cache_path).token_states().take([6, 7, 8])
    run(100, name="fresh.h5", tokens=1)
    assert np.array_equal(open_cache(cache_path.with_name("fresh.h5")).token_states().take([6, 7, 8])[0], values)


def test_what_cannot_be(run, cache_path, tmp_path, monkeypatch):
    for last in (3, 0):
        with pytest.raises(EmbedcacheError, match=f"--tokens {last}: .* has 2 layers"):
            run(5, tokens=last)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    run(5, tokens=2)
    before = files_of(cache_path)
    with pytest.raises(EmbedcacheError, match="for the last 2 layers, not for 1: they serve the last 1 too"):
        run(5, tokens=1)
    with pytest.raises(EmbedcacheError, match="another encoder or other settings"):
        run(5, tokens=2, max_length=20)
    assert files_of(cache_path) == before
    report = run(5, tokens=1, overwrite=True)
    assert report.token_states["layers"] == 1 and report.encoded == 5
    assert open_cache(cache_path).token_states().layer == 1
    report = run(5, overwrite=True, max_length=20)  # of another encoder, and nobody asked for new ones
    assert report.token_states is None and not index_path(cache_path).exists() and not values_path(cache_path).exists()
    values_path(cache_path).write_bytes(b"somebody's own")
    with pytest.raises(EmbedcacheError, match="in the place of the token states"):
        run(5, tokens=1)
    assert values_path(cache_path).read_bytes() == b"somebody's own"


def test_a_disk_that_is_too_small_is_noticed_first(run, tmp_path, monkeypatch):
    monkeypatch.setattr("embedcache.cache.state_writer.shutil.disk_usage", lambda _: SimpleNamespace(free=190_000))
    with pytest.raises(EmbedcacheError, match=r"not enough space for the token states .* 175,040 of them for"):
        run(100, tokens=1)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_states_beyond_float16_name_the_row(run, monkeypatch):
    keep = Encoder.encode

    def huge(self, ids, outputs):
        found = keep(self, ids, outputs)
        if outputs and outputs[-1][0] == "tokens" and len(ids) > 1:
            found[-1][-1] = 1e6
        return found

    monkeypatch.setattr(Encoder, "encode", huge)
    with pytest.raises(
        EmbedcacheError, match=r"token states of row \d+ \('.*'\), .* up to 1e\+06, too large for float16"
    ):
        run(100, tokens=1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_merged_shards_are_one_run_to_the_bit(run, cache_path, tmp_path, monkeypatch, kernel):
    if kernel == "packed":
        monkeypatch.setattr("embedcache.encoder.encoder.may_be_native", lambda *_: False)
        monkeypatch.setattr("embedcache.encoder.runner.may_be_native", lambda *_: False)
    stripe = 1024 if kernel == "packed" else 200  # whole windows, where it matters what is encoded together
    monkeypatch.setattr("embedcache.extraction.shards.STRIPE", stripe)
    rows = 2 * stripe + stripe // 2
    reviews = make_reviews(rows)
    reviews[stripe + 50 : stripe + 70], reviews[rows - 30 : rows - 10] = reviews[:20], reviews[stripe : stripe + 20]
    run(reviews, tokens=1)
    shards = [tmp_path / f"part-{k}.h5" for k in (1, 2)]
    for k, shard in enumerate(shards, 1):
        run(reviews, name=shard.name, tokens=1, shard=(k, 2))
    whole = tmp_path / "whole.h5"
    report = merge(shards[::-1], whole)
    assert report.complete and report.token_states["texts"] == rows - 40 and report.token_states["missing_rows"] == 0
    assert files_of(whole) == files_of(cache_path)
    assert np.array_equal(open_cache(whole).embeddings(), open_cache(cache_path).embeddings())
    before = values_path(whole).stat().st_mtime_ns
    assert merge(shards, whole).complete and values_path(whole).stat().st_mtime_ns == before  # there is nothing to copy


def test_shards_with_and_without_states(run, tmp_path):
    for k, options in enumerate(({"tokens": 1}, {}, {"tokens": 2}), 1):
        run(90, name=f"part-{k}.h5", shard=(k, 3), **options)
    shards, whole = [tmp_path / f"part-{k}.h5" for k in (1, 2, 3)], tmp_path / "whole.h5"
    with pytest.raises(EmbedcacheError, match=r"part-2\.h5 has no token states, but other shards have"):
        merge(shards, whole)
    run(90, name="part-2.h5", shard=(2, 3), tokens=1)
    with pytest.raises(EmbedcacheError, match="states of different layers, for the last 1 and the last 2"):
        merge(shards, whole)
    assert not whole.exists()
    run(90, name="part-3.h5", shard=(3, 3), tokens=1, overwrite=True)
    with values_path(shards[1]).open("r+b") as file:
        file.seek(4096 + 1500)
        file.write(b"?!")
    with pytest.raises(EmbedcacheError, match="damaged, or does not belong"):  # it is the first text
        merge(shards, whole)
    run(90, name="part-2.h5", shard=(2, 3))
    with values_path(shards[1]).open("r+b") as file:
        file.seek(4096 + 64 * int(StateFiles(shards[1]).spans[5, 0]))
        file.write(b"?!")
    values_path(whole).write_bytes(b"somebody's own")
    with pytest.raises(EmbedcacheError, match="in the place of the token states"):
        merge(shards, whole)
    values_path(whole).unlink()
    report = merge(shards, whole)
    assert not report.complete and report.missing_rows == 1 and report.unfinished == [str(shards[1])]
    run(90, name="part-2.h5", shard=(2, 3))
    assert merge(shards, whole).complete
    run(90, tokens=1)
    assert files_of(whole) == files_of(tmp_path / "cache.h5")


def test_space_that_is_gone_when_it_is_reserved(run, cache_path, tmp_path, monkeypatch):
    run(20, tokens=1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".csv"}
    allocate = os.posix_fallocate

    def full(handle, offset, size):
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".npy"):  # noqa: PTH115
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(handle, offset, size)

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(EmbedcacheError, match="not enough space for the token states"):
        run(30)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".csv"} == before
    for path in before:
        (tmp_path / path).unlink()
    with pytest.raises(EmbedcacheError, match="not enough space for the token states"):
        run(30, tokens=1)
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_another_writer_of_the_same_files(run, cache_path, tmp_path):
    run(20, tokens=1)
    with (
        writer_lock(index_path(cache_path)),
        pytest.raises(EmbedcacheError, match=r"another extract is writing .*tokens"),
    ):
        run(30, name="cache.hdf5", tokens=1)  # its states would be in the same place
    assert not (tmp_path / "cache.hdf5").exists()
    run(20, name="cache.hdf5", tokens=1)  # one after the other they share them
    assert open_cache(cache_path).token_states().tokens == open_cache(tmp_path / "cache.hdf5").token_states().tokens


def test_the_index_goes_away_while_it_is_written(run, cache_path, monkeypatch):
    put = StateFill.put

    def remove(self, row, values):
        index_path(cache_path).unlink(missing_ok=True)
        return put(self, row, values)

    monkeypatch.setattr(StateFill, "put", remove)
    with pytest.raises(EmbedcacheError, match=r"cache\.tokens\.hdf5 was removed or replaced while it was written"):
        run(20, tokens=1)


def test_what_the_commands_say(run, cache_path):
    run(50, tokens=1)
    about = document("info", cache_path)["token_states"]
    states = open_cache(cache_path).token_states()
    assert (about["layers"], about["layer"], about["dim"], about["texts"]) == (1, 1, 32, 50)
    assert (about["tokens"], about["bytes"], about["missing_rows"]) == (states.tokens, states.bytes, 0)
    assert about["file_bytes"] > states.bytes and about["problem"] == ""
    shown = invoke("info", cache_path).stdout
    assert f"tokens    what the last layer read: {states.tokens:,} x 32, " in shown and "complete" in shown
    assert "and the token states of 50 texts checked, no damage" in invoke("verify", cache_path).stdout
    assert document("verify", cache_path)["texts"] == 50
    with values_path(cache_path).open("r+b") as file:
        file.seek(4096 + 64 * int(states.begins[30]))
        file.write(b"?!")
    assert "damaged: token states rows 30 to 30; run the same extract again" in fails("verify", cache_path)
    values_path(cache_path).unlink()
    assert "is missing, cut short or not what" in invoke("info", cache_path).stdout
    index_path(cache_path).unlink()
    assert document("info", cache_path)["token_states"] is None
