"""Ranking of a trained bank: one entry per combination of settings, the mean over its folds where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedcache.heads.bank import Task
from embedcache.heads.metrics import Scores, score
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import BankResult
from embedcache.heads.trained import TrainedHead

CHUNK_ROWS = 4096
F1_BUDGET = 5e11  # multiply-adds spent on macro F1, best heads first: some ten seconds on two cores


@dataclass
class Entry:
    """One combination of settings. best_epoch counts from 0; scores are NaN or None where nothing was validated."""

    name: str
    spec: HeadSpec
    heads: list[TrainedHead]  # one per fold
    status: str
    train_loss: float
    val_loss: float
    val_accuracy: float
    best_epoch: float
    epochs_run: float
    val_macro_f1: float | None = None

    def row(self, rank: int) -> dict[str, Any]:
        """Of leaderboard.csv and of the report; None where there is no number."""
        spec = self.spec
        return {
            "rank": rank,
            "name": self.name,
            "hidden": spec.hidden,
            "lr": spec.lr,
            "dropout": spec.dropout,
            "weight_decay": spec.weight_decay,
            "seed": spec.seed,
            "val_loss": number(self.val_loss),
            "val_accuracy": number(self.val_accuracy),
            "val_macro_f1": self.val_macro_f1,
            "best_epoch": self.best_epoch,
            "epochs_run": self.epochs_run,
            "status": self.status,
        }


def make_leaderboard(result: BankResult, tasks: Sequence[Task]) -> list[Entry]:
    """Entries, best first. result.heads: for every combination, one head per task.

    The lowest validation loss wins, not the highest accuracy: it is what chose each head's epoch, and it counts by how
    much, not only how often, so it is less of a lottery on few validation rows. Without validation rows, the lowest
    last training loss. Heads that diverged come last.
    """
    folds = len(tasks)
    digits = max(3, len(str(len(result.heads) // folds - 1)))
    entries = []
    for i in range(len(result.heads) // folds):
        heads = result.heads[i * folds : (i + 1) * folds]
        bad = [head.status for head in heads if head.status != "ok"]
        entries.append(
            Entry(
                name=f"head-{i:0{digits}d}",
                spec=heads[0].spec,
                heads=heads,
                status=bad[0] if bad else "ok",
                train_loss=_mean([head.history["train_loss"][-1] if head.epochs_run else np.nan for head in heads]),
                val_loss=_mean([head.val_loss for head in heads]),
                val_accuracy=_mean([head.val_accuracy for head in heads]),
                best_epoch=_mean([head.best_epoch for head in heads]),
                epochs_run=_mean([head.epochs_run for head in heads]),
            )
        )
    entries.sort(key=_rank)
    _add_macro_f1(entries, tasks)
    return entries


def predict_rows(head: TrainedHead, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Log-probabilities float32 [n, C] of x[rows], which is copied a few rows at a time."""
    chunks = [rows[start : start + CHUNK_ROWS] for start in range(0, len(rows), CHUNK_ROWS)]
    return np.concatenate([head.predict_log_proba(x[chunk]) for chunk in chunks])


def score_rows(head: TrainedHead, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> Scores | None:
    """Scores of a head on some rows; None where there are none."""
    return score(predict_rows(head, x, rows), y[rows]) if len(rows) else None


def number(value: float) -> float | None:
    """JSON and CSV have no NaN."""
    return value if np.isfinite(value) else None


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else float(np.mean(values))


def _rank(entry: Entry) -> tuple[bool, float, float]:
    loss = entry.val_loss if np.isfinite(entry.val_loss) else entry.train_loss
    if entry.status != "ok" or not np.isfinite(loss):
        return (True, 0.0, 0.0)
    return (False, loss, -entry.val_accuracy if np.isfinite(entry.val_accuracy) else 0.0)


def _add_macro_f1(entries: Sequence[Entry], tasks: Sequence[Task]) -> None:
    """Predicts every head's validation rows once more, as far as the budget goes."""
    spent = 0.0
    for entry in entries:
        views = [task.val for task in tasks if task.val is not None]
        spent += sum(len(view.rows) for view in views) * sum(array.size for array in entry.heads[0].weights.values())
        if entry.status != "ok" or not views or spent > F1_BUDGET:
            return
        scores = [
            score(predict_rows(head, view.x, view.rows), view.y[view.rows])
            for head, view in zip(entry.heads, views, strict=True)
        ]
        entry.val_macro_f1 = _mean([one.macro_f1 for one in scores])
