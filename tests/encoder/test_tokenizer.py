"""Reading only the start of a long text changes nothing, and is done only where that is certain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedcache.encoder import tokenizer
from embedcache.encoder.tokenizer import TextTokenizer, splits_at_spaces, start_of
from embedcache.errors import EmbedcacheError
from tests.conftest import WORDS, make_reviews, write_tokenizer

# Spaces of many kinds, marks that combine, letters whose lower case depends on their neighbours, digits, signs,
# controls, scripts without spaces, and what the tokenizers give a meaning of their own.
PIECES = [
    *" \t\n\r\u00a0\u3000\u0085\u200b\x00\x1f\ufffd", "  ", " \u0301", "e\u0301", "É", "ΣΑΣ ", "İ", "ﬁ", "½",
    "'s", "n't", "12", "3.5", "-", "…", "日本", "ま", "👩‍👩‍👧", "مراجعة", "film", "Great", "the", "a", "x" * 120,
    "<mask>", "[SEP]", "[PAD]",
]  # fmt: skip


def wordpiece(tmp_path: Path) -> Any:
    write_tokenizer(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_special_tokens(["[SEP]", "[PAD]", AddedToken("<mask>", lstrip=True, rstrip=True)])
    return backend


def byte_level() -> Any:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([text for text, _ in make_reviews(200)], trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return [wordpiece(tmp_path_factory.mktemp("wordpiece")), byte_level()]


def make(backend: Any, max_length: int, side: str = "right") -> TextTokenizer:
    return TextTokenizer(backend, max_length, side)


@settings(deadline=None, max_examples=400)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(3, 30), st.sampled_from([1, 2, 8]))
def test_a_start_gives_the_tokens_of_the_whole(backends: list[Any], text: str, max_length: int, size: int) -> None:
    for backend in backends:
        tokenize = make(backend, max_length)
        assert tokenize._starts
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer, "CHARACTERS_PER_TOKEN", size)
            found = tokenize([text])
        whole = backend.encode(text).ids
        assert found.truncated.tolist() == [len(whole) > max_length]
        assert found.ids == [whole if len(whole) <= max_length else [*whole[: max_length - 1], whole[-1]]]


def test_only_the_start_is_read(backends: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenize, read = make(backends[0], 10), []
    encode = tokenize._encode
    monkeypatch.setattr(tokenize, "_encode", lambda texts: read.extend(texts) or encode(texts))
    text = "great film " * 1000
    assert tokenize([text, "x" * 3000 + " ", "short"]).truncated.tolist() == [True, False, False]
    assert [len(part) for part in read] == [76, 3001, 5]
    del read[:]
    tokenize(["ж" * 60 + " " + "the " * 90])  # one unknown word fills the start: then the whole is read after all
    assert [len(part) for part in read] == [76, 421]


def test_the_length_of_a_text_that_is_not_read_whole_is_estimated(backends: list[Any]) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, int(n))) for n in rng.integers(1, 900, 200)]
    for backend in backends:
        found = make(backend, 20)(texts)
        exact = np.array([len(backend.encode(text).ids) for text in texts])
        read_whole = np.array([len(text) <= 20 * tokenizer.CHARACTERS_PER_TOKEN for text in texts])
        assert np.array_equal(found.whole[read_whole], exact[read_whole]) and not read_whole.all()
        assert abs(found.whole - exact).max() < 0.3 * exact.max()
        assert found.whole.sum() == pytest.approx(exact.sum(), rel=0.03)
        assert (found.whole[found.truncated] > 20).all()


def test_unknown_tokens_are_counted_among_those_that_are_read(backends: list[Any]) -> None:
    backend = backends[0]
    tokenize = TextTokenizer(backend, 6, unknown=backend.token_to_id("[UNK]"))
    found = tokenize(["great film", "映画 great", "映 画 映 画 映 画 映 画", ""])
    assert found.unknown.tolist() == [0, 2, 4, 0]
    assert found.counts.tolist() == [[4, 0], [5, 2], [10, 4], [2, 0]]
    assert make(backends[1], 6)(["映画"]).unknown.tolist() == [0]  # bytes know everything


def test_where_a_text_is_cut() -> None:
    assert start_of("ab cd", 5) is None
    assert start_of("ab cd", 4) == 2
    assert start_of("ab cd", 2) is None
    assert start_of("ab  cd ef", 5) == 2
    assert start_of("ab\t cd ef", 5) is None
    assert start_of("     ab", 5) is None
    assert start_of("ab\u3000 cd", 4) is None


def test_other_tokenizers_read_the_whole(tmp_path: Path, backends: list[Any]) -> None:
    assert all(map(splits_at_spaces, backends))
    assert not make(backends[0], 9, side="left")._starts
    for token in (AddedToken("great film"), AddedToken("日a", normalized=True)):
        spaced = wordpiece(tmp_path)
        spaced.add_tokens([token])
        assert not splits_at_spaces(spaced)
    raw = json.loads(backends[1].to_str())
    for change in (
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}},
        {"pre_tokenizer": {**raw["pre_tokenizer"], "use_regex": False}},
        {"normalizer": {"type": "NFKC"}},
        {"model": {**raw["model"], "dropout": 0.5}},
    ):
        assert not splits_at_spaces(Tokenizer.from_str(json.dumps({**raw, **change})))
    other = wordpiece(tmp_path)
    other.normalizer = normalizers.Sequence([normalizers.Replace("a b", "c")])
    assert not splits_at_spaces(other)


def test_what_is_no_string(backends: list[Any]) -> None:
    for bad in (None, 5, "\ud800"):
        with pytest.raises(EmbedcacheError, match="a text cannot be tokenized"):
            make(backends[0], 9)(["fine", bad])  # type: ignore[list-item]
