"""What becomes of a training: ranked heads, the best one judged beside its baselines, the report, the run's folder."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from embedcache import __version__
from embedcache.cache import Cache
from embedcache.cache.notes import data_notes
from embedcache.cache.tokens import reading_of
from embedcache.common.outputs import Layer
from embedcache.common.progress import Progress
from embedcache.common.reading import Reading
from embedcache.common.times import Times
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds.option import spelled
from embedcache.heads.spec import SWEPT
from embedcache.labelling.opened import notes_of
from embedcache.runs.calibration_set import CalibrationSet
from embedcache.runs.column import Column, ColumnReport, Plan
from embedcache.runs.leaderboard import Entry, evaluations, history_rows
from embedcache.runs.predictions import StoredPredictions
from embedcache.runs.resume import remove_unfinished, save_unfinished
from embedcache.runs.sweep import why_fewer
from embedcache.runs.trainer import Bank, Trainer
from embedcache.runs.write_folder import RunFiles, write_columns, write_run

PACKAGES = ("numpy", "scikit-learn", "torch", "safetensors", "h5py")


@dataclass
class HeadReport(ColumnReport):
    """What train_head did; to_dict() is what --json prints. The inherited fields are those of the first column."""

    run: str
    heads: int  # combinations of settings, summed over the columns
    kept: int  # of the trained heads, folds counted, those that --resume found
    engine: str
    train_seconds: float  # the training alone
    head_rows_per_second: float  # training rows x epochs, summed over the heads trained now, by train_seconds
    pooling: str
    layer: Layer
    recipe: str
    seconds: float  # everything
    columns: dict[str, ColumnReport]
    labels_from: dict[str, Any] | None  # the journal that was read, see docs/labelling.md

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without NaN."""
        return asdict(self)


@dataclass
class Job:
    """One training job, planned and checked."""

    cache: Cache
    trainer: Trainer
    run: Path
    times: Times

    @cached_property
    def reading(self) -> Reading:
        """What the encoder reads of the texts."""
        return reading_of(self.cache)

    def execute(self, resume: bool, progress: Progress | None, start: float) -> HeadReport:
        """Train, rank, test, compare with the baselines, write."""
        with self.times.of("training"):
            bank = self.trainer.train(resume, progress)
        try:
            results = [self._result(column, bank) for column in self.trainer.columns]
            report = self._report(results, bank, start)
            self.cache.check_whole()
            self._write_or_keep(results, report, bank)
        except KeyboardInterrupt:
            raise self.trainer.interrupted(bank.by_identity(), len(bank.by_identity())) from None
        remove_unfinished(self.run)
        return report

    def _result(self, column: Column, bank: Bank) -> Result:
        """The ranked heads, the best one (trained again after folds) and the report."""
        times = self.times
        with times.of("evaluation"):
            entries = column.rank(bank.heads[column.label])
        with times.of("training"):
            best = self.trainer.train_again(column, entries[0]) if column.plan.folds else entries[0].heads[0]
        with times.of("evaluation"):
            judged = column.judged(entries[0], best)
        report = column.report(entries, best, judged, times)
        with times.of("evaluation"):
            kept = column.predictions(judged), column.calibration_set(judged)
            return Result(column, entries, best, report, column.examples(judged), *kept)

    def _report(self, results: Sequence[Result], bank: Bank, start: float) -> HeadReport:
        first, plan = results[0], self.trainer.plan
        said = notes_of(self.cache.labels_from) + ([plan.automatic] if plan.automatic else [])
        notes = [*said, *_draw_notes(plan), *bank.notes, *first.report.notes]
        first.report.notes = [*notes, *data_notes(self.cache, [one.column.label for one in results])]
        return HeadReport(
            **vars(first.report),
            run=str(self.run),
            heads=sum(len(result.entries) for result in results),
            kept=bank.kept,
            engine=bank.engine,
            train_seconds=bank.seconds,
            head_rows_per_second=bank.rows / max(bank.seconds, 1e-9),
            pooling=first.column.data.pooling,
            layer=first.column.data.layer,
            recipe=plan.recipe,
            seconds=time.perf_counter() - start,
            columns={result.column.label: result.report for result in results},
            labels_from=self.cache.labels_from,
        )

    def _write_or_keep(self, results: Sequence[Result], report: HeadReport, bank: Bank) -> None:
        """Where the run cannot be written, what was trained is kept for --resume."""
        try:
            self._write(results, report, bank)
        except EmbedcacheError as error:
            heads = bank.by_identity()
            path = save_unfinished(self.run, heads, self.cache.labels_from)
            raise EmbedcacheError(
                f"{error}; the {len(heads):,} trained heads are kept in {path}: make room, then the same command with "
                "--resume writes the run"
            ) from error

    def _write(self, results: Sequence[Result], report: HeadReport, bank: Bank) -> None:
        """The run directory. run.json holds what is needed to do it all again."""
        info = {
            "embedcache": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cache": {
                "path": str(self.cache.path),
                "fingerprint": self.cache.fingerprint,
                "rows": self.cache.rows,
                "text_column": self.cache.text_column,
            },
            "labels_from": report.labels_from,
            "encoder": self.cache.encoder,
            "reading": self.reading.to_dict(),
            "recipe": report.recipe,
            "settings": self.trainer.plan.settings.to_dict(),
            "automatic": self.trainer.plan.automatic or None,
            "options": {**_dealt(self.trainer.plan), **asdict(self.trainer.options)},
            "engine": bank.engine,
            "train_seconds": bank.seconds,
            "seconds": report.seconds,
            "times": self.times.seconds,
            "head_rows_per_second": report.head_rows_per_second,
            "kept": bank.kept,
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        }
        contents = {result.column.label: self.contents(result, bank, info) for result in results}
        if len(contents) == 1:
            write_run(self.run, next(iter(contents.values())))
        else:
            write_columns(self.run, info, contents)

    def contents(self, result: Result, bank: Bank, info: dict[str, Any]) -> RunFiles:
        """The run directory of one column; info: what all columns share."""
        return column_files(result, bank, info)


@dataclass
class Result:
    """What became of one column."""

    column: Column
    entries: list[Entry]
    best: TrainedHead
    report: ColumnReport
    examples: dict[str, Any]
    predictions: StoredPredictions
    calibration_set: CalibrationSet | None


def column_files(result: Result, bank: Bank, info: dict[str, Any]) -> RunFiles:
    """The run directory of one column; info: what all columns share."""
    column = result.column
    ordered = sorted(result.entries, key=lambda entry: entry.name)
    heads = {
        f"{entry.name}/fold-{fold}" if column.plan.folds else entry.name: head
        for entry in ordered
        for fold, head in enumerate(entry.heads)
    }
    about = {
        **info,
        **column.about(result.report),
        **result.examples,
        "identities": dict(zip(heads, bank.identities[column.label], strict=True)),
    }
    leaderboard = [entry.row(i + 1) for i, entry in enumerate(result.entries)]
    history, found = list(history_rows(ordered)), evaluations(result.entries)
    kept = result.predictions, result.calibration_set
    return RunFiles(about, result.best, heads, leaderboard, history, found, *kept)


def _dealt(plan: Plan) -> dict[str, Any]:
    """The options that chose the tasks, the split and the head."""
    dealing = plan.dealing
    split = {"split": dealing.seed, "split_column": dealing.column, "same_split": dealing.run}
    others = {"weight": plan.weight, "hierarchy": plan.hierarchy and plan.hierarchy.spelled}
    others |= {"from": None if plan.earlier is None else str(plan.earlier.run.path)}
    named = {name: value for name, value in others.items() if value is not None}
    return {"task": spelled(plan.task), "choose": plan.choose, **split, **named}


def _draw_notes(plan: Plan) -> list[str]:
    settings, notes = plan.settings, []
    drawn, every = len(plan.specs) // len(set(settings.seed)), settings.combinations()
    if settings.random > drawn:
        notes = [f"--random {settings.random:,}: there are only {drawn:,} combinations, and all of them were trained"]
    if every is not None and every > len(plan.specs) and (notes or not settings.random):
        notes.append(
            f"{every:,} combinations are {len(plan.specs):,} different heads: "
            + why_fewer({name: getattr(settings, name) for name in SWEPT})
        )
    return notes
