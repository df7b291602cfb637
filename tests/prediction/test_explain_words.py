"""--explain-words: which words are tried, against means taken by hand, and that nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.encoder.poolings import TOKEN_STATES
from embedcache.errors import EmbedcacheError
from embedcache.prediction.explain import parts_of
from embedcache.prediction.own_vectors import removed_tokens
from tests.conftest import document, fails, invoke, make_reviews, write_csv

TEXTS = [text for text, _ in make_reviews(6)] + ["", "superb", "don't miss this well-made, warm film: film of a year"]


@pytest.fixture(scope="module")
def run(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads means."""
    folder = tmp_path_factory.mktemp("mean") / "run"
    document("train-head", made / "reviews.h5", "-o", folder, "--pooling", "mean", "--epochs", 3, "--lr", "1e-2")
    return folder


@pytest.mark.parametrize(
    ("row", "less", "found"),
    [
        ([1, 5, 6, 7, 2], [1, 5, 7, 2], (2, 3)),
        ([1, 5, 6, 6, 7, 2], [1, 5, 7, 2], (2, 4)),
        ([1, 6, 6, 2], [1, 6, 2], (2, 3)),  # either of the two
        ([1, 5, 2], [1, 2], (1, 2)),
        ([1, 5, 6, 7, 2], [1, 5, 7, 8, 2], (2, 3)),  # cut off: another token has come in at the end
        ([1, 5, 6, 7, 2], [1, 5, 6, 7, 2], (5, 5)),  # cut off before the word
        ([1, 5, 6, 7, 2], [1, 5, 9, 7, 2], (2, 4)),  # what was beside it has joined
    ],
)
def test_tokens_of_a_deleted_word(row: list[int], less: list[int], found: tuple[int, int]) -> None:
    assert removed_tokens(np.array(row), np.array(less)) == found


def test_the_words_are_those_whose_own_vectors_weigh_most(run: Path) -> None:
    classifier = ec.Classifier.load(run, "cpu")
    text, encoder = TEXTS[-1], classifier.encoder
    assert encoder is not None
    every = classifier.predict([text], explain=True)[0]
    ids = encoder.tokenize([text]).rows[0]
    (states,) = encoder.encode([ids], [(TOKEN_STATES, -1)])
    pieces = encoder.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    lost = []
    for start, end in parts_of(text):
        others = [not (start <= a and b <= end and b > a) for a, b in pieces]
        lost.append(every.probabilities[every.label] - _chance(classifier, states[others].mean(axis=0), every.label))
    expected = {parts_of(text)[k] for k in np.argsort(-np.array(lost))[:4]}
    why = classifier.predict([text], explain_words=4)[0].explanation
    assert {(word["start"], word["end"]) for word in why["words"]} == expected and len(expected) == 4


def _chance(classifier: ec.Classifier, vector: np.ndarray, label: str) -> float:
    return classifier.predict(vectors=classifier.stored(vector[None]))[0].probabilities[label]


def test_effects_are_those_of_a_full_explanation(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = ec.Classifier.load(run, "cpu")
    monkeypatch.setattr("embedcache.prediction.explain.SHOWN", 99)
    full = classifier.predict(TEXTS, explain=True)
    some = classifier.predict(TEXTS, explain_words=3)
    assert some.labels == full.labels
    for text, one, other in zip(TEXTS, some, full, strict=True):
        words = {(word["start"], word["end"]): word["effect"] for word in one.explanation["words"]}
        every = {(word["start"], word["end"]): word["effect"] for word in other.explanation["words"]}
        assert len(words) == min(3, len(parts_of(text)))
        assert words == pytest.approx({place: every[place] for place in words}, abs=2e-6)
        assert one.explanation["supporting"] == other.explanation["supporting"]
    for text, one in zip(TEXTS, some, strict=True):  # the same words alone as among others
        assert _words(classifier.predict([text], explain_words=3)) == _words([one])
    assert _words(classifier.predict(TEXTS, explain_words=48)) == _words(full)
    found: list[Any] = []
    some_threads = [
        threading.Thread(target=lambda: found.append(classifier.predict(TEXTS, explain_words=3))) for _ in range(2)
    ]
    for thread in some_threads:
        thread.start()
    for thread in some_threads:
        thread.join()
    assert [_words(each) for each in found] == [_words(some)] * 2


def _words(predictions: Iterable[Any]) -> list[set[tuple[int, int]]]:
    return [{(word["start"], word["end"]) for word in one.explanation["words"]} for one in predictions]


def test_tables_caches_and_the_screen(run: Path, made: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "in.csv", [(text,) for text in TEXTS], ("text",))
    options = ["--input", tmp_path / "in.csv", "-o", tmp_path / "o.parquet", "--explain-words", 3]
    document("predict", run, *options)
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    for row, one in zip(rows, ec.Classifier.load(run, "cpu").predict(TEXTS, explain_words=3), strict=True):
        assert row["predicted_words"] == [w["word"] for w in one.explanation["words"] if w["effect"] > 0]
    document("predict", run, made / "reviews.h5", "-o", tmp_path / "c.parquet", "--explain-words", 2)
    words = pq.read_table(tmp_path / "c.parquet")["predicted_words"].to_pylist()
    assert max(map(len, words)) in (1, 2)
    shown = invoke("predict", run, "a superb film of the year", "--explain-words", 2)
    assert "2 words at most were tried" in shown.stderr
    assert next(line for line in shown.stdout.splitlines() if "without each word" in line).count(",") == 1


def test_refused(run: Path, made: Path) -> None:
    assert "Invalid value for '--explain-words'" in invoke("predict", run, "a film", "--explain-words", 0).stderr
    classifier = ec.Classifier.load(run, "cpu")
    with pytest.raises(EmbedcacheError, match="by 0 words says nothing"):
        classifier.predict(["a film"], explain_words=0)
    with pytest.raises(EmbedcacheError, match="no words to explain"):
        classifier.predict(vectors=np.ones((1, 32), np.float32), explain_words=2)
    assert "is the mean of its tokens'" in fails("predict", made / "run", "a film", "--explain-words", 2)
