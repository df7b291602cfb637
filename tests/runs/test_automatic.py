"""What the default recipe leaves to the data, and heads that had not converged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import Task, View, train_bank
from embedcache.runs.automatic import FEW_ROWS, FOLDS, MANY_ROWS, Automatic, settle
from embedcache.runs.job import train_head
from embedcache.runs.leaderboard import make_leaderboard
from embedcache.runs.recipes import make_recipe
from tests.conftest import make_cache
from tests.runs.caches import make_labelled_cache


def settled(rows: int, *, units: int | None = None, regression: bool = False, **named: Any) -> Automatic:
    """As train_head asks for it."""
    common = {name: named.get(name) for name in ("folds", "early_stop")}
    recipe = {name: value for name, value in named.items() if name not in (*common, "split_column", "same_split")}
    settings = make_recipe("default", **recipe)
    return settle(settings, named, [rows], [rows if units is None else units], regression=regression, **common)


@pytest.mark.parametrize("rows", [60, 200, 600, 999, 1000, 4000, 12_808, 50_000])
def test_few_rows_get_many_epochs_and_folds(rows: int) -> None:
    found = settled(rows)
    assert (found.folds == FOLDS) == (rows < FEW_ROWS) and (found.settings.val == 0) == (rows < FEW_ROWS)
    steps = np.ceil(rows * (0.72 if found.folds else 0.8) / 32)
    assert found.settings.epochs == 1000 or steps * found.settings.epochs >= 1900
    assert 3 <= found.early_stop <= found.settings.epochs / 3
    assert [(spec.hidden, spec.lr) for spec in found.settings.specs()] == [
        (0, 1e-4),
        (0, 3e-4),
        (512, 1e-4),
        (512, 3e-4),
    ]
    assert f"{rows:,} rows" in found.said and f"--epochs {found.settings.epochs}" in found.said
    assert ("--folds 5" in found.said) == (rows < FEW_ROWS)


def test_epochs_fall_as_rows_grow() -> None:
    epochs = [settled(rows).settings.epochs for rows in (60, 200, 600, 2000, 10_000, 10**6)]
    assert epochs == sorted(epochs, reverse=True) and epochs[-1] == 15 and epochs[0] == 1000


def test_many_rows_are_one_head() -> None:
    assert settled(MANY_ROWS + 1).settings.specs() == [HeadSpec(lr=1e-4, class_weight="none")]


def test_named_options_win() -> None:
    assert settled(600, epochs=7).settings.epochs == 7
    for named in ({"epochs": 7}, {"epochs": 7, "hidden": [0, 8]}):
        found = settled(600, **named)
        assert (found.folds, found.early_stop, found.settings.val, found.said) == (None, 0, 0.1, "")
        assert found.settings == make_recipe("default", **named)
    assert {spec.hidden for spec in settled(600, hidden=8).settings.specs()} == {8}
    assert {spec.lr for spec in settled(600, hidden=8).settings.specs()} == {1e-4}
    assert len(settled(600, seed=[0, 1]).settings.specs()) == 8
    assert settled(600, val=0.2).folds is None and settled(600, val=0.2).settings.val == 0.2
    for side in ("split_column", "same_split"):
        assert settled(600, **{side: "x"}).folds is None
    assert settled(600, folds=3, val=0.0).folds == 3 and settled(600, early_stop=2).early_stop == 2
    assert settled(600, early_stop=0).early_stop == 0
    assert settled(5000, val=0.0).early_stop == 0  # nothing to wait for


def test_a_schedule_is_run_to_its_end() -> None:
    assert settled(600, schedule=["cosine", "constant"]).early_stop == 0


def test_what_cannot_be_cut_into_folds_is_not() -> None:
    assert settled(600, units=4).folds is None and settled(12).folds is None


def test_few_numbers_are_learnt_by_probes() -> None:
    assert {spec.hidden for spec in settled(600, regression=True).settings.specs()} == {0}
    assert {spec.hidden for spec in settled(2000, regression=True).settings.specs()} == {0, 512}


def test_a_default_run_says_and_stores_what_was_chosen(tmp_path: Path) -> None:
    cache, told = make_labelled_cache(tmp_path / "cache.h5"), []
    report = train_head(cache, tmp_path / "run", tell=told.append)
    (said,) = [note for note in report.notes if "the default for 393 rows" in note]
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["automatic"] == said and stored["settings"]["epochs"] > 100 and stored["options"]["early_stop"] > 0
    assert len(report.split["folds"]) == FOLDS and report.heads == 4 and report.split["test"] > 20
    assert report.best["epochs_run"] == report.best["best_epoch"] and report.best["test_accuracy"] > 0.9
    article = train_head(cache, tmp_path / "article", recipe="article")
    assert not any("the default" in note for note in article.notes) and article.heads == 1


def test_a_few_groups_are_not_cut_into_folds(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, films = rng.normal(size=(90, 8)).astype(np.float32), [f"film {i % 9}" for i in range(90)]
    labels = ["a" if value > 0 else "b" for value in x[:, 0]]
    cache = make_cache(
        tmp_path / "c.h5", [f"text {i}" for i in range(90)], x, {"label": labels}, columns={"film": films}
    )
    report = train_head(cache, tmp_path / "run", group="film")
    assert report.split["folds"] is None and report.split["val"] > 0


@pytest.mark.parametrize("kind", ["three unequal classes", "labels", "numbers"])
def test_a_default_run_on_sixty_rows_is_no_worse_than_knowing_the_shares(tmp_path: Path, kind: str) -> None:
    """Before: of 10 seeds on 600 such rows .40 to .50, where the majority has .65."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 384)).astype(np.float32)
    columns: dict[str, list[Any]] = {
        "three unequal classes": rng.choice(["good", "bad", "middling"], 60, p=(0.65, 0.25, 0.1)).tolist(),
        "labels": [[name for name in "abc" if rng.random() < 0.2] for _ in range(60)],
        "numbers": [f"{value:.3f}" for value in rng.normal(size=60)],
    }
    cache = make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(60)], x, {"label": columns[kind]})
    task = "regression" if kind == "numbers" else "auto"
    report = train_head(cache, tmp_path / "run", task=task, test=0.0, threads=1)
    if kind == "numbers":
        assert report.best["val_r2"] > -0.25
        return
    majority = report.baselines["majority"]
    assert report.best["val_accuracy"] > majority["val_accuracy"] - 0.08


def noisy_task(n: int, folds: int) -> list[Task]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 30)).astype(np.float32)
    y = (x[:, 0] + rng.normal(size=n) > 0).astype(np.int32)
    rows = np.arange(n)
    return [Task(View(x, y, rows[rows % folds != k]), View(x, y, rows[rows % folds == k]), 2) for k in range(folds)]


@pytest.mark.parametrize("choose", ["loss", "accuracy", "macro_f1"])
def test_folds_are_judged_at_one_epoch(choose: str) -> None:
    """The best of the mean curve; the mean of each fold's own best would be better than any head that can be had."""
    tasks = noisy_task(90, 3)
    heads = [(HeadSpec(hidden=16, lr=lr), fold) for lr in (3e-3, 3e-2) for fold in range(3)]
    result = train_bank(tasks, heads, epochs=30, early_stop=8, choose=choose, device="cpu")
    for entry in make_leaderboard(result.heads, tasks, choose):
        run = min(head.epochs_run for head in entry.heads)
        loss = np.mean([head.history["val_loss"][:run] for head in entry.heads], axis=0)
        score = np.zeros(run)
        if choose != "loss":
            score = np.mean([head.history[f"val_{choose}"][:run] for head in entry.heads], axis=0)
        epoch = min(range(run), key=lambda e: (-score[e], loss[e]))
        assert entry.best_epoch == epoch + 1 and entry.scores["val_loss"] == pytest.approx(loss[epoch])
        assert entry.scores["val_loss"] >= np.mean([min(head.history["val_loss"]) for head in entry.heads]) - 1e-12


def test_heads_that_had_not_converged_are_said(tmp_path: Path) -> None:
    cache = make_labelled_cache(tmp_path / "cache.h5")
    short = train_head(cache, tmp_path / "short", hidden=[0, 8], lr=[1e-5, 1e-2], epochs=12)
    (note,) = [note for note in short.notes if "had not converged" in note]
    assert "of 4 heads" in note and "had not converged: after 12 epochs" in note
    one = train_head(cache, tmp_path / "one", hidden=8, lr=1e-5, epochs=12)
    assert any(note.startswith("the head had not converged") for note in one.notes)
    enough = train_head(cache, tmp_path / "enough", hidden=8, lr=1e-2, epochs=200, early_stop=20)
    assert not any("converged" in note for note in enough.notes)


def test_a_loss_near_zero_is_learnt(tmp_path: Path) -> None:
    """Where classes can be told apart without a mistake the loss falls for ever."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=200)
    x = (rng.standard_normal((200, 8)) + 8 * y[:, None]).astype(np.float32)
    made = make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(200)], x, {"label": [f"c{k}" for k in y]})
    report = train_head(made, tmp_path / "run", hidden=[0], lr=[1e-2], epochs=40)
    assert report.best["best_epoch"] == 40 and report.best["val_accuracy"] == 1.0
    assert not any("converged" in note for note in report.notes)
