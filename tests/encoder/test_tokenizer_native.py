"""The native tokenizer has the tokens of the tokenizers library, or leaves a text to it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from embedcache.encoder import tokenizer, tokenizer_native
from embedcache.encoder.tokenizer import TextTokenizer
from embedcache.encoder.tokenizer_native import HARD_TEXTS, NativeTokenizer, native_tokenizer, understand
from embedcache.errors import EmbedcacheError
from tests.conftest import make_reviews

pytestmark = pytest.mark.skipif(tokenizer_native._library() is None, reason="the native tokenizer is not built")

REVIEWS = [text for text, _ in make_reviews(300)]
LONG = 1 << 20
PIECES = [
    *" \t\n\r\v\f\u00a0\u1680\u2009\u2028\u3000\u0085\u200b\x00\x1f\x7f\ufeff\ufffd", "  ", "   ", " \u0301", "e\u0301",
    "\u0344", "É", "ΣΑΣ ", "İ", "ǅ", "ẞ", "ﬁ", "½", "Ⅷ", "²", "≠", "\u037e", "'s", "'S", "'ll", "'re ", "n't", " '",
    "12", "3.5", "-", "…", "日本", "㐀", "\uf900", "\U0002f800", "ま", "한국어", "각", "मराठी", "ไทย", "עִבְ", "مراجعة",
    "Việt", "👩‍👩‍👧", "❤️", "\u302e", "\U0001d165", "\u0378", "\U000e0001",
    "film", "Great", "GREAT", "the", "a", "x" * 101, "ab" * 60,
    "[MASK]", "<mask>", "</s>", "[", "<", "_", "\\", "$",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=30).map("".join)


def wordpiece(**normalizer: Any) -> Any:
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(**normalizer)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(
        [*REVIEWS, *PIECES * 3], trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return backend


def byte_level(prefix: bool = False, normalizer: Any = None, ignore: bool = False, added: Any = ()) -> Any:
    backend = Tokenizer(models.BPE(ignore_merges=ignore))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    if normalizer:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<s>", "<pad>", "</s>", AddedToken("<mask>", lstrip=True)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([*REVIEWS, *PIECES * 3], trainer)
    backend.add_tokens(list(added))
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return backend


MAKERS = {
    "uncased": wordpiece,
    "cased": lambda: wordpiece(lowercase=False),
    "lower case, accents kept": lambda: wordpiece(strip_accents=False, handle_chinese_chars=False),
    "cased, no accents": lambda: wordpiece(strip_accents=True, lowercase=False),
    "bytes": byte_level,
    "bytes, a space before": lambda: byte_level(prefix=True),
    "bytes, form C": lambda: byte_level(normalizer=normalizers.NFC()),
    "bytes, words first": lambda: byte_level(ignore=True, added=[AddedToken("zzz", normalized=True)]),
}


@cache
def made(name: str) -> tuple[Any, Any]:
    """(the library's tokenizer, the native one), nothing cut."""
    backend = MAKERS[name]()
    native = native_tokenizer(backend, LONG, False, 1, 1)
    return backend, native


def compare(name: str, texts: list[str]) -> int:
    """How many texts were left; the others have the library's tokens."""
    backend, native = made(name)
    rows, lengths = native.encode(texts)
    left = lengths < 0
    for text, row, there, one in zip(texts, rows, left, backend.encode_batch_fast(texts), strict=True):
        assert row == ([] if there else one.ids), repr(text)
    assert np.array_equal(lengths[~left], rows.lengths[~left])
    return int(left.sum())


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_tokens(name: str) -> None:
    texts = [*HARD_TEXTS, *PIECES, *REVIEWS, " ".join(REVIEWS), " ".join(reversed(PIECES))]
    assert compare(name, texts) < 20
    assert compare(name, REVIEWS) == 0


@settings(deadline=None, max_examples=25)
@given(st.lists(TEXTS, max_size=8))
def test_the_same_tokens_of_any_text(texts: list[str]) -> None:
    for name in MAKERS:
        compare(name, texts)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", MAKERS)
def test_every_character_alone_and_between_letters(name: str) -> None:
    characters = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]
    left = compare(name, characters[:0x2FFFF] + ["a" + c + "b" for c in characters])
    assert left < 1_100_000  # most of them have no meaning


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(deadline=None, max_examples=4000)
@given(st.lists(TEXTS | st.binary(max_size=60).map(lambda raw: raw.decode(errors="replace")), max_size=20))
def test_the_same_tokens_of_very_many_texts(texts: list[str]) -> None:
    for name in MAKERS:
        compare(name, texts)


@pytest.mark.parametrize("name", ["uncased", "bytes"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_long_texts_are_cut_as_the_library_cuts(name: str, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "WORTH_CHARACTERS", 0)
    backend = Tokenizer.from_str(made(name)[0].to_str())
    tokenize = TextTokenizer(backend, 7, side)
    assert tokenize.kind == "native"
    texts = [*REVIEWS[:50], "", "great", "[MASK] great film " * 4, "\u0378 great film a film a film a film"]
    found = tokenize(texts)
    backend.enable_truncation(7, direction=side)
    assert found.ids == [one.ids for one in backend.encode_batch(texts)]
    assert found.truncated.any() and not found.truncated.all()


@pytest.mark.parametrize("name", ["uncased", "bytes"])
def test_it_is_built_when_there_is_enough_to_read(name: str) -> None:
    tokenize = TextTokenizer(Tokenizer.from_str(made(name)[0].to_str()), 60)
    first = tokenize(REVIEWS[:1])
    assert tokenize.made_by == "library: too few texts for the native one"
    assert "_native" not in tokenize.__dict__
    found = tokenize(REVIEWS * 20)
    assert tokenize.__dict__["_native"] is not None
    assert tokenize.made_by == "native"
    assert found.ids[:1] == first.ids and found.ids == tokenize(REVIEWS).ids * 20


def test_many_texts_on_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_native, "cpu_threads", lambda: 5)
    monkeypatch.setattr(tokenizer_native, "THREAD_BYTES", 100)
    for name in ("uncased", "bytes"):
        assert compare(name, (REVIEWS + PIECES) * 3) < 150


def test_only_what_is_understood() -> None:
    for name in ("uncased", "bytes"):
        raw = json.loads(made(name)[0].to_str())
        assert understand(raw)
        added = {"id": 99, "content": "É", "single_word": False, "lstrip": False, "rstrip": False, "special": False}
        changes: list[dict[str, Any]] = [
            {"normalizer": {"type": "NFKC"}},
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}]}},
            {"pre_tokenizer": None},
            {"pre_tokenizer": {"type": "Whitespace"}},
            {
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": False,
                }
            },
            {"model": {"type": "Unigram", "vocab": []}},
            {"post_processor": {"type": "Unheard"}},
            {"added_tokens": [*raw["added_tokens"], {**added, "normalized": True}]},
        ]
        changes += [{"model": {**raw["model"], "dropout": 0.5}}] if name == "bytes" else [
            {"normalizer": {**raw["normalizer"], "clean_text": False}}, {"model": {**raw["model"], "unk_token": "none"}}
        ]  # fmt: skip
        for change in changes:
            assert understand({**raw, **change}) is None, change


def test_a_tokenizer_that_disagrees_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = made("uncased")[0]
    real = understand(json.loads(backend.to_str()))
    assert real
    monkeypatch.setattr(tokenizer_native, "understand", lambda _: {**real, "lowercase": False})
    with pytest.raises(EmbedcacheError, match="other tokens for some test texts"):
        native_tokenizer(backend, 9, False, 1, 1)
    tokenize = TextTokenizer(backend, 9)
    assert tokenize.kind == "library" and tokenize(["Great film"]).ids == [backend.encode("Great film").ids]


def test_why_the_library_makes_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "WORTH_CHARACTERS", 0)
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁", -1.0), ("a", -1.0)], unk_id=0))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    for backend, most, why in (
        (unigram, 9, "no native code for Metaspace, Unigram"),
        (made("uncased")[0], 2, "no room for a token in 2"),
    ):
        tokenize = TextTokenizer(Tokenizer.from_str(backend.to_str()), most)
        assert tokenize.made_by == f"library: {why}"


def test_bad_settings() -> None:
    real = understand(json.loads(made("bytes")[0].to_str()))
    assert real
    one_byte_less = {token: i for token, i in real["vocabulary"].items() if token != "Ġ"}
    for settings_, words in (
        ({**real, "vocabulary": one_byte_less}, "a byte is not in the vocabulary"),
        ({**real, "merges": ["a"]}, "a merge is not of two tokens"),
        ({**real, "kind": 7}, "no such kind"),
        ({**real, "vocabulary": {**real["vocabulary"], "a": -4}}, "a negative id"),
    ):
        with pytest.raises(EmbedcacheError, match=words):
            NativeTokenizer(settings_, [0], [2], 9, False)
    with pytest.raises(EmbedcacheError, match="no room for a token"):
        NativeTokenizer(real, [0], [2], 2, False)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tokenizer_native, "_library", lambda: None)
    backend = made("uncased")[0]
    tokenize = TextTokenizer(backend, 9)
    tokenize(REVIEWS * 3)
    assert (tokenize.kind, tokenize.made_by) == ("library", "library: the native one is not built")
    with pytest.raises(EmbedcacheError, match="not built"):
        NativeTokenizer({}, [], [], 9, False)
