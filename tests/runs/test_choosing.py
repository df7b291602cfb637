"""What chooses the epoch and the head, what the head is compared with, and what is said of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.runs.comparisons import compared_by
from embedcache.runs.folder import load_heads, load_run
from embedcache.runs.job import train_head
from embedcache.runs.wording import in_words
from tests.conftest import make_cache
from tests.runs.caches import make_labelled_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("choose") / "cache.h5")


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three classes one has 8 rows in 100 and is hard to tell."""
    rng = np.random.default_rng(0)
    y = rng.choice(3, 900, p=[0.65, 0.27, 0.08])
    x = rng.normal(size=(900, 16)).astype(np.float32)
    x[np.arange(900), y] += 1.2
    films = [f"film {i // 6}" for i in range(900)]
    path = tmp_path_factory.mktemp("rare") / "cache.h5"
    return make_cache(
        path, [f"text {i}" for i in range(900)], x, {"label": [f"class {c}" for c in y]}, columns={"film": films}
    )


@pytest.mark.parametrize("choose", ["loss", "accuracy", "macro-f1"])
def test_epoch_and_head_are_chosen_by_it(rare: Path, tmp_path: Path, choose: str) -> None:
    settings: dict[str, Any] = {"hidden": [0, 8], "lr": [1e-3, 1e-2, 1e-1], "epochs": 8, "val": 0.3}
    report = train_head(rare, tmp_path / "run", choose=choose, **settings)
    key = "val_" + choose.replace("-", "_")
    better = min if choose == "loss" else max
    with (tmp_path / "run" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0][key]) == better(float(row[key]) for row in rows) and rows[0]["name"] == report.best["name"]
    heads = load_heads(report.run)
    for row in rows:
        assert float(row[key]) == pytest.approx(better(heads[row["name"]].history[key]))
    info = load_run(report.run).info
    assert report.best["chosen_by"] == choose.replace("-", "_") == info["options"]["choose"]
    again = train_head(rare, tmp_path / "run", choose=choose, resume=True, **settings)
    assert again.kept == 6 and again.best == report.best
    other = train_head(
        rare, tmp_path / "run", choose="loss" if choose != "loss" else "accuracy", resume=True, **settings
    )
    assert other.kept == 0, "a head that keeps another epoch is another head"


def test_equal_scores_go_by_the_loss(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", hidden=0, lr=[1e-2, 2e-2, 5e-2], epochs=30, choose="accuracy")
    best = [row for row in report.leaderboard if row["val_accuracy"] == report.leaderboard[0]["val_accuracy"]]
    assert len(best) > 1 and [row["val_loss"] for row in best] == sorted(row["val_loss"] for row in best)


def test_numbers_are_chosen_by_r2(cache: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"label": "score", "task": "regression", "lr": [1e-2, 1e-3], "epochs": 4, "hidden": 0}
    report = train_head(cache, tmp_path / "run", choose="r2", folds=3, **settings)
    assert report.best["val_r2"] == max(row["val_r2"] for row in report.leaderboard)
    assert report.best["compared_by"] == "r2" and {one["metric"] for one in report.comparisons} == {"r2"}


def test_what_is_no_score_of_the_column_is_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="--choose r2: column 'label' holds classes; use loss, accuracy or"):
        train_head(cache, tmp_path / "run", choose="r2")
    with pytest.raises(EmbedcacheError, match="--choose accuracy: column 'score' holds values; use loss or r2"):
        train_head(cache, tmp_path / "run", label="score", task="regression", choose="accuracy")
    with pytest.raises(EmbedcacheError, match="--choose f1: use loss"):
        train_head(cache, tmp_path / "run", choose="f1")
    assert not (tmp_path / "run").exists()


# ---- comparisons ----


def test_by_which_metric() -> None:
    assert compared_by("classification", "loss", False) == "accuracy" == compared_by("multilabel", "accuracy", True)
    assert compared_by("classification", "loss", True) == "macro_f1" == compared_by("classification", "macro_f1", False)
    assert compared_by("regression", "loss", False) == "r2"


def test_the_head_is_compared_on_the_test_rows_in_pairs(rare: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"hidden": 0, "lr": 1e-2, "epochs": 5, "test": 0.3}
    rows, films = (
        train_head(rare, tmp_path / name, group=group, **settings) for name, group in (("a", None), ("b", "film"))
    )
    for report in (rows, films):
        best = report.best
        assert [(one["with"], one["metric"]) for one in report.comparisons] == [
            (name, metric) for name in report.baselines for metric in ("accuracy", "macro_f1")
        ]
        for one in report.comparisons:
            key = f"test_{one['metric']}"
            assert one["difference"] == pytest.approx(best[key] - report.baselines[one["with"]][key])
            assert (
                one["side"] == "test" and one["rows"] == report.split["test"] and one["groups"] == best["test_groups"]
            )
            assert one["interval"][0] < one["difference"] < one["interval"][1]
        for metric in ("accuracy", "macro_f1"):
            low, high = best[f"test_{metric}_interval"]
            assert low < best[f"test_{metric}"] < high
            assert report.evaluation["test"][f"{metric}_interval"] == [low, high]
    assert rows.best["test_groups"] is None and 20 < films.best["test_groups"] < 70
    json.dumps(films.to_dict(), allow_nan=False)
    assert load_run(films.run).info["comparisons"] == films.comparisons


def test_without_test_rows_the_validation_rows_compare(rare: Path, tmp_path: Path) -> None:
    report = train_head(rare, tmp_path / "run", hidden=0, lr=1e-2, epochs=3, test=0, folds=3)
    assert {one["side"] for one in report.comparisons} == {"val"}
    assert {one["rows"] for one in report.comparisons} == {900}
    nothing = train_head(rare, tmp_path / "run", hidden=0, lr=1e-2, epochs=3, test=0, val=0)
    assert nothing.comparisons == []


def test_words() -> None:
    one = {"with": "tfidf_logreg", "metric": "accuracy", "difference": 0.02, "interval": [-0.01, 0.05]}
    said = "better than TF-IDF + logreg by 0.020 accuracy (95% interval -0.010 to 0.050: within noise)"
    assert in_words({**one, "within_noise": True}) == said
    assert "(95% interval -0.010 to 0.050)" in in_words({**one, "within_noise": False})
    assert in_words({**one, "difference": 0}) == "just as good as TF-IDF + logreg by accuracy"
    assert "too few rows or groups" in in_words({**one, "interval": None})
    assert in_words({**one, "difference": -0.02, "within_noise": True}, long=True).startswith(
        "worse than TF-IDF + logistic regression by 0.020 accuracy"
    )


# ---- notes ----


def test_a_class_that_is_never_predicted_is_said_once(tmp_path: Path) -> None:
    """One row in ten of a class has another label, which the vectors do not tell."""
    rng = np.random.default_rng(0)
    y = rng.choice(2, 600)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    x[np.arange(600), y] += 3
    labels = {"label": ["odd" if c and rng.random() < 0.15 else "ab"[c] for c in y]}
    labels["stars"] = [str(c + 1) for c in y]
    path = make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(600)], x, labels)
    settings: dict[str, Any] = {"hidden": 0, "lr": 1e-2, "epochs": 20, "val": 0.2, "test": 0.3, "label": "label"}
    report = train_head(path, tmp_path / "run", **settings)
    said = [note for note in report.notes if "never predicts" in note]
    assert len(said) == 1 and "validation and test rows: odd; --choose macro-f1 or --class-weight balanced g" in said[0]
    assert [one["recall"] for one in report.evaluation["test"]["per_class"] if one["label"] == "odd"] == [0]
    better = train_head(path, tmp_path / "run", class_weight="balanced", **settings)
    assert not [note for note in better.notes if "never predicts" in note]
    # What is suggested works: a bank with a column of numbers takes no class weights.
    with_numbers = settings | {"label": ["label", "stars"], "task": {"stars": "regression"}}
    with pytest.raises(EmbedcacheError, match="class-weight is for classes"):
        train_head(path, tmp_path / "run", class_weight="balanced", **with_numbers)
    several = train_head(path, tmp_path / "run", **with_numbers)
    (said,) = [note for one in several.columns.values() for note in one.notes if "never predicts" in note]
    assert said.endswith("--class-weight balanced in a run without the columns of numbers gives them more weight")
    assert "odd; --choose macro-f1 or" in said
    chosen = train_head(path, tmp_path / "run", choose="macro-f1", **with_numbers)
    said = [note for one in chosen.columns.values() for note in one.notes if "never predicts" in note]
    assert all("--choose" not in note for note in said)


def test_a_baseline_that_is_better_beyond_noise_is_said(rare: Path, tmp_path: Path) -> None:
    report = train_head(rare, tmp_path / "run", hidden=8, lr=1e-6, epochs=1, test=0.4, class_weight="balanced")
    said = [note for note in report.notes if "worse than" in note]
    assert len(said) == 1 and "logistic regression on the same vectors" in said[0] and "macro F1" in said[0]
    assert "other rates (--lr)" in said[0]
    good = train_head(rare, tmp_path / "run", hidden=0, lr=1e-2, epochs=20, test=0.4)
    assert not [note for note in good.notes if "worse than" in note]


def test_sides_that_lack_classes_are_said_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = ["a" if i % 2 else "b" for i in range(60)] + ["c"] * 3 + ["d"] * 2
    part = ["test" if i % 2 and i < 40 else "val" if i % 5 == 0 else "train" for i in range(65)]
    path = make_cache(
        tmp_path / "c.h5", [f"t {i}" for i in range(65)], rng.normal(size=(65, 4)).astype(np.float32), {"label": y},
        columns={"part": part, "other": ["train" if i > 30 else "test" for i in range(65)]},
    )  # fmt: skip
    notes = train_head(path, tmp_path / "run", hidden=0, epochs=1, split_column="part").notes
    assert [note for note in notes if "all of one class" in note] == [
        "the test rows are all of one class, a: the scores say little"
    ]
    assert [note for note in notes if "one or two rows: d" in note]
    notes = train_head(path, tmp_path / "run", hidden=0, epochs=1, split_column="other").notes
    assert [note for note in notes if "without a test row" in note] == [
        "classes without a test row, which the scores do not cover: c, d"
    ]


def test_a_temperature_that_does_harm_is_said(rare: Path, tmp_path: Path) -> None:
    """Over seeds of the split it happens often on few rows: said just where it does."""
    said = 0
    for seed in range(6):
        report = train_head(rare, tmp_path / "run", hidden=0, lr=1e-2, epochs=3, split=seed)
        test = report.evaluation["test"]
        worse = test["calibration_scaled"]["ece"] > test["calibration"]["ece"] + 0.005
        assert any("without --calibrated" in note for note in report.notes) == worse
        said += worse
    assert 0 < said < 6
