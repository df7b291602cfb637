"""train-head's job for several label columns, and for columns of every kind of task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.runs.folder import FILES, load_heads, load_run
from embedcache.runs.job import HeadReport, train_head
from embedcache.runs.split import make_split
from tests.conftest import make_cache
from tests.runs.caches import labelled, make_labelled_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("job") / "cache.h5")


@pytest.fixture(scope="module")
def columns(cache: Path) -> HeadReport:
    """Two columns with different rows left out and different classes."""
    return train_head(cache, cache.parent / "columns", label=["label", "tone"], hidden=[0, 8], lr=1e-2, epochs=10)


def test_each_column_is_a_run_of_its_own(cache: Path, columns: HeadReport, tmp_path: Path) -> None:
    """And to the bit the one that it would be alone."""
    assert columns.heads == 4 and list(columns.columns) == ["label", "tone"]
    assert sorted(path.name for path in Path(columns.run).iterdir()) == ["label", "run.json", "tone"]
    for name in ("label", "tone"):
        alone = train_head(cache, tmp_path / name, label=name, hidden=[0, 8], lr=1e-2, epochs=10)
        one, other = Path(columns.run) / name, Path(alone.run)
        assert sorted(path.name for path in one.iterdir()) == sorted(FILES)
        assert load_run(one).best.weights["w2"].tobytes() == load_run(other).best.weights["w2"].tobytes()
        for file in ("heads.safetensors", "leaderboard.csv", "history.csv"):
            assert (one / file).read_bytes() == (other / file).read_bytes()
        assert vars(columns.columns[name]) == {
            **vars(alone.columns[name]), "baselines": columns.columns[name].baselines
        }  # fmt: skip


def test_the_report_of_several_columns(columns: HeadReport) -> None:
    document = json.loads(json.dumps(columns.to_dict(), allow_nan=False))
    for key in ("label", "classes", "split", "best", "baselines", "leaderboard"):
        assert document[key] == document["columns"]["label"][key], "the first column's"
    assert document["columns"]["tone"]["classes"] == ["high", "low", "mid"]
    splits = {name: one["split"] for name, one in document["columns"].items()}
    assert (splits["label"]["unlabelled"], splits["tone"]["unlabelled"]) == (7, 40)
    assert document["columns"]["tone"]["best"]["test_accuracy"] > 0.7


def test_a_run_of_several_columns_is_opened(columns: HeadReport) -> None:
    run = load_run(columns.run)
    assert list(run.columns) == ["label", "tone"] and run.classes == ["negative", "positive"]
    assert run.columns["tone"].classes == ["high", "low", "mid"]
    assert run.best.spec == run.columns["label"].best.spec
    assert [len(load_heads(columns.run)), len(load_heads(run.columns["tone"].path))] == [4, 2]
    assert set(load_heads(columns.run)) == {f"{c}/head-00{i}" for c in ("label", "tone") for i in range(2)}


def test_columns_with_folds(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label=["label", "tone"], hidden=[0, 4], lr=1e-2, epochs=2, folds=3)
    assert report.heads == 4
    for name in ("label", "tone"):
        assert list(load_heads(tmp_path / "run" / name)) == [f"head-00{i}/fold-{k}" for i in (0, 1) for k in range(3)]


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts, x, labels = labelled()
    columns: dict[str, list[Any]] = {
        "label": labels,
        "tags": [
            ["good", "odd"] if i % 2 else ["odd"] if label == "positive" else [] for i, label in enumerate(labels)
        ],
        "score": [str(i % 5) for i in range(len(texts))],
    }
    path = tmp_path_factory.mktemp("priced") / "c.h5"
    return make_cache(path, texts, x, columns, columns={"price": [f"{v:.3f}" for v in x[:, 0].astype(float)]})


class TestColumnsOfEveryKind:
    """Classes, lists and numbers in one bank: a label column of numbers, and a kept one."""

    settings: ClassVar[dict[str, Any]] = {"hidden": [0, 8], "lr": 1e-2, "epochs": 5, "early_stop": 2}
    kinds: ClassVar[dict[str, str]] = {
        "label": "classification", "tags": "multilabel", "score": "regression", "price": "regression"
    }  # fmt: skip

    @pytest.mark.parametrize(
        "task", [{"score": "regression", "price": "regression"}, "score=regression,price=regression,tags=multilabel"]
    )
    def test_each_head_is_that_of_its_column_alone(self, priced: Path, tmp_path: Path, task: Any) -> None:
        report = train_head(
            priced, tmp_path / "run", label=list(self.kinds), task=task, choose="macro-f1", **self.settings
        )
        assert {name: column.kind for name, column in report.columns.items()} == self.kinds
        for name, kind in self.kinds.items():
            regression = kind == "regression"
            choose = "loss" if regression else "macro-f1"
            more = {"task": "regression" if regression else "auto", "choose": choose}
            alone = train_head(priced, tmp_path / name, label=name, **more, **self.settings)
            assert alone.kind == kind
            one, other = Path(report.run) / name, Path(alone.run)
            for file in ("heads.safetensors", "leaderboard.csv", "history.csv", "evaluations.json"):
                assert (one / file).read_bytes() == (other / file).read_bytes(), (name, file)
            said = f"--choose macro-f1 is for classes: of {name!r} the loss chose the head"
            assert (said in report.columns[name].notes) == regression
        info = load_run(report.run).info
        every: dict[str, Any] = {"label": list(self.kinds), "choose": "macro-f1", **self.settings}
        again = train_head(priced, tmp_path / "run", task=info["options"]["task"], resume=True, **every)
        assert again.kept == again.heads == 8

    def test_numbers_are_numbers_only_where_that_is_asked_for(self, priced: Path, tmp_path: Path) -> None:
        report = train_head(priced, tmp_path / "run", label="label,score", hidden=0, epochs=1)
        assert [column.kind for column in report.columns.values()] == ["classification"] * 2
        with pytest.raises(
            EmbedcacheError, match=r"'price' is a kept column .* --task price=regression learns its num"
        ):
            train_head(priced, tmp_path / "run", label="label,price", task={"label": "auto"})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"class_weight": "balanced"},
                "--class-weight is for classes: .*--task price=regression, or train price in",
            ),
            ({"label_smoothing": 0.1}, "--label-smoothing is for classes: "),
            (
                {"task": {"price": "regression", "tags": "classification"}},
                "column 'tags' holds lists: leave --task out",
            ),
            ({"task": {"price": "regression", "tags": "regression"}}, "'tags' holds lists, .*--task COLUMN=regression"),
            (
                {"task": "price=regression,stars=regression"},
                "stars.* not among the columns to be trained, label, tags, pr",
            ),
            ({"task": {"price": "ranking"}}, "--task price=ranking: use auto, classification"),
            ({"task": "price=ranking"}, "--task price=ranking: use auto, classification"),
            ({"task": 3}, "--task 3: use"),
            (
                {"task": "price=regression", "label": None},
                "not among the columns to be trained, label: add it, --label label,pr",
            ),
        ],
        ids=str,
    )
    def test_what_makes_no_sense(self, priced: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        every: dict[str, Any] = {"label": ["label", "tags", "price"], "task": {"price": "regression"}, **options}
        with pytest.raises(EmbedcacheError, match=message):
            train_head(priced, tmp_path / "run", **every)
        assert not (tmp_path / "run").exists()


# ---- several labels a row, and numbers ----


def test_a_column_of_lists_is_learnt_label_by_label(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tags", hidden=[0, 8], lr=[1e-2, 1e-3], epochs=20)
    assert (report.kind, report.classes) == ("multilabel", ["good", "high"])
    best, run = report.best, load_run(report.run)
    assert best["test_accuracy"] > 0.85 > report.baselines["majority"]["test_accuracy"] + 0.3, "both labels right"
    low, high = best["test_accuracy_interval"]
    assert low < best["test_accuracy"] <= high and best["test_macro_f1"] > 0.9 and best["val_loss"] < 0.4
    with open_cache(cache) as opened:
        x, (y, _) = opened.embeddings(), opened.labels("tags")
    assert np.mean([row == ["good", "high"] for row in run.best.predict(x[(y == 1).all(axis=1)])]) > 0.8


def test_numbers_are_predicted_in_their_own_unit(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="score", task="regression", hidden=[0, 8], lr=1e-2, epochs=30)
    best, run = report.best, load_run(report.run)
    assert report.kind == run.best.kind == "regression" and report.split["unlabelled"] == 1
    assert best["test_accuracy"] is None and best["val_accuracy"] is None
    low, high = best["test_r2_interval"]
    assert low < best["test_r2"] < high and best["test_r2"] > 0.9 and best["val_r2"] > 0.9
    assert report.baselines["mean"]["test_r2"] < 0.1
    with open_cache(cache) as opened:
        x, (codes, names) = opened.embeddings(), opened.labels("score")
        y = np.array([float(names[code]) for code in codes])[1:]
        test = make_split(np.arange(-1, 399), opened.hashes, stratify=False).test  # row 0 has no number
    errors = run.best.predict(x[1:]) - y
    assert np.sqrt(np.mean(errors**2)) < 2.5 < y.std() / 2
    assert np.sqrt(np.mean(errors[test - 1] ** 2)) == pytest.approx(best["test_rmse"], rel=1e-3)


def test_a_regression_with_folds_is_in_its_unit_too(cache: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"task": "regression", "hidden": 0, "lr": 1e-2, "epochs": 30, "folds": 3}
    report = train_head(cache, tmp_path / "run", label="score", **settings)
    assert report.best["test_r2"] > 0.9 and report.best["val_r2"] > 0.9 and 0 < report.best["val_rmse"] < 2.5


def test_kinds_share_a_bank(cache: Path, tmp_path: Path) -> None:
    """As many outputs as each column needs, and each to the bit what it would be alone."""
    settings: dict[str, Any] = {"hidden": [0, 8], "lr": 1e-2, "epochs": 3}
    report = train_head(cache, tmp_path / "run", label=["tags", "label", "tone"], **settings)
    assert [one.kind for one in report.columns.values()] == ["multilabel", "classification", "classification"]
    alone = train_head(cache, tmp_path / "alone", label="tags", **settings)
    for name in ("best.safetensors", "heads.safetensors", "evaluations.json"):
        assert (tmp_path / "run" / "tags" / name).read_bytes() == (Path(alone.run) / name).read_bytes()
