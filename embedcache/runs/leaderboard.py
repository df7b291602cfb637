"""Ranking of a trained bank: one entry per combination of settings, over its folds where there are any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedcache.common.int8_rows import Matrix
from embedcache.heads.arrays import json_number
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View
from embedcache.heads.train import HISTORY
from embedcache.runs.calibration import fit_temperature
from embedcache.runs.hierarchy import Hierarchy
from embedcache.runs.metrics import Evaluation, evaluate
from embedcache.runs.scores import main_score, scores_of

CHUNK_ROWS = 4096
OUTPUTS = 2**26  # logits held at a time: 256 MB
# Evaluating a hundred heads of 768-512-2 on 4,000 rows takes some five seconds on two cores. Past the budget (by these
# estimates, so that the same run always evaluates the same heads) the rest of the leaderboard has no evaluation.
BUDGET = 20.0
SECONDS_PER_HEAD, SECONDS_PER_ROW, SECONDS_PER_OUTPUT, SECONDS_PER_PRODUCT = 5e-3, 4e-6, 1e-7, 2e-11
MAX_VALUES = 5_000_000  # in evaluations.json
# The training loss is still falling where the last tenth of the epochs took off so much of it, or of its whole fall (a
# rate far too low is a straight line: a tenth of the fall in every tenth). A hundredth of the first loss is learned:
# classes that can be told apart without a mistake let it fall for ever.
FALLING, STRAIGHT, NOISE, LEARNT = 0.01, 0.05, 1e-4, 0.01


@dataclass
class Entry:
    """One combination of settings.

    ``heads``: one per fold. Numbers are means over them. best_epoch counts from 1; of several folds it is the one epoch
    that is best in their mean curve: each fold's own best would flatter the head, and overstate how long to train on
    all rows. ``scores``: those of HISTORY, NaN where there is none; train_loss is the last epoch's, the others are of
    the epoch that is kept. ``evaluation``: of the validation rows (folds: of every row, by the head that did not
    train on it), with the temperature fitted there; None without such rows and past the budget. ``outputs``: the best
    entry's logits float32 [n, C] of the same rows. ``input``: the number of the vectors that it reads.
    ``hierarchy``: of the classes.
    """

    name: str
    spec: HeadSpec
    heads: list[TrainedHead]
    status: str
    scores: dict[str, float]
    best_epoch: float
    epochs_run: float
    evaluation: Evaluation | None = None
    outputs: np.ndarray | None = None
    input: int = 0
    hierarchy: Hierarchy | None = None

    def converged(self, epochs: int) -> bool:
        """False where the last of so many epochs is the best and the training loss was still clearly falling there."""
        if self.status != "ok" or min(head.epochs_run for head in self.heads) < epochs:
            return True  # it stopped early, or diverged
        loss = np.mean([head.history["train_loss"][:epochs] for head in self.heads], axis=0)
        if self.best_epoch < epochs or epochs == 1:
            return self.best_epoch < epochs
        if loss[-1] <= LEARNT * loss[0]:
            return True
        fell, whole = loss[-1 - max(1, epochs // 10)] - loss[-1], loss[0] - loss[-1]
        return bool(fell <= max(NOISE * loss[-1], min(FALLING * loss[-1], STRAIGHT * whole)))

    @property
    def kind(self) -> str:
        return self.heads[0].kind

    @property
    def main_score(self) -> float:
        """The validation accuracy or r2."""
        return self.scores[f"val_{main_score(self.kind)}"]

    def row(self, rank: int) -> dict[str, Any]:
        """A line of leaderboard.csv and of the report; None where there is no number."""
        row = {"rank": rank, "name": self.name, **self.heads[0].settings()}
        kind = kind_of(self.kind)
        row |= {f"val_{name}": json_number(self.scores[f"val_{name}"]) for name in ("loss", *kind.shown)}
        found = self.evaluation
        others = [one.name for one in scores_of(self.kind) if one.board]
        row |= {f"val_{name}": found and json_number(found.scores[name]) for name in others}
        for i, level in enumerate(self.hierarchy.levels if self.hierarchy else ()):
            row[f"val_accuracy_{level}"] = found and found.levels and found.levels.levels[i].accuracy
        if self.hierarchy is not None:
            row["val_hierarchical_f1"] = found and found.levels and found.levels.hierarchical_f1
        if kind.has_classes:
            row["val_ece"] = found and found.calibration and found.calibration.ece
            row["val_brier"] = found and found.calibration and found.calibration.brier
            row["val_temperature"] = found and found.temperature
        return row | {"best_epoch": self.best_epoch, "epochs_run": self.epochs_run, "status": self.status}


@dataclass(frozen=True)
class Spread:
    """What the seed alone changes: validation scores of heads that differ in nothing else, best head first.

    ``score``: accuracy or r2; ``std``: of a sample (n - 1).
    """

    settings: dict[str, Any]
    heads: list[str]
    score: str
    mean: float
    std: float
    min: float
    max: float

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def make_leaderboard(
    heads: Sequence[TrainedHead],
    tasks: Sequence[Task],
    choose: str = "loss",
    inputs: int = 1,
    hierarchy: Hierarchy | None = None,
) -> list[Entry]:
    """Entries, best first. heads: for every combination, one per task (tasks that are not folds: rank them apart).

    ``inputs``: how many vectors there are to read; the tasks are those of the first, then of the next, and so on.
    ``hierarchy``: of the classes.

    ``choose``: "loss", the lowest on the validation rows wins: it counts by how much a head is wrong, not only how
    often, so it is less of a lottery on few rows; or "accuracy", "macro_f1" or "r2", the highest wins, of equal ones
    the lowest loss. Without validation rows, the lowest last training loss. Heads that diverged come last.
    """
    folds = len(tasks) // inputs
    digits = max(3, len(str(len(heads) // folds - 1)))
    entries = [
        _entry(f"head-{i:0{digits}d}", heads[i * folds : (i + 1) * folds], choose) for i in range(len(heads) // folds)
    ]
    for i, entry in enumerate(entries):
        entry.input, entry.hierarchy = i % inputs, hierarchy
    entries.sort(key=lambda entry: _rank(entry, choose))
    _evaluate(entries, [tasks[i * folds : (i + 1) * folds] for i in range(inputs)])
    return entries


def seed_spread(entries: Sequence[Entry]) -> list[Spread]:
    """For all settings that were trained with several seeds, in the order of their best heads."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.status == "ok":
            groups.setdefault(repr(_without_seed(entry)), []).append(entry)
    spreads = []
    for group in groups.values():
        values = np.array([entry.main_score for entry in group])
        if len(group) > 1 and np.isfinite(values).all():
            spreads.append(
                Spread(
                    settings=_without_seed(group[0]),
                    heads=[entry.name for entry in group],
                    score=main_score(group[0].kind),
                    mean=float(values.mean()),
                    std=float(values.std(ddof=1)),
                    min=float(values.min()),
                    max=float(values.max()),
                )
            )
    return spreads


def history_rows(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """The lines of history.csv, the learning curves: head, fold (from 0), epoch (from 1) and the scores of HISTORY."""
    for entry in sorted(entries, key=lambda entry: entry.name):
        for fold, head in enumerate(entry.heads):
            for epoch in range(head.epochs_run):
                values = {key: json_number(head.history[key][epoch]) for key in HISTORY if key in head.history}
                yield {"head": entry.name, "fold": fold, "epoch": epoch + 1, **values}


def evaluations(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
    """What evaluations.json holds: name -> Evaluation.to_dict() on the validation rows, best first.

    Without the calibration's bins; of many heads of many classes those that some 50 MB hold.
    """
    found: dict[str, dict[str, Any]] = {}
    values = 0
    for entry in entries:
        if entry.evaluation is not None:
            matrix = entry.evaluation.confusion_matrix
            values += 5 * len(entry.evaluation.per_class) + (0 if matrix is None else matrix.size)
            if values > MAX_VALUES and found:
                break
            found[entry.name] = entry.evaluation.to_dict(bins=False)
    return found


def predict_rows(heads: Sequence[TrainedHead], x: Matrix, rows: np.ndarray) -> list[np.ndarray]:
    """Each head's logits float32 [n, C] of x[rows]; the rows are gathered once, some at a time, for all heads."""
    known = [head.known_outputs(rows) for head in heads]
    outputs = [
        np.empty((len(rows), len(head.weights["b2"])), np.float32) if one is None else one
        for head, one in zip(heads, known, strict=True)
    ]
    todo = [(head, out) for head, out, one in zip(heads, outputs, known, strict=True) if one is None]
    for start in range(0, len(rows), CHUNK_ROWS) if todo else ():
        part = x[rows[start : start + CHUNK_ROWS]].astype(np.float32)
        for head, output in todo:
            output[start : start + CHUNK_ROWS] = head.logits(part)
    return outputs


def _entry(name: str, heads: Sequence[TrainedHead], choose: str) -> Entry:
    if len(heads) > 1 and all(head.status == "ok" and np.isfinite(head.val_loss) for head in heads):
        best, scores = _common_epoch(heads, choose)
    else:
        best = _mean([head.best_epoch for head in heads])
        scores = {key: _mean([_kept(head, key) for head in heads]) for key in HISTORY}
    scores["train_loss"] = _mean([head.history["train_loss"][-1] if head.epochs_run else np.nan for head in heads])
    bad = [head.status for head in heads if head.status != "ok"]
    return Entry(
        name=name,
        spec=heads[0].spec,
        heads=list(heads),
        status=bad[0] if bad else "ok",
        scores=scores,
        best_epoch=best,
        epochs_run=_mean([head.epochs_run for head in heads]),
    )


def _common_epoch(heads: Sequence[TrainedHead], choose: str) -> tuple[float, dict[str, float]]:
    """The epoch, from 1, that is best in the mean over the folds, and the mean scores there.

    Only epochs that every fold has run count: none stopped before its patience was over.
    """
    run = min(head.epochs_run for head in heads)
    curves = {
        key: np.array([head.history.get(key, [np.nan] * run)[:run] for head in heads], np.float64).mean(axis=0)
        for key in HISTORY
    }
    score = np.zeros(run) if choose == "loss" else np.nan_to_num(curves[f"val_{choose}"], nan=-np.inf)
    best = int(np.lexsort((curves["val_loss"], -score))[0])
    return float(best + 1), {key: float(curve[best]) for key, curve in curves.items()}


def _kept(head: TrainedHead, key: str) -> float:
    """A score of the epoch whose weights are kept."""
    return head.history[key][head.best_epoch - 1] if head.best_epoch and key in head.history else float("nan")


def _mean(values: Sequence[float]) -> float:
    return values[0] if len(values) == 1 else float(np.mean(values))


def _rank(entry: Entry, choose: str) -> tuple[bool, float, float, float]:
    loss = entry.scores["val_loss"] if np.isfinite(entry.scores["val_loss"]) else entry.scores["train_loss"]
    if entry.status != "ok" or not np.isfinite(loss):
        return (True, 0.0, 0.0, 0.0)
    score = 0.0 if choose == "loss" else entry.scores[f"val_{choose}"]
    score = score if np.isfinite(score) else 0.0
    return (False, -score, loss, -entry.main_score if np.isfinite(entry.main_score) else 0.0)


def _without_seed(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in entry.heads[0].settings().items() if name != "seed"}


def _evaluate(entries: Sequence[Entry], tasks: Sequence[Sequence[Task]]) -> None:
    """Evaluates the heads on their validation rows, best first, as far as the budget goes; the first in any case.

    tasks: of each input those of its folds, which have the same rows.
    """
    views_of = [[task.val for task in some if task.val is not None and len(task.val.rows)] for some in tasks]
    views = views_of[0]
    if len(views) < len(tasks[0]):
        return
    rows, classes = sum(len(view.rows) for view in views), tasks[0][0].classes
    y = np.concatenate([_targets(task, view) for task, view in zip(tasks[0], views, strict=True)])
    chosen: list[Entry] = []
    seconds = 0.0
    for entry in entries:
        weights = sum(array.size for array in entry.heads[0].weights.values())
        seconds += SECONDS_PER_HEAD + rows * (
            SECONDS_PER_ROW + weights * SECONDS_PER_PRODUCT + classes * SECONDS_PER_OUTPUT
        )
        if entry.status != "ok" or (chosen and seconds > BUDGET):
            break
        chosen.append(entry)
    at_once = max(1, OUTPUTS // (rows * classes))
    same_x = [[entry for entry in chosen if entry.input == number] for number in range(len(tasks))]
    for group in (some[start : start + at_once] for some in same_x for start in range(0, len(some), at_once)):
        parts = [
            predict_rows([entry.heads[fold] for entry in group], view.x, view.rows)
            for fold, view in enumerate(views_of[group[0].input])
        ]
        for i, entry in enumerate(group):
            outputs = np.concatenate([part[i] for part in parts])
            if entry is entries[0]:
                entry.outputs = outputs
            names = entry.heads[0].classes or [str(c) for c in range(classes)]
            temperature = fit_temperature(y, outputs, entry.kind) if kind_of(entry.kind).has_classes else None
            how: dict[str, Any] = {"temperature": temperature, "hierarchy": entry.hierarchy}
            entry.evaluation = evaluate(y, outputs, names, entry.kind, **how)


def _targets(task: Task, view: View) -> np.ndarray:
    """The y of a view; of a regression in the label's unit."""
    y = view.y[view.rows]
    return y if task.target_std is None else y * task.target_std + task.target_mean
