"""A run's leaderboard and learning curves, as they stand in its files."""

from __future__ import annotations

from typing import Any

from embedcache.heads.kinds import Kind, kind_of
from embedcache.heads.settings import Setting
from embedcache.heads.train import HISTORY
from embedcache.runs.folder import Run
from embedcache.runs.scores import scores_of, title
from embedcache.runs.settings_shown import SHOWN
from embedcache.runs.tables import read_history, read_leaderboard
from embedcache.runs.wording import baseline_name

MOST_HEADS = 200  # that are listed
MOST_CURVES = 50  # heads, the best ones
MOST_EPOCHS = 500  # points of a curve
SIDES = {"train": "training", "val": "validation"}


def read_board(run: Run) -> dict[str, dict[str, Any]]:
    """Label column -> what serve.schema.BoardAnswer describes. Raises EmbedcacheError for a damaged file."""
    return {column: _column(one) for column, one in run.columns.items()}


def _column(run: Run) -> dict[str, Any]:
    info, kind = run.info, kind_of(run.best.kind)
    rows = read_leaderboard(run)
    heads = rows[:MOST_HEADS]
    best, baselines = info.get("best", {}), info.get("baselines") or {}
    settings = [name for name, setting in SHOWN.items() if setting.help and _differ(rows, setting)]
    scores, drawn = _scores(kind)
    return {
        "kind": kind.name,
        "score": f"val_{kind.main}",
        "count": len(rows),
        "settings": settings,
        "scores": [name for name in scores if any(head.get(name) is not None for head in heads)],
        "drawn": drawn,
        "titles": {name: name.replace("_", " ") for name in (*settings, "best_epoch")}
        | {name: _title(name) for name in (*scores, *drawn)}
        | {name: baseline_name(name, long=True) for name in baselines},
        "heads": heads,
        "test": {name: value for name, value in best.items() if name.startswith("test_")},
        "baselines": baselines,
        "curves": _curves(run, [str(head["name"]) for head in heads[:MOST_CURVES]]),
    }


def _scores(kind: Kind) -> tuple[list[str], list[str]]:
    """The scores that the table of heads may have, and those whose curves are drawn, in the order of both."""
    others = [one.name for one in scores_of(kind.name) if one.board]
    others += ["ece"] if kind.has_classes else []
    first = [f"val_{name}" for name in kind.shown]
    scores = [*first, "val_loss", *(f"val_{name}" for name in others)]
    return scores, [name for name in ("val_loss", *first, "train_loss") if name in HISTORY]


def _title(name: str) -> str:
    """val_macro_f1: validation macro F1."""
    side, score = name.split("_", 1)
    return f"{SIDES[side]} {'calibration error' if score == 'ece' else title(score)}"


def _curves(run: Run, names: list[str]) -> dict[str, dict[str, list[float | None]]]:
    """Head -> score -> its value in each epoch; of folds, their mean."""
    sums: dict[str, dict[str, dict[int, list[float]]]] = {name: {} for name in names}
    for row in read_history(run):
        head = sums.get(row.get("head") or "")
        if head is None:
            continue
        for score in HISTORY:
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
