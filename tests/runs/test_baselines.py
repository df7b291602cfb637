"""The baselines learn what can be learnt, in any script, and never fail a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from embedcache.runs import baseline_features, baselines
from embedcache.runs.baseline_features import BaselineRows, choose_analyzer
from embedcache.runs.split import Split


def split_at(n: int, train: int, val: int) -> Split:
    return Split(np.arange(train), np.arange(train, val), np.arange(val, n))


def run_baselines(texts: list[str], y: np.ndarray, split: Split, kind: str = "classification", **more: Any) -> Any:
    """The scores by name; the vectors say of each row a little of its target."""
    x = np.random.default_rng(0).normal(size=(len(texts), 6)).astype(np.float32)
    return {
        name: one.scores
        for name, one in baselines.run_baselines(BaselineRows(texts, x, y, split, kind, **more)).items()
    }


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
    assert list(result) == ["majority", "tfidf_logreg", "vectors_logreg"] and list(result["majority"]) == SCORES
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
    assert list(result) == ["mean", "tfidf_ridge", "vectors_ridge"]
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
    monkeypatch.setattr(baseline_features, "MAX_CHARACTERS", 1000)
    monkeypatch.setattr(baseline_features, "MIN_ROWS", 10)
    texts, y = make_texts(300, ("dull", "superb"), ["film", "plot", "actor"], " ")
    result = run_baselines(texts, y, split_at(300, 200, 250))["tfidf_logreg"]
    assert result["train_rows"] < 60 and "of the 200 training rows" in result["note"]


# ---- the vectors, folds, weights, the metric that chooses ----


def rows_of(n: int, seed: int = 0, prior: tuple[float, ...] = (0.8, 0.15, 0.05), dim: int = 20) -> tuple[Any, ...]:
    """Texts without sense, vectors that tell the class most of the time, classes."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(prior), n, p=prior).astype(np.int32)
    x = rng.normal(size=(n, dim)).astype(np.float32)
    x[np.arange(n), y] += 1.5
    texts = [" ".join(rng.choice(["a", "film", "of", "the", "plot", "actor"], 6)) for _ in range(n)]
    return texts, x * 100 + 7, y


def folds_of(split: Split, k: int) -> list[Split]:
    fold = np.arange(len(split.train)) % k
    return [Split(split.train[fold != i], split.train[fold == i], split.train[:0]) for i in range(k)]


def test_the_vectors_are_learnt_as_scikit_learn_does() -> None:
    texts, x, y = rows_of(900)
    split = split_at(900, 600, 700)
    found = baselines.run_baselines(BaselineRows(texts, x, y, split))["vectors_logreg"]
    scaler = StandardScaler().fit(x[split.train])
    z = scaler.transform(x)
    losses = {}
    for c in (0.001, 0.01, 0.1, 1.0):
        model = LogisticRegression(C=c, max_iter=1000).fit(z[split.train], y[split.train])
        losses[c] = log_loss(y[split.val], model.predict_proba(z[split.val]))
    best = min(losses, key=losses.__getitem__)
    assert found.scores["C"] == best and found.scores["train_rows"] == 600 and found.scores["features"] == 20
    model = LogisticRegression(C=best, max_iter=1000).fit(z[split.train], y[split.train])
    expected = model.predict(z[split.test])
    assert (found.predicted["test"] == expected).mean() > 0.99
    assert found.scores["test_accuracy"] == pytest.approx((expected == y[split.test]).mean(), abs=0.01)
    assert found.scores["test_macro_f1"] > 0.5 and found.scores["val_accuracy"] > 0.8


def test_folds_choose_c_and_score_out_of_fold() -> None:
    """Before, with folds C was always the first and nothing was known of the validation rows."""
    texts, x, y = rows_of(900)
    split = Split(np.arange(700), np.zeros(0, int), np.arange(700, 900))
    rows = BaselineRows(texts, x, y, split, folds=folds_of(split, 4))
    found = baselines.run_baselines(rows)
    assert found["vectors_logreg"].scores["val_accuracy"] > 0.8
    assert len(found["vectors_logreg"].predicted["val"]) == 700 == len(rows.val)
    right = (found["vectors_logreg"].predicted["val"] == y[rows.val]).mean()
    assert found["vectors_logreg"].scores["val_accuracy"] == pytest.approx(right)
    chosen = set()
    for seed in range(4):
        texts, x, y = rows_of(300, seed, dim=20 if seed % 2 else 200)
        split = Split(np.arange(260), np.zeros(0, int), np.arange(260, 300))
        chosen.add(
            baselines.run_baselines(BaselineRows(texts, x, y, split, folds=folds_of(split, 3)))[
                "vectors_logreg"
            ].scores["C"]
        )
    assert len(chosen) > 1, "no value is always the best"
    texts, y = make_texts(400, ("dull", "superb"), ["film", "plot", "actor", "the", "was"], " ")
    split = Split(np.arange(300), np.zeros(0, int), np.arange(300, 400))
    tfidf = run_baselines(texts, y, split, folds=folds_of(split, 3))["tfidf_logreg"]
    assert tfidf["C"] == 10 and tfidf["test_accuracy"] == tfidf["val_accuracy"] == 1


def test_weights_help_rare_classes_as_they_do_for_heads() -> None:
    texts, x, y = rows_of(1200)
    split = split_at(1200, 500, 600)
    told = "rare " * 3
    words = [told + text if label == 2 else text for text, label in zip(texts, y, strict=True)]
    recalls: dict[str, list[float]] = {"vectors_logreg": [], "tfidf_logreg": []}
    for balanced in (False, True):
        found = baselines.run_baselines(BaselineRows(words, x, y, split, balanced=balanced))
        for name, recall in recalls.items():
            recall.append((found[name].predicted["test"] == 1)[y[split.test] == 1].mean())
    assert recalls["vectors_logreg"][1] > recalls["vectors_logreg"][0] + 0.1
    assert recalls["tfidf_logreg"][1] > recalls["tfidf_logreg"][0] + 0.1, (
        "TF-IDF cannot know class 1; weighted, it tries"
    )


def test_the_metric_that_chooses_chooses_the_penalty() -> None:
    """On a few hundred rows of rare classes, the best macro F1 is at another C than the best loss."""
    different = 0
    for seed in range(5):
        texts, x, y = rows_of(500, seed, dim=60)
        split = split_at(500, 250, 400)
        found = {
            choose: baselines.run_baselines(BaselineRows(texts, x, y, split, choose=choose))["vectors_logreg"].scores
            for choose in ("loss", "accuracy", "macro_f1")
        }
        assert found["macro_f1"]["val_macro_f1"] == max(one["val_macro_f1"] for one in found.values())
        assert found["accuracy"]["val_accuracy"] == max(one["val_accuracy"] for one in found.values())
        different += found["macro_f1"]["C"] != found["loss"]["C"]
    assert different > 0


def test_vectors_of_lists_and_of_numbers() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 8)).astype(np.float32)
    tags = (x[:, :3] + rng.normal(0, 0.3, (600, 3)) > 0.5).astype(np.float32)
    tags[:, 2] = 1  # every row has it
    split = split_at(600, 400, 500)
    found = baselines.run_baselines(BaselineRows(["x"] * 600, x, tags, split, "multilabel"))["vectors_logreg"].scores
    assert found["test_accuracy"] > 0.7 and found["test_macro_f1"] > 0.85
    y = (40 + 3 * x[:, :1] + rng.normal(size=(600, 1))).astype(np.float32)
    ridge = baselines.run_baselines(BaselineRows(["x"] * 600, x, y, split, "regression"))["vectors_ridge"].scores
    assert ridge["test_r2"] > 0.85 and ridge["alpha"] in (10, 100, 1000, 10_000)


def test_the_vectors_bound_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline_features, "MAX_VALUES", 2000)
    monkeypatch.setattr(baseline_features, "MIN_ROWS", 10)
    texts, x, y = rows_of(400)
    found = baselines.run_baselines(BaselineRows(texts, x, y, split_at(400, 300, 350)))["vectors_logreg"].scores
    assert found["train_rows"] == 100 and "100 of the 300 training rows" in found["note"]
