"""The metrics that a run directory holds, made again from its heads and the same split."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    r2_score,
)

from embedcache.cache import open_cache
from embedcache.heads.head import TrainedHead
from embedcache.runs.calibration import fit_temperature, measure_calibration
from embedcache.runs.data import load_data
from embedcache.runs.folder import Run, load_heads, load_run
from embedcache.runs.job import train_head
from embedcache.runs.leaderboard import predict_rows
from embedcache.runs.split import Split, make_folds, make_split
from tests.runs.caches import make_labelled_cache


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("metrics") / "cache.h5")


def sides(cache: Path, label: str, task: str = "auto", folds: int = 0) -> tuple[Any, Split, list[Split]]:
    """The data, the split, and its folds, as train_head has them."""
    with open_cache(cache) as opened:
        data = load_data(opened, label, None, -1, None, task)
        classes = data.kind == "classification"
        split = make_split(data.codes, opened.hashes, val=0.0 if folds else 0.2, test=0.2, stratify=classes)
        rest = data.codes.copy()
        rest[split.test] = -1
        data.x = np.array(data.x)
        return data, split, make_folds(rest, opened.hashes, folds=folds) if folds else [split]


def read_csv(run: Run, name: str) -> list[dict[str, str]]:
    with (run.path / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logits(heads: list[TrainedHead], x: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([predict_rows([head], x, rows)[0] for head, rows in zip(heads, parts, strict=True)])


@pytest.mark.parametrize("folds", [0, 3])
def test_classification(cache: Path, tmp_path: Path, folds: int) -> None:
    shares: dict[str, Any] = {"folds": folds} if folds else {"val": 0.2}
    report = train_head(
        cache, tmp_path / "run", label="tone", lr=[1e-3, 1e-2], hidden=8, seed=[0, 1], epochs=5, test=0.2, **shares
    )
    run, heads = load_run(report.run), load_heads(report.run)
    data, split, parts = sides(cache, "tone", folds=folds)
    assert len(split.test) == report.split["test"]
    board = read_csv(run, "leaderboard.csv")
    every = json.loads((run.path / "evaluations.json").read_text("utf-8"))
    assert list(every) == [row["name"] for row in board] and len(every) == 4

    # Every head, on the rows that it did not learn from.
    val = [part.val for part in parts]
    truth = data.y[np.concatenate(val)]
    for row in board:
        own = [head for name, head in heads.items() if name.startswith(row["name"])]
        outputs = logits(own, data.x, val)
        found = every[row["name"]]
        assert found["accuracy"] == pytest.approx(accuracy_score(truth, outputs.argmax(1)))
        assert found["confusion_matrix"] == confusion_matrix(truth, outputs.argmax(1)).tolist()
        assert float(row["val_ece"]) == pytest.approx(measure_calibration(truth, outputs, "classification").ece)
        temperature = fit_temperature(truth, outputs, "classification")  # None for a head that knows nothing yet
        assert row["val_temperature"] == "" if temperature is None else float(row["val_temperature"]) == temperature

    # The chosen head, on the test rows, with the temperature of the validation rows.
    tested, best = run.info["evaluation"]["test"], run.best
    truth, outputs = data.y[split.test], best.logits(data.x[split.test])
    assert tested["temperature"] == run.info["evaluation"]["val"]["temperature"] == report.best["temperature"]
    assert tested["temperature"] == pytest.approx(float(board[0]["val_temperature"]))
    assert tested["temperature"] != pytest.approx(fit_temperature(truth, outputs, "classification"))
    predicted = outputs.argmax(1)
    assert tested["accuracy"] == report.best["test_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert tested["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert tested["loss"] == pytest.approx(log_loss(truth, best.predict_proba(data.x[split.test])), rel=1e-5)
    assert tested["accuracy_interval"] == report.best["test_accuracy_interval"]
    for one, *theirs in zip(tested["per_class"], *precision_recall_fscore_support(truth, predicted), strict=True):
        assert [one["precision"], one["recall"], one["f1"], one["support"]] == pytest.approx(theirs)
    assert [one["label"] for one in tested["per_class"]] == report.classes == ["high", "low", "mid"]
    scaled = measure_calibration(truth, outputs, "classification", tested["temperature"])
    assert tested["calibration_scaled"]["ece"] == pytest.approx(scaled.ece)
    assert sum(one["rows"] for one in tested["calibration"]["bins"]) == len(truth)


def test_learning_curves_and_the_spread(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tone", lr=[1e-3, 1e-2], hidden=0, seed=[0, 1, 2], epochs=3)
    run, heads = load_run(report.run), load_heads(report.run)
    rows = read_csv(run, "history.csv")
    assert [(row["head"], row["epoch"]) for row in rows] == [(name, str(e)) for name in heads for e in (1, 2, 3)]
    for name in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1"):
        assert [float(row[name]) for row in rows] == [value for head in heads.values() for value in head.history[name]]
    for one in report.spread:
        same = [heads[name] for name in one["heads"]]
        assert len(same) == 3 and {head.spec.lr for head in same} == {one["settings"]["lr"]}
        assert one["mean"] == pytest.approx(np.mean([head.val_accuracy for head in same]))
    assert len(report.spread) == 2


def test_several_labels_a_row(cache: Path, tmp_path: Path) -> None:
    report = train_head(cache, tmp_path / "run", label="tags", hidden=8, lr=1e-2, epochs=5, val=0.2, test=0.2)
    run = load_run(report.run)
    data, split, _ = sides(cache, "tags")
    tested = run.info["evaluation"]["test"]
    truth, predicted = data.y[split.test], run.best.logits(data.x[split.test]) > 0
    assert tested["kind"] == "multilabel" and [one["label"] for one in tested["per_class"]] == ["good", "high"]
    assert tested["accuracy"] == report.best["test_accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert tested["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert tested["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert sum(one["rows"] for one in tested["calibration"]["bins"]) == truth.size


def test_numbers(cache: Path, tmp_path: Path) -> None:
    report = train_head(
        cache, tmp_path / "run", label="score", task="regression", hidden=8, lr=1e-2, epochs=5, val=0.2, test=0.2
    )
    run = load_run(report.run)
    data, split, _ = sides(cache, "score", "regression")
    tested = run.info["evaluation"]["test"]
    truth, predicted = data.y[split.test].ravel(), run.best.predict(data.x[split.test])
    assert tested["r2"] == report.best["test_r2"] == pytest.approx(r2_score(truth, predicted), rel=1e-5)
    low, high = tested["r2_interval"]
    assert low < tested["r2"] < high and report.best["test_r2_interval"] == [low, high]
    row = read_csv(run, "leaderboard.csv")[0]
    rows = split.val
    residuals = data.y[rows].ravel() - run.best.predict(data.x[rows])
    assert float(row["val_rmse"]) == pytest.approx(np.sqrt((residuals**2).mean()), rel=1e-4)
