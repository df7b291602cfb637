"""Long texts in chunks: nothing is left out, and a vector is the mean of its chunks' vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import embedcache as ec
from embedcache.cli import main
from embedcache.encoder import Encoder
from embedcache.encoder.chunking import split_text
from tests.encoder.sentence_folders import make_folder
from tests.encoder.test_tokenizer import PIECES, byte_level, wordpiece

WORDS = ["good", "film", "the", "a", "story", "never", "dull"]
LONG = " ".join(WORDS[i * i % 7] for i in range(100)) + "."
SHORT = "a good film"
CLS = [("cls", -1)]


@pytest.fixture(scope="module")
def backends(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return [wordpiece(tmp_path_factory.mktemp("wordpiece")), byte_level()]


def offsets_in(backend: Any, text: str) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = backend.encode(text, add_special_tokens=False).offsets
    return found


@settings(deadline=None, max_examples=200)
@given(parts=st.lists(st.sampled_from(PIECES), max_size=60), room=st.integers(1, 20), which=st.integers(0, 1))
def test_pieces_are_the_whole_text(backends: list[Any], parts: list[str], room: int, which: int) -> None:
    text = "".join(parts)
    offsets = offsets_in(backends[which], text)
    pieces = split_text(text, offsets, room)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert len(pieces) <= 1 + 2 * len(offsets) / room


def test_a_cut_is_behind_a_sentence_or_between_words(backends: list[Any]) -> None:
    for backend in backends:
        text = "the film . the story was good and never dull at all in the end"
        whole = len(offsets_in(backend, text))
        assert split_text(text, offsets_in(backend, text), whole) == [text]
        assert all(piece in text for piece in split_text(text, offsets_in(backend, text), whole // 3))
        words = {word for piece in split_text(text, offsets_in(backend, text), whole // 3) for word in piece.split()}
        assert words == set(text.split())
    sentences = "a b c d e f. g h i j"
    offsets = [(i, i + 1) for i, character in enumerate(sentences) if character != " "]
    assert split_text(sentences, offsets, 8) == ["a b c d e f.", "g h i j"]
    assert split_text(sentences, offsets, 6) == ["a b c d e", "f. g h i j"]


@pytest.mark.parametrize("prompt", ["", "the story : "])
def test_a_vector_is_the_mean_of_its_chunks(tiny_bert: Path, prompt: str) -> None:
    plain = Encoder.load(tiny_bert, max_length=16, dtype="float32", device="cpu", prompt=prompt)
    encoder = Encoder.load(tiny_bert, max_length=16, dtype="float32", device="cpu", prompt=prompt, chunk=True)
    around = int(plain.tokenize([""]).whole[0])
    offsets = encoder._tokenize.offsets(LONG)
    pieces = split_text(LONG, offsets, 16 - around)
    own = plain.tokenize(pieces)
    assert len(pieces) == -(-len(offsets) // (16 - around)) and not own.truncated.any()
    (vectors,) = plain.encode_texts(pieces, CLS)
    expected = np.average(vectors, axis=0, weights=own.lengths)

    tokens = encoder.tokenize([SHORT, LONG, SHORT])
    assert tokens.chunks is not None and tokens.chunks.tolist() == [0, 1, 1 + len(pieces), 2 + len(pieces)]
    assert not tokens.truncated.any() and tokens.whole[1] == len(offsets) + around
    assert tokens.lengths[1] == own.lengths.sum()
    told: list[np.ndarray] = []
    (found,) = encoder.encode_tokens(tokens, CLS, batch_tokens=40, tell=told.append)
    assert sorted(np.concatenate(told).tolist()) == [0, 1, 2]
    np.testing.assert_allclose(found[1], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[0], plain.encode_texts([SHORT], CLS)[0][0])
    np.testing.assert_array_equal(found[1], encoder.encode_texts([LONG], CLS)[0][0])  # whatever stands beside it
    read = encoder.reading([SHORT, LONG, SHORT], tokens)
    assert (read.in_chunks, read.truncated, read.lost) == (1, 0, 0) and "in chunks" in read.notes()[0]


def test_a_prescribed_vector_of_unit_length_stays_so(tiny_bert: Path, tmp_path: Path) -> None:
    folder = make_folder(tiny_bert, tmp_path / "model", {}, ("Normalize", {}, {}))
    ec.extract(write_table(tmp_path), tmp_path / "c.h5", model=folder, max_length=16, chunk=True, store="float32")
    vectors = ec.open_cache(tmp_path / "c.h5").embeddings("model")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    whole = ec.open_cache(tmp_path / "c.h5").embeddings("cls")
    assert whole.shape == vectors.shape


def test_a_chunk_may_be_cut_again(tiny_bert: Path) -> None:
    """Pieces of a word can have more tokens than they had in it."""
    encoder = Encoder.load(tiny_bert, max_length=4, dtype="float32", device="cpu", chunk=True)
    text = "goodfilm, dullstory! " * 5
    tokens = encoder.tokenize([text, ""])
    assert not tokens.truncated.any() and tokens.lengths[0] > 4
    assert np.isfinite(encoder.encode_tokens(tokens, CLS)[0]).all()


def write_table(folder: Path) -> Path:
    path = folder / "reviews.csv"
    lines = [f"{SHORT} {i},{'good' if i % 2 else 'bad'}" for i in range(30)]
    path.write_text("\n".join(["text,label", f"{LONG},good", *lines]) + "\n")
    return path


def test_the_command_keeps_it_with_the_cache(tiny_bert: Path, tmp_path: Path) -> None:
    def run(*arguments: str) -> Any:
        return CliRunner().invoke(main, [str(one) for one in arguments])

    table, cache = write_table(tmp_path), tmp_path / "c.h5"
    options = ["extract", table, "-o", cache, "--model", tiny_bert]
    first = run(*options, "--max-length", "16", "--chunk")
    assert first.exit_code == 0 and "1 of 31 texts are longer than 16 tokens: each is read in chunks" in first.output
    again = run(*options)
    assert again.exit_code == 0 and "nothing to encode" in again.output
    assert "longer ones in chunks" in run("info", cache).output
    refused = run(*options, "--no-chunk")
    assert refused.exit_code == 1 and "chunk true in the cache, absent asked" in refused.output.lower()
    assert run("train-head", cache, "-o", tmp_path / "run", "--hidden", "0", "--epochs", "1").exit_code == 0
    stored = ec.open_cache(cache).embeddings("cls")[0].astype(np.float32)
    classifier = ec.Classifier.load(tmp_path / "run")
    np.testing.assert_allclose(classifier.encode([LONG])[0].astype(np.float32), stored, rtol=2e-3, atol=2e-3)
    export = run("export", tmp_path / "run", "--to", "torch", "-o", tmp_path / "model")
    assert export.exit_code == 1 and "no exported model does" in export.output
