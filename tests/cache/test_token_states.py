"""The files of token states, written and read without an encoder."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.cache.state_files import StateFiles, StatesAbout, index_path, open_states, values_path
from embedcache.cache.state_writer import StateWriter, make_states, place_texts
from embedcache.cache.strings import hash_texts
from embedcache.cache.token_states import TokenStates
from embedcache.errors import EmbedcacheError

ENCODER = {"source": "/models/a", "identity": {"max_length": 9, "weights": "1"}, "store": "float16"}
ABOUT = StatesAbout(ENCODER, layers=2, layer=4, dim=8)
TEXTS = [b"one", b"two", b"three", b"", b"five"]
LENGTHS = np.array([3, 1, 7, 0, 2])


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "reviews.h5"


def states_of(text: int) -> np.ndarray:
    return np.random.default_rng(text).normal(size=(LENGTHS[text], 8)).astype(np.float16)


def spans_of(lengths: np.ndarray, start: int = 0) -> np.ndarray:
    return np.stack([place_texts(lengths, np.arange(len(lengths)), start, ABOUT.token_bytes), lengths], axis=1)


def write(cache: Path, texts: list[int] | None = None) -> None:
    """All five texts, of which these have their states."""
    make_states(cache, ABOUT, hash_texts(TEXTS), spans_of(LENGTHS))
    fill(cache, range(5) if texts is None else texts)


def fill(cache: Path, texts) -> None:
    with StateWriter(cache) as writer:
        writer.commit(np.array(list(texts), np.int64), [writer.put(text, states_of(text)) for text in texts])


def test_rows_in_any_order_with_duplicates(cache):
    write(cache)
    states = TokenStates(open_states(cache, ENCODER), hash_texts([TEXTS[k] for k in (4, 0, 0, 3, 2, 1)]))
    assert (states.layers, states.layer, states.dim, len(states)) == (2, 4, 8, 6)
    assert (states.max_tokens, states.tokens, states.bytes) == (7, 13, 13 * 16)
    assert states.begins[1] == states.begins[2]
    for rows in ([0, 1, 2, 3, 4, 5], [5, 1, 5, -1], [], [3]):
        values, offsets = states.take(rows)
        assert values.dtype == np.float16 and values.shape == (offsets[-1], 8) and len(offsets) == len(rows) + 1
        for i, row in enumerate(rows):
            wanted = states_of((4, 0, 0, 3, 2, 1)[row])
            assert np.array_equal(values[offsets[i] : offsets[i + 1]], wanted)
            assert np.array_equal(states.values[states.begins[row] :][: states.lengths[row]], wanted)
    with pytest.raises(IndexError):
        states.take([6])
    assert np.array_equal(np.load(values_path(cache), mmap_mode="r"), states.values)  # NumPy opens it


def test_nothing_but_the_texts_own_states_counts(cache):
    write(cache, [0, 2])
    files = StateFiles(cache)
    assert files.sealed and files.whole and files.sound().tolist() == [True, False, True, False, False]
    with pytest.raises(EmbedcacheError, match="3 of 5 rows have no token states; run the same extract again"):
        TokenStates(open_states(cache, ENCODER), hash_texts(TEXTS))
    fill(cache, [1, 3, 4])
    assert files.sound().all()  # the map sees what is written
    with values_path(cache).open("r+b") as file:
        file.seek(4096 + 3 * 16 + 5)  # in the second text
        file.write(b"?")
    assert files.sound().tolist() == [True, False, True, True, True]
    assert files.sound(np.array([0, 1])).tolist() == [True, False, False, False, False]


def test_growth_keeps_what_is_there(cache):
    write(cache)
    before, old = values_path(cache).read_bytes(), StateFiles(cache)
    more = np.concatenate([old.spans, spans_of(np.array([5]), old.tokens)])
    assert more[-1].tolist() == [256, 5]  # the next page: 16 bytes a token
    hashes = np.concatenate([old.hashes, hash_texts([b"six"])])
    make_states(cache, ABOUT, hashes, more, np.concatenate([old.checksums, np.zeros((1, 16), np.uint8)]))
    after = values_path(cache).read_bytes()
    assert after[4096 : len(before)] == before[4096:] and len(after) == 4096 + 261 * 16
    assert np.load(values_path(cache), mmap_mode="r").shape == (261, 8)
    assert StateFiles(cache).sound().tolist() == [True] * 5 + [False]
    assert old.sound().all()  # a reader that opened it before goes on reading


@pytest.mark.parametrize("what", ["hash", "span", "attribute", "numbers", "end", "header", "no numbers", "others"])
def test_what_is_damaged_is_noticed(cache, what):
    write(cache)
    files = StateFiles(cache)
    index, numbers = bytearray(index_path(cache).read_bytes()), bytearray(values_path(cache).read_bytes())
    if what == "hash":
        index[files.offset("texts/hash") + 20] ^= 1
    elif what == "span":
        index[files.offset("texts/spans") + 16] ^= 1
    elif what == "attribute":
        at = index.index(b'"weights":"1"')
        index[at + 11] ^= 1
    elif what == "numbers":
        numbers[4096] ^= 1
    elif what == "end":
        del numbers[-1]
    elif what == "header":
        numbers[40] ^= 1
    elif what == "others":
        numbers = bytearray(len(numbers))
    index_path(cache).write_bytes(index)
    values_path(cache).unlink() if what == "no numbers" else values_path(cache).write_bytes(numbers)
    with pytest.raises(EmbedcacheError, match=r"damaged|missing") as caught:
        open_states(cache, ENCODER)
    assert "\n" not in str(caught.value) and "run the same extract again" in str(caught.value)


def test_states_of_another_encoder_or_of_none(cache):
    with pytest.raises(EmbedcacheError, match="no token states; run extract with --tokens K"):
        open_states(cache, ENCODER)
    write(cache)
    other = {**ENCODER, "identity": {"max_length": 10, "weights": "1"}, "model": {"pooling": ["mean"]}}
    with pytest.raises(EmbedcacheError, match=r"another encoder .*max_length 9 in the cache, 10 asked"):
        open_states(cache, other)
    open_states(cache, {**ENCODER, "store": "float32", "model": {"pooling": ["mean"]}, "source": "elsewhere"})
    with pytest.raises(EmbedcacheError, match="is the index of a cache's token states; name the cache beside it"):
        open_cache(index_path(cache))
    index_path(cache).write_bytes(b"no index")
    with pytest.raises(EmbedcacheError, match="not an HDF5 file"):
        open_states(cache, ENCODER)


def test_a_text_of_another_length_is_refused(cache):
    write(cache, [])
    with StateWriter(cache) as writer, pytest.raises(EmbedcacheError, match="7 tokens, and had 3 when"):
        writer.put(0, states_of(2))


def test_texts_of_different_blocks_share_no_page(cache):
    rows = np.array([0, 3, 1023, 1024, 1030, 5000])
    begins = place_texts(np.full(6, 10), rows, 7, 768)  # 16 tokens are three pages
    assert begins.tolist() == [16, 26, 36, 48, 58, 80]
    assert place_texts(np.empty(0, np.int64), np.empty(0, np.int64), 7, 768).tolist() == []


def test_a_spoilt_index_gives_no_other_states(cache):
    write(cache)
    good, rng = index_path(cache).read_bytes(), random.Random(0)
    places, outcomes = [place for place, byte in enumerate(good) if byte], Counter()
    for _ in range(200):
        spoilt = bytearray(good)
        for place in rng.choices(places, k=rng.choice([1, 1, 3])):
            spoilt[place] = rng.choice([spoilt[place] ^ 1 << rng.randrange(8), rng.randrange(256)])
        index_path(cache).write_bytes(spoilt)
        try:
            states = TokenStates(open_states(cache, ENCODER), hash_texts(TEXTS))
            values, offsets = states.take(range(5))
        except EmbedcacheError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        else:
            assert all(np.array_equal(values[offsets[k] : offsets[k + 1]], states_of(k)) for k in range(5))
            outcomes["read"] += 1
    assert outcomes["refused"] > 100 and outcomes["read"] > 0
