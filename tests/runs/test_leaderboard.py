"""Which head comes first, and what is said of all of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

from embedcache.heads.train import BankResult, Task, View, head_grid, train_bank
from embedcache.runs import leaderboard
from embedcache.runs.leaderboard import evaluations, history_rows, make_leaderboard, predict_rows, seed_spread

N, DIM = 240, 6


def make_tasks(kind: str = "classification", folds: int = 1) -> list[Task]:
    """Tasks on one matrix; fold k is validated on every third row from k."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, DIM)).astype(np.float16)
    signal = x[:, :3].astype(np.float32) + rng.normal(size=(N, 3)).astype(np.float32)
    y: np.ndarray = signal.argmax(1).astype(np.int32)
    if kind == "multilabel":
        y = (signal > 0).astype(np.float32)
    if kind == "regression":
        y = signal[:, :1]
    rows = np.arange(N)
    sides = [(rows[rows % 3 != k], rows[rows % 3 == k]) for k in range(folds)]
    outputs = 1 if kind == "regression" else 3
    return [Task(View(x, y, train), View(x, y, val), outputs, kind=kind) for train, val in sides]


def train(tasks: list[Task], **grid: Any) -> BankResult:
    heads = [(spec, task) for spec in head_grid(**grid) for task in range(len(tasks))]
    return train_bank(tasks, heads, epochs=4)


@pytest.mark.parametrize("folds", [1, 3])
@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_best_first_with_the_means_over_the_folds(kind: str, folds: int) -> None:
    tasks = make_tasks(kind, folds)
    result = train(tasks, hidden=[0, 8], lr=[1e-3, 1e-2])
    entries = make_leaderboard(result.heads, tasks)
    assert sorted(entry.name for entry in entries) == [f"head-{i:03d}" for i in range(4)]
    losses = [entry.scores["val_loss"] for entry in entries]
    assert losses == sorted(losses)
    for entry in entries:
        heads = result.heads[int(entry.name[-3:]) * folds :][:folds]
        assert entry.heads == heads and entry.kind == kind
        for name in ("val_loss", "val_accuracy", "val_macro_f1"):
            mean = np.mean([head.history[name][head.best_epoch - 1] for head in heads])
            assert entry.scores[name] == pytest.approx(mean) and entry.row(1)[name] == pytest.approx(mean)
        assert entry.scores["train_loss"] == pytest.approx(np.mean([head.history["train_loss"][-1] for head in heads]))
        assert np.isnan(entry.scores["val_r2"]) and "val_r2" not in entry.row(1)


@pytest.mark.parametrize("folds", [1, 3])
def test_a_head_is_evaluated_on_rows_it_did_not_train_on(folds: int) -> None:
    tasks = make_tasks(folds=folds)
    entry = make_leaderboard(train(tasks, hidden=8, lr=1e-2).heads, tasks)[0]
    found = entry.evaluation
    assert found is not None and found.rows == N // 3 * folds
    truth = np.concatenate([task.val.y[task.val.rows] for task in tasks])  # type: ignore[union-attr]
    proba = np.concatenate(
        [
            head.predict_proba(task.val.x[task.val.rows])  # type: ignore[union-attr]
            for head, task in zip(entry.heads, tasks, strict=True)
        ]
    )
    assert found.scores["accuracy"] == pytest.approx(accuracy_score(truth, proba.argmax(1)))
    assert found.scores["macro_f1"] == pytest.approx(f1_score(truth, proba.argmax(1), average="macro"))
    assert found.scores["loss"] == pytest.approx(log_loss(truth, proba), rel=1e-5)
    assert found.temperature is not None and found.scaled is not None and found.calibration is not None
    assert found.scaled.loss < found.calibration.loss
    row = entry.row(3)
    assert row["rank"] == 3 and row["val_ece"] == found.calibration.ece and row["val_brier"] == found.calibration.brier
    assert row["val_temperature"] == found.temperature
    if folds == 1:
        assert found.scores["accuracy"] == pytest.approx(entry.scores["val_accuracy"])
        assert found.scores["macro_f1"] == pytest.approx(entry.scores["val_macro_f1"])


@pytest.mark.parametrize("folds", [1, 2])
def test_regression_has_r2_in_place_of_classes(folds: int) -> None:
    tasks = make_tasks("regression", folds)
    for task in tasks:
        task.target_mean, task.target_std = np.array([50.0]), np.array([7.0])
    entries = make_leaderboard(train(tasks, hidden=8, lr=[1e-3, 1e-2], seed=[0, 1]).heads, tasks)
    row, found = entries[0].row(1), entries[0].evaluation
    assert row["val_r2"] == entries[0].main_score > 0.05
    assert not {"val_accuracy", "val_macro_f1", "val_ece"} & set(row)
    assert [spread.score for spread in seed_spread(entries)] == ["r2", "r2"]
    assert found is not None and found.rows == N // 3 * folds
    assert row["val_rmse"] == found.scores["rmse"] and 4 < row["val_mae"] < row["val_rmse"] < 14  # in the label's unit
    assert row["val_spearman"] > 0.2 and evaluations(entries)[entries[0].name]["rmse"] == row["val_rmse"]
    if folds == 1:
        assert found.scores["r2"] == pytest.approx(row["val_r2"], rel=1e-4)


def test_diverged_heads_come_last_and_without_numbers() -> None:
    tasks = make_tasks()
    entries = make_leaderboard(train(tasks, hidden=4, lr=[1e30, 1e-2], seed=[0, 1]).heads, tasks)
    assert [entry.status for entry in entries] == ["ok", "ok", "diverged", "diverged"]
    last = entries[3].row(4)
    assert last["val_loss"] is last["val_accuracy"] is last["val_ece"] is last["val_temperature"] is None
    assert [spread.heads for spread in seed_spread(entries)] == [[entry.name for entry in entries[:2]]]


def test_without_validation_the_training_loss_ranks() -> None:
    tasks = make_tasks()
    tasks[0].val = None
    entries = make_leaderboard(train(tasks, hidden=4, lr=[1e-4, 1e-2]).heads, tasks)
    assert entries[0].spec.lr == 1e-2 and entries[0].evaluation is None
    assert entries[0].row(1)["val_accuracy"] is None and seed_spread(entries) == []


def test_rows_name_every_setting() -> None:
    tasks = make_tasks()
    heads = train(tasks, hidden=4, schedule="cosine", warmup=0.1, class_weight="balanced", label_smoothing=0.2).heads
    row = make_leaderboard(heads, tasks)[0].row(1)
    assert (row["schedule"], row["warmup"], row["class_weight"], row["label_smoothing"]) == (
        "cosine",
        0.1,
        "balanced",
        0.2,
    )


def test_spread_over_seeds() -> None:
    tasks = make_tasks()
    entries = make_leaderboard(train(tasks, hidden=[0, 4], lr=1e-2, seed=range(5)).heads, tasks)
    spreads = seed_spread(entries)
    assert [spread.settings["hidden"] for spread in spreads] == list(
        dict.fromkeys(entry.spec.hidden for entry in entries)
    )
    for spread in spreads:
        same = [entry for entry in entries if entry.spec.hidden == spread.settings["hidden"]]
        values = [entry.scores["val_accuracy"] for entry in same]
        assert spread.heads == [entry.name for entry in same] and "seed" not in spread.settings
        assert (spread.mean, spread.std) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
        assert (spread.min, spread.max) == (min(values), max(values))
        assert spread.to_dict()["score"] == "accuracy"
    assert seed_spread(entries[:1]) == []


def test_learning_curves() -> None:
    tasks = make_tasks(folds=2)
    result = train(tasks, hidden=4, lr=[1e-2, 1e-3])
    rows = list(history_rows(make_leaderboard(result.heads, tasks)))
    assert [(row["head"], row["fold"], row["epoch"]) for row in rows] == [
        (f"head-{i:03d}", fold, epoch) for i in range(2) for fold in range(2) for epoch in (1, 2, 3, 4)
    ]
    for name in ("train_loss", "val_loss", "val_accuracy", "val_macro_f1"):
        assert [row[name] for row in rows] == result.history[name].ravel().tolist()
    assert rows[0]["val_r2"] is None


def test_rows_are_predicted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaderboard, "CHUNK_ROWS", 7)
    tasks = make_tasks()
    heads = train(tasks, hidden=[0, 4]).heads
    rows = np.array([5, 3, 3, *range(100, 130)])
    for head, outputs in zip(heads, predict_rows(heads, tasks[0].train.x, rows), strict=True):
        np.testing.assert_allclose(outputs, head.logits(tasks[0].train.x[rows]), rtol=1e-5, atol=1e-6)


def test_the_budget_bounds_what_is_evaluated_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_tasks()
    heads = train(tasks, hidden=[0, 4], lr=[1e-2, 1e-3]).heads
    whole = make_leaderboard(heads, tasks)
    monkeypatch.setattr(leaderboard, "OUTPUTS", 1)  # head by head
    one_by_one = make_leaderboard(heads, tasks)
    assert [entry.row(1) for entry in one_by_one] == [entry.row(1) for entry in whole]
    assert all(entry.evaluation for entry in whole)
    monkeypatch.setattr(leaderboard, "BUDGET", 0.0)
    assert [entry.evaluation is not None for entry in make_leaderboard(heads, tasks)] == [True, False, False, False]


def test_evaluations_of_all_heads_for_the_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = make_tasks()
    entries = make_leaderboard(train(tasks, hidden=[0, 4], lr=1e-2).heads, tasks)
    found = json.loads(json.dumps(evaluations(entries), allow_nan=False))
    assert list(found) == [entry.name for entry in entries]
    one = found[entries[1].name]
    assert one["macro_f1"] == pytest.approx(entries[1].scores["val_macro_f1"]) and one["rows"] == N // 3
    assert np.array(one["confusion_matrix"]).sum() == N // 3 and "bins" not in one["calibration"]
    assert [cls["label"] for cls in one["per_class"]] == ["0", "1", "2"]
    assert found[entries[0].name]["temperature"] == pytest.approx(entries[0].row(1)["val_temperature"])
    monkeypatch.setattr(leaderboard, "MAX_VALUES", 30)  # one head has 3 * 5 + 9 of them
    assert list(evaluations(entries)) == [entries[0].name]
