"""Texts to bytes and offsets and back, hashes, duplicates, label codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.cache import labels, strings
from embedcache.cache.labels import LabelCoder, label_counts, label_of, unlabelled, valid_codes
from embedcache.cache.layout import quote, unquote
from embedcache.cache.strings import Spool, Strings, blank_rows, first_rows, hash_texts, slices
from embedcache.errors import EmbedcacheError
from embedcache.tables.rows import utf8


@settings(deadline=None)
@given(st.lists(st.lists(st.text(), max_size=8), max_size=5))
def test_texts_round_trip(tmp_path_factory, batches):
    spool = Spool(tmp_path_factory.getbasetemp())
    for batch in batches:
        spool.add(utf8(pa.array(batch, pa.large_string())))
    texts = [text for batch in batches for text in batch]
    strings = Strings(*spool.finish())
    assert list(strings) == texts and strings[:] == texts and len(strings) == len(texts)
    assert [strings[i] for i in range(-len(texts), 0)] == texts
    with pytest.raises(IndexError):
        strings[len(texts)]


def test_bytes_that_are_no_text():
    strings = Strings(np.array([97, 255], np.uint8), np.array([0, 1, 2]), "column 'x'")
    assert strings[0] == "a"
    with pytest.raises(EmbedcacheError, match="column 'x' of row 1"):
        _ = strings[1]


@settings(deadline=None)
@given(
    st.lists(st.text(st.sampled_from("a é\u00a0\u0085\u1680\u2003\u3000\u3042\t\x1c"), max_size=3), min_size=1),
    st.data(),
)
def test_hashes_and_blanks_of_a_part_of_an_arrow_array(texts, data):
    start = data.draw(st.integers(0, len(texts) - 1))
    texts, part = texts[start:], pa.array(texts, pa.large_string())[start:]
    raw = [text.encode() for text in texts]
    assert slices(utf8(part)) == raw
    assert (hash_texts(slices(utf8(part))) == hash_texts(raw)).all()
    assert blank_rows(utf8(part)).tolist() == [not text.strip() for text in texts]


@settings(deadline=None)
@given(st.lists(st.text(max_size=2), max_size=50))
def test_first_rows_finds_duplicates(texts):
    first = first_rows(hash_texts([text.encode() for text in texts]))
    assert first.tolist() == [texts.index(text) for text in texts]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=30))
def test_first_rows_when_half_the_hash_agrees(pairs):
    hashes = np.array(pairs, np.uint64).reshape(-1, 2).view(np.uint8).reshape(-1, 16)
    expected = [pairs.index(pair) for pair in pairs]
    assert first_rows(hashes).tolist() == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strings, "PART_ROWS", 4)
        assert first_rows(hashes).tolist() == expected
        assert first_rows(hashes[:5], hashes[5:5], hashes[5:]).tolist() == expected


@settings(deadline=None)
@given(st.text())
def test_names_as_links(name):
    link = quote(name)
    assert unquote(link) == name and link not in ("", ".") and "/" not in link and "\0" not in link


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.text(max_size=3)), max_size=4))
def test_label_codes_round_trip(batches):
    coder = LabelCoder()
    for batch in batches:
        coder.add(batch)
    codes, classes = coder.finish(Path())
    assert [None if code < 0 else classes[code] for code in codes] == [value for batch in batches for value in batch]
    assert codes.dtype == np.int32 and len(set(classes)) == len(classes) == coder.classes


@settings(deadline=None)
@given(st.lists(st.lists(st.none() | st.lists(st.text(max_size=2), unique=True), max_size=6), max_size=4))
def test_lists_of_labels_round_trip(tmp_path_factory, batches):
    coder = LabelCoder()
    for batch in batches:
        coder.add([None if value is None else tuple(value) for value in batch])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "CHUNK_BYTES", 5)
        codes, classes = coder.finish(tmp_path_factory.getbasetemp())
        values = [value for batch in batches for value in batch]
        assert coder.multilabel == any(value is not None for value in values)
        if classes:  # without any, a row that is not labelled looks like an empty list
            expected = [value and sorted(value, key=classes.index) for value in values]
            assert [label_of(code, classes) for code in codes] == expected
            assert unlabelled(codes).tolist() == [value is None for value in values]
            assert codes.dtype == np.int8
        assert valid_codes(codes, len(classes))
        counts = [sum(name in (value or ()) for value in values) for name in classes]
        assert label_counts(codes, len(classes)).tolist() == counts


def test_integers_sort_as_numbers():
    for values, classes in (
        (["10", "9", "-1", None, "9"], ["-1", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["2", "02"], ["02", "2"]),
    ):
        coder = LabelCoder()
        coder.add(values)
        assert coder.finish(Path())[1] == classes
