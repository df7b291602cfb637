"""A run's leaderboard and learning curves, as they stand in its files."""

from __future__ import annotations

from typing import Any

from embedcache.heads.settings import Setting
from embedcache.heads.spec import SWEPT
from embedcache.runs.folder import Run
from embedcache.runs.scores import main_score
from embedcache.runs.tables import read_history, read_leaderboard

MOST_HEADS = 200  # that are listed
MOST_CURVES = 50  # heads, the best ones
MOST_EPOCHS = 500  # points of a curve
CURVES = ("train_loss", "val_loss", "val_accuracy", "val_macro_f1", "val_r2")


def read_board(run: Run) -> dict[str, dict[str, Any]]:
    """Label column -> kind, score, baselines, heads (best first), curves. Raises EmbedcacheError for a damaged file."""
    return {column: _column(one) for column, one in run.columns.items()}


def _column(run: Run) -> dict[str, Any]:
    info, kind = run.info, run.best.kind
    rows = read_leaderboard(run)
    heads = rows[:MOST_HEADS]
    best = info.get("best", {})
    return {
        "kind": kind,
        "score": f"val_{main_score(kind)}",
        "count": len(rows),
        "settings": [name for name, setting in SWEPT.items() if setting.help and _differ(rows, setting)],
        "heads": heads,
        "test": {name: value for name, value in best.items() if name.startswith("test_")},
        "baselines": info.get("baselines") or {},
        "curves": _curves(run, [str(head["name"]) for head in heads[:MOST_CURVES]]),
    }


def _curves(run: Run, names: list[str]) -> dict[str, dict[str, list[float | None]]]:
    """Head -> score -> its value in each epoch; of folds, their mean."""
    sums: dict[str, dict[str, dict[int, list[float]]]] = {name: {} for name in names}
    for row in read_history(run):
        head = sums.get(row.get("head") or "")
        if head is None:
            continue
        for score in CURVES:
            if row.get(score) is not None:
                head.setdefault(score, {}).setdefault(row["epoch"], []).append(float(row[score]))
    return {
        name: {score: _series(epochs) for score, epochs in scores.items()} for name, scores in sums.items() if scores
    }


def _series(epochs: dict[int, list[float]]) -> list[float | None]:
    last = min(max(epochs), MOST_EPOCHS)
    return [sum(epochs[i]) / len(epochs[i]) if i in epochs else None for i in range(1, last + 1)]


def _differ(rows: list[dict[str, Any]], setting: Setting) -> bool:
    return len({row.get(setting.name) for row in rows if setting.means(row)}) > 1
