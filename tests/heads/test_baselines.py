"""The baselines learn what can be learnt, in any script, and never fail a run."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.heads import baselines
from embedcache.heads.baselines import choose_analyzer, run_baselines
from embedcache.heads.split import Split


def split_at(n: int, train: int, val: int) -> Split:
    return Split(np.arange(train), np.arange(train, val), np.arange(val, n))


def make_texts(n: int, words: tuple[str, str], filler: list[str], joint: str) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.4).astype(np.int32)
    texts = [joint.join([*rng.choice(filler, 4), words[label], *rng.choice(filler, 4)]) for label in y]
    return texts, y


def test_learns_the_telling_word() -> None:
    texts, y = make_texts(300, ("dull", "superb"), ["film", "plot", "actor", "the", "was"], " ")
    result = run_baselines(texts, y, split_at(300, 200, 250))
    share = max((y[200:250] == 0).mean(), (y[200:250] == 1).mean())
    assert result["majority"]["val_accuracy"] == pytest.approx(share)
    assert result["majority"]["test_macro_f1"] < 0.5
    assert result["tfidf_logreg"]["val_accuracy"] == result["tfidf_logreg"]["test_accuracy"] == 1
    assert result["tfidf_logreg"]["analyzer"] == "word" and "note" not in result["tfidf_logreg"]


def test_japanese_has_no_spaces() -> None:
    texts, y = make_texts(300, ("退屈", "最高"), ["映画", "物語", "俳優", "この", "でした"], "")
    result = run_baselines(texts, y, split_at(300, 200, 250))["tfidf_logreg"]
    assert result["analyzer"] == "char" and result["test_accuracy"] == 1


@pytest.mark.parametrize(
    ("texts", "analyzer"),
    [
        (["an ordinary sentence"], "word"),
        (["Donaudampfschifffahrt ist ein langes Wort"], "word"),
        (["זה סרט נהדר"], "word"),
        (["この映画は本当に素晴らしかったです"], "char"),
        (["😀 😡 😀"], "char"),
        (["", "  "], "char"),
    ],
)
def test_analyzer(texts: list[str], analyzer: str) -> None:
    assert choose_analyzer(texts) == analyzer


def test_blank_texts_give_a_note_and_no_failure() -> None:
    y = np.arange(20, dtype=np.int32) % 2
    result = run_baselines([""] * 20, y, split_at(20, 10, 15))["tfidf_logreg"]
    assert result["test_accuracy"] is None and "no words" in result["note"]


def test_few_rows_and_an_empty_side() -> None:
    result = run_baselines(["good", "bad", "good"], np.array([1, 0, 1], np.int32), split_at(3, 2, 3))
    assert result["tfidf_logreg"]["val_accuracy"] == 1 and result["tfidf_logreg"]["test_accuracy"] is None


def test_a_bound_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", 1000)
    monkeypatch.setattr(baselines, "MIN_ROWS", 10)
    texts, y = make_texts(300, ("dull", "superb"), ["film", "plot", "actor"], " ")
    result = run_baselines(texts, y, split_at(300, 200, 250))["tfidf_logreg"]
    assert result["train_rows"] < 60 and "of the 200 training rows" in result["note"]
