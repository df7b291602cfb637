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


SCORES = ["val_accuracy", "val_macro_f1", "test_accuracy", "test_macro_f1"]


def test_lists_of_labels() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((400, 3)) < [0.8, 0.3, 0.4]).astype(np.float32)
    y[:5] = 0
    filler = ["film", "plot", "actor", "the", "was"]
    words = np.array(["superb", "dull", "long"])
    texts = [" ".join([*rng.choice(filler, 4), *words[row > 0], *rng.choice(filler, 4)]) for row in y]
    result = run_baselines(texts, y, split_at(400, 300, 350), "multilabel")
    assert list(result) == ["majority", "tfidf_logreg"] and list(result["majority"]) == SCORES
    assert result["majority"]["val_accuracy"] == pytest.approx((y[300:350] == [1, 0, 0]).all(axis=1).mean())
    share = y[350:, 0].mean()  # of the one label that is said; the two others score 0, for they occur
    assert result["majority"]["test_macro_f1"] == pytest.approx(2 * share / (1 + share) / 3)
    assert result["tfidf_logreg"]["test_accuracy"] > 0.95 < result["tfidf_logreg"]["test_macro_f1"]
    one = run_baselines(texts, y[:, 1:2], split_at(400, 300, 350), "multilabel")
    assert one["tfidf_logreg"]["test_accuracy"] > 0.95 and 0.5 < one["majority"]["test_accuracy"] < 0.9


def test_a_label_of_every_row_or_of_none() -> None:
    y = np.zeros((40, 3), np.float32)
    y[:, 0], y[::2, 1] = 1, 1
    texts = [f"{'good' if i % 2 == 0 else 'bad'} film" for i in range(40)]
    result = run_baselines(texts, y, split_at(40, 20, 30), "multilabel")
    assert result["tfidf_logreg"]["test_accuracy"] == 1


def test_numbers() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, size=(400, 2))
    y = (100 + 10 * counts[:, :1] - 5 * counts[:, 1:] + rng.normal(size=(400, 1))).astype(np.float32)
    y[:3] = np.nan  # rows of no side
    texts = [" ".join(rng.permutation(["great"] * a + ["dull"] * b + ["film", "plot"] * 3)) for a, b in counts]
    split = Split(np.arange(3, 300), np.arange(300, 350), np.arange(350, 400))
    result = run_baselines(texts, y, split, "regression")
    assert list(result) == ["mean", "tfidf_ridge"]
    assert list(result["mean"]) == ["val_r2", "val_rmse", "test_r2", "test_rmse"]
    assert result["mean"]["test_r2"] == pytest.approx(0, abs=0.05) and result["mean"]["test_r2"] <= 0
    assert result["mean"]["test_rmse"] == pytest.approx(np.sqrt(((y[350:] - y[3:300].mean()) ** 2).mean()))
    ridge = result["tfidf_ridge"]
    assert (
        ridge["test_r2"] > 0.8
        and ridge["test_rmse"] < result["mean"]["test_rmse"] / 2
        and ridge["alpha"] in (0.3, 1, 3)
    )
    alone = run_baselines(texts, y, Split(np.arange(3, 399), np.zeros(0, int), np.array([399])), "regression")
    assert alone["mean"]["test_r2"] is None and alone["mean"]["test_rmse"] > 0  # r2 of one row makes no sense


def test_a_bound_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", 1000)
    monkeypatch.setattr(baselines, "MIN_ROWS", 10)
    texts, y = make_texts(300, ("dull", "superb"), ["film", "plot", "actor"], " ")
    result = run_baselines(texts, y, split_at(300, 200, 250))["tfidf_logreg"]
    assert result["train_rows"] < 60 and "of the 200 training rows" in result["note"]
