"""One label column of a run: its rows, what its heads learn, and what is reported and written of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from embedcache.cache import Cache
from embedcache.cache.layout import output_name
from embedcache.cache.side_by_side import vectors_of
from embedcache.cache.strings import first_rows
from embedcache.common.int8_rows import stored_type
from embedcache.common.outputs import Layer
from embedcache.common.times import Times
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import json_number
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.heads.kinds.option import Tasks, task_of
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task
from embedcache.runs.baseline_features import BaselineRows
from embedcache.runs.baselines import Fitted, run_baselines
from embedcache.runs.calibration_set import CalibrationSet, make_calibration_set
from embedcache.runs.comparisons import compare, compared_by
from embedcache.runs.data import Data, check_vectors, load_data, make_task
from embedcache.runs.hierarchy_labels import AskedHierarchy, make_hierarchy
from embedcache.runs.leaderboard import Entry, make_leaderboard, predict_rows, seed_spread
from embedcache.runs.metrics import Evaluation, evaluate
from embedcache.runs.mistakes import Judged, describe_targets, find_mistakes, value_pairs
from embedcache.runs.notes import column_notes
from embedcache.runs.predictions import StoredPredictions
from embedcache.runs.recipes import Recipe
from embedcache.runs.resume import task_digest
from embedcache.runs.sides import Dealing, deal
from embedcache.runs.split import SIDES, Split, make_folds, rows_digest
from embedcache.runs.thresholds import find_thresholds
from embedcache.runs.warm_start import EarlierRun, check_unseen, warm_start

TOP = 10  # rows of the leaderboard in a report; leaderboard.csv has all


@dataclass(frozen=True)
class Plan:
    """What was asked for, the same for every label column."""

    recipe: str
    settings: Recipe
    specs: list[HeadSpec]
    task: Tasks
    pooling: str | None
    layer: Layer
    group: str | None
    folds: int | None
    dealing: Dealing
    choose: str  # loss, accuracy, macro_f1 or r2
    automatic: str = ""  # what was chosen for the data, in words
    weight: str | None = None  # the column of the rows' weights
    earlier: EarlierRun | None = None  # whose best heads all heads start from
    others: tuple[tuple[str, Layer], ...] = ()  # vectors that heads read beside those of pooling and layer
    hierarchy: AskedHierarchy | None = None

    @property
    def class_weight(self) -> str:
        """How the validation loss that compares all heads is weighted: "balanced" only where every head trains so."""
        return "balanced" if all(spec.class_weight == "balanced" for spec in self.specs) else "none"


@dataclass
class ColumnReport:
    """What became of one label column. Scores are None where a side is empty."""

    label: str
    kind: str  # classification, multilabel or regression
    classes: list[str]
    split: dict[str, Any]  # rows of each side, what was special, how it was dealt: see docs/splits.md
    best: dict[str, Any]  # name, hyperparameters, epochs, scores on val and test
    evaluation: dict[str, dict[str, Any] | None]  # of the best head on val and test: metrics.Evaluation
    baselines: dict[str, dict[str, Any]]
    comparisons: list[dict[str, Any]]  # the best head less each baseline: comparisons.compare
    leaderboard: list[dict[str, Any]]  # the first ten
    spread: list[dict[str, Any]]  # what the seed alone changes: leaderboard.Spread
    notes: list[str]


class Column:
    """One label column, ready to be trained. Raises EmbedcacheError for data that cannot be used.

    Attributes: data, with the vectors that the best head reads, once there is one; hierarchy, of its classes, or None;
    inputs, the same with each of the vectors that heads read; split; sides, what is trained and validated on: the split
    itself, or its folds; tasks, of each input one a side.
    """

    has_vectors = True  # data.x has what the heads read

    def __init__(self, cache: Cache, label: str | None, plan: Plan, first: Column | None = None) -> None:
        self.cache, self.plan = cache, plan
        task = task_of(plan.task, label or "")
        self.data = load_data(cache, label, plan.pooling, plan.layer, plan.group, task, plan.weight)
        self.hierarchy = make_hierarchy(cache, self.data, plan.hierarchy)
        if first is not None:
            self.data.x, self.data.finite = first.data.x, first.data.finite  # one matrix for all columns
        self.inputs = [self.data, *(self._reading(*output) for output in plan.others)]
        settings = plan.settings
        self.split, self._dealt = deal(cache, self.data, plan.dealing, settings.val, settings.test)
        for data in self.inputs:
            check_vectors(cache, data, np.concatenate([self.split.train, self.split.val, self.split.test]))
        self.sides = self._folds() if plan.folds else [self.split]
        if plan.earlier is not None:
            check_unseen(plan.earlier, cache, self.label, self.sides, self.split.test)
        self.tasks = [self.task(side, data) for data in self.inputs for side in self.sides]

    def _reading(self, pooling: str, layer: Layer) -> Data:
        """The same column with other vectors."""
        return replace(self.data, x=vectors_of(self.cache, pooling, layer), pooling=pooling, layer=layer, finite=None)

    @property
    def label(self) -> str:
        return self.data.label

    @property
    def kind(self) -> str:
        return self.data.kind

    @property
    def choose(self) -> str:
        """What chooses among this column's heads: the loss where the choice is for columns of another kind."""
        return self.plan.choose if self.plan.choose in kind_of(self.kind).choices else "loss"

    @property
    def compared_by(self) -> str:
        """The metric in which a head must beat the baselines."""
        return compared_by(self.kind, self.choose, self.plan.class_weight == "balanced")

    def task(self, side: Split, data: Data | None = None) -> Task:
        """data: one of the inputs; None: what the best head reads."""
        task = make_task(data or self.data, side, self.plan.settings.standardize, self.plan.class_weight)
        if self.plan.earlier is not None:
            task.start = warm_start(self.plan.earlier.column(self.label).best, task, self.data.classes)
        return task

    def _folds(self) -> list[Split]:
        codes, classes = np.full_like(self.data.codes, -1), kind_of(self.kind).exclusive
        codes[self.split.train] = self.data.codes[self.split.train]
        return make_folds(codes, self.cache.hashes, self.data.keys, folds=self.plan.folds or 0, stratify=classes)

    def digests(self) -> list[str]:
        """What each task is known by when heads are looked for that need no second training."""
        about = {"cache": self.cache.fingerprint, "label": self.label, "classes": self.data.classes}
        read = [{"pooling": data.pooling, "layer": data.layer} for data in self.inputs for _ in self.sides]
        hashes = self.cache.hashes
        return [task_digest(task, hashes, {**about, **one}) for task, one in zip(self.tasks, read, strict=True)]

    def rank(self, heads: Sequence[TrainedHead]) -> list[Entry]:
        """The trained heads, one for every combination and task, best first. Raises EmbedcacheError without any."""
        names, folds = [output_name((data.pooling, data.layer)) for data in self.inputs], len(self.sides)
        for i, head in enumerate(heads):
            head.classes = self.data.classes
            head.reads = names[i // folds % len(names)] if len(names) > 1 else None
        entries = make_leaderboard(heads, self.tasks, self.choose, len(self.inputs), self.hierarchy)
        if entries[0].status != "ok":
            raise EmbedcacheError(
                f"every head of {self.label!r} diverged (the loss exploded), {len(entries):,} in all: give a lower --lr"
            )
        self.data = self.inputs[entries[0].input]
        return entries

    def report(
        self, entries: Sequence[Entry], best: TrainedHead, judged: dict[str, Judged], times: Times
    ) -> ColumnReport:
        """Score the best head, the baselines beside it. judged: of this column's."""
        data, winner = self.data, entries[0]
        val = winner.evaluation
        with times.of("evaluation"):
            test = self._test(judged, val.temperature if val else None)
        with times.of("baselines"):
            baselines = run_baselines(self._rows())
        with times.of("evaluation"):
            comparisons = self._compare(judged, baselines)
        report = ColumnReport(
            label=data.label,
            kind=self.kind,
            classes=data.classes,
            split=self._split_report(),
            best=self._best_report(winner, best, val, test),
            evaluation={"val": val.to_dict() if val else None, "test": test.to_dict() if test else None},
            baselines={name: one.scores for name, one in baselines.items()},
            comparisons=comparisons,
            leaderboard=[entry.row(i + 1) for i, entry in enumerate(entries[:TOP])],
            spread=[asdict(one) for one in seed_spread(entries)],
            notes=[],
        )
        report.notes = column_notes(self, entries, report, judged)
        return report

    def _rows(self) -> BaselineRows:
        """What the baselines learn from: what the heads learn from."""
        data, plan = self.data, self.plan
        folds = self.sides if plan.folds else ()
        balanced = plan.class_weight == "balanced"
        every = (self.cache.texts, data.x, data.y, self.split, self.kind, folds, balanced, self.choose)
        return BaselineRows(*every, standardize=plan.settings.standardize, weight=data.weight)

    def _compare(self, judged: dict[str, Judged], baselines: dict[str, Fitted]) -> list[dict[str, Any]]:
        """On the test rows, where there are any, else on the validation rows."""
        side = "test" if "test" in judged else "val"
        if side not in judged:
            return []
        one = judged[side]
        return compare(
            side, one.y, kind_of(self.kind).decide(one.outputs), baselines, self.kind, self._groups(one.rows)
        )

    def _groups(self, rows: np.ndarray) -> np.ndarray | None:
        """int64 [n]: equal for rows of one group; None without --group."""
        return None if self.data.keys is None else first_rows(np.ascontiguousarray(self.data.keys[rows]))

    def _test(self, judged: dict[str, Judged], temperature: float | None) -> Evaluation | None:
        """The best head's evaluation on the test rows, which are used this one time."""
        if "test" not in judged:
            return None
        data, one = self.data, judged["test"]
        groups = self._groups(one.rows)
        how: dict[str, Any] = {"temperature": temperature, "interval": True, "groups": groups}
        return evaluate(one.y, one.outputs, data.classes, data.kind, **how, hierarchy=self.hierarchy)

    def examples(self, judged: dict[str, Judged]) -> dict[str, Any]:
        """What run.json keeps of single rows, of "test" and "val" (folds: by the head that did not learn from the row).

        targets: mistakes.describe_targets of each side; mistakes; a regression's pairs; the labels' thresholds.
        """
        data = self.data
        sides = {side: data.y[getattr(self.split, side)] for side in SIDES}
        found: dict[str, Any] = {"targets": {side: describe_targets(y, data.kind) for side, y in sides.items()}}
        found["mistakes"] = {
            side: find_mistakes(one, data.classes, data.kind, self.cache.hashes) for side, one in judged.items()
        }
        kind = kind_of(data.kind)
        if not kind.has_classes:
            found["pairs"] = {side: value_pairs(one) for side, one in judged.items()}
        if thresholds := find_thresholds(judged, data.classes, data.kind, self.compared_by):
            found["thresholds"] = thresholds
        return found

    def calibration_set(self, judged: dict[str, Judged]) -> CalibrationSet | None:
        """What predictions are measured by later; None of numbers, and without validation rows."""
        if "val" not in judged or not kind_of(self.kind).has_classes:
            return None
        one, x = judged["val"], self.data.x if self.has_vectors else None
        return make_calibration_set(one, x, self.split.train, self.sides, self._groups(one.rows))

    def judged(self, winner: Entry, best: TrainedHead) -> dict[str, Judged]:
        """The sides that have rows."""
        x, y, test = self.data.x, self.data.y, self.split.test
        parts = [(head, side.val) for head, side in zip(winner.heads, self.sides, strict=True) if len(side.val)]
        judged = {}
        if parts:
            rows = np.concatenate([rows for _, rows in parts])
            outputs = winner.outputs  # of the ranking
            if outputs is None:
                outputs = np.concatenate([predict_rows([head], x, rows)[0] for head, rows in parts])
            judged["val"] = Judged(rows, y[rows], outputs)
        if len(test):
            judged["test"] = Judged(test, y[test], predict_rows([best], x, test)[0])
        return judged

    def predictions(self, judged: dict[str, Judged]) -> StoredPredictions:
        """What predictions.parquet holds."""
        data, classes = self.data, len(self.data.classes)
        rows = [np.zeros(0, np.int64), *(one.rows for one in judged.values())]
        outputs = [np.zeros((0, classes), np.float32), *(one.outputs for one in judged.values())]
        fold = np.full(sum(map(len, rows)), -1)
        if self.plan.folds and "val" in judged:  # the first in judged
            fold[: len(judged["val"].rows)] = np.repeat(np.arange(len(self.sides)), [len(s.val) for s in self.sides])
        side = self.split.codes(self.cache.rows)
        ids, hashes = self.cache.ids, self.cache.hashes
        every = (data.kind, data.classes, side, hashes, ids, data.y, np.concatenate(rows), np.concatenate(outputs))
        return StoredPredictions(*every, fold, data.groups, data.keys)

    def _split_report(self) -> dict[str, Any]:
        split = self.split
        counts = ("unlabelled", "duplicates", "conflicts", "left_out", "unsided")
        report: dict[str, Any] = {side: len(getattr(split, side)) for side in SIDES}
        report |= {count: getattr(split, count) for count in counts}
        folds = [{"train": len(side.train), "val": len(side.val)} for side in self.sides] if self.plan.folds else None
        return {**report, "group": self.plan.group, "folds": folds, **self._dealt}

    def _best_report(
        self, winner: Entry, best: TrainedHead, val: Evaluation | None, test: Evaluation | None
    ) -> dict[str, Any]:
        kind = kind_of(self.kind)
        main = kind.main
        scores: dict[str, Any] = dict.fromkeys(("val_loss", "val_accuracy", "val_macro_f1", "test_accuracy"))
        scores |= {
            "val_loss": json_number(winner.scores["val_loss"]),
            f"val_{main}": json_number(winner.scores[f"val_{main}"]),
        }
        scores |= {f"test_{main}": test and json_number(test.scores[main])}
        for name in kind.measured:
            interval = test.intervals[name] if test else None
            scores[f"test_{name}_interval"] = None if interval is None else list(interval)
        groups = self._groups(self.split.test)
        scores["test_groups"] = None if groups is None else len(np.unique(groups))
        if not kind.has_classes:
            scores |= {"val_rmse": val and val.scores["rmse"], "test_rmse": test and test.scores["rmse"]}
        else:
            scores["val_macro_f1"] = json_number(winner.scores["val_macro_f1"])
            scores |= {f"test_{name}": test and test.scores[name] for name in ("loss", "macro_f1")}
        return {
            "name": winner.name,
            "hyperparameters": best.spec.to_dict(),
            "best_epoch": best.best_epoch,
            "epochs_run": best.epochs_run,
            "chosen_by": self.choose,
            "compared_by": self.compared_by,
            **scores,
            "temperature": val and val.temperature,
        }

    def _widths(self) -> dict[str, Any]:
        """That of each of the vectors that heads read, where there are several."""
        widths = {output_name((data.pooling, data.layer)): data.x.shape[1] for data in self.inputs}
        return {"inputs": widths} if len(widths) > 1 else {}

    def about(self, report: ColumnReport) -> dict[str, Any]:
        """What run.json says of this column."""
        digests = {side: rows_digest(getattr(self.split, side)) for side in SIDES}
        return {
            "dim": self.data.x.shape[1],
            "dtype": stored_type(self.data.x),
            "pooling": self.data.pooling,
            "layer": self.data.layer,
            **self._widths(),
            "label": self.data.label,
            "kind": self.kind,
            "classes": self.data.classes,
            **({"hierarchy": self.hierarchy.to_dict()} if self.hierarchy else {}),
            "split": {**report.split, "digests": digests},
            "best": report.best,
            "evaluation": report.evaluation,
            "baselines": report.baselines,
            "comparisons": report.comparisons,
            "spread": report.spread,
            "notes": report.notes,
        }
