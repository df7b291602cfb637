"""A run's leaderboard and learning curves, as they stand in its files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from embedcache.heads.metrics import main_score
from embedcache.heads.run import HISTORY, LEADERBOARD, Run

MOST_HEADS = 200  # that are listed
MOST_CURVES = 50  # heads, the best ones
MOST_EPOCHS = 500  # points of a curve
SETTINGS = ("hidden", "lr", "dropout", "weight_decay", "seed", "class_weight", "label_smoothing", "schedule", "warmup")
CURVES = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "val_r2")


def read_board(run: Run) -> dict[str, dict[str, Any]]:
    """Label column -> kind, score, baselines, heads (best first) and curves. Of a file that is not there: none."""
    return {column: _column(one) for column, one in run.columns.items()}


def _column(run: Run) -> dict[str, Any]:
    info, kind = run.info, run.best.kind
    rows = _read(run.path / LEADERBOARD)
    heads = [{name: _value(text) for name, text in row.items()} for row in rows[:MOST_HEADS]]
    best = info.get("best", {})
    return {
        "kind": kind,
        "score": f"val_{main_score(kind)}",
        "count": len(rows),
        "settings": [name for name in SETTINGS if _differ(rows, name)],
        "heads": heads,
        "test": {name: value for name, value in best.items() if name.startswith("test_")},
        "baselines": info.get("baselines") or {},
        "curves": _curves(run.path / HISTORY, [str(head["name"]) for head in heads[:MOST_CURVES]]),
    }


def _curves(path: Path, names: list[str]) -> dict[str, dict[str, list[float | None]]]:
    """Head -> score -> its value in each epoch; of folds, their mean."""
    sums: dict[str, dict[str, dict[int, list[float]]]] = {name: {} for name in names}
    for row in _read(path):
        head = sums.get(row.get("head", ""))
        if head is None:
            continue
        for score in CURVES:
            value = _value(row.get(score, ""))
            if isinstance(value, (int, float)):
                head.setdefault(score, {}).setdefault(int(row["epoch"]), []).append(float(value))
    return {
        name: {score: _series(epochs) for score, epochs in scores.items()} for name, scores in sums.items() if scores
    }


def _series(epochs: dict[int, list[float]]) -> list[float | None]:
    length = min(max(epochs) + 1, MOST_EPOCHS)
    return [sum(epochs[i]) / len(epochs[i]) if i in epochs else None for i in range(length)]


def _read(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def _differ(rows: list[dict[str, str]], name: str) -> bool:
    return len({row.get(name) for row in rows}) > 1


def _value(text: str | None) -> int | float | str | None:
    """A cell of a CSV as JSON has it; what is not finite is None."""
    if not text or text.lower() in ("nan", "inf", "-inf", "none"):
        return None if not text or text.lower() != "none" else "none"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
