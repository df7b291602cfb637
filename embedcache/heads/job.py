"""The job of train-head: a cache in, a run directory out. Every head of the sweep is trained in one bank."""

from __future__ import annotations

import hashlib
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from embedcache import __version__
from embedcache.cache import Cache, open_cache
from embedcache.errors import EmbedcacheError
from embedcache.heads.bank import Task
from embedcache.heads.baselines import run_baselines
from embedcache.heads.data import Data, load_data, make_task
from embedcache.heads.leaderboard import Entry, make_leaderboard, number, score_rows
from embedcache.heads.metrics import accuracy_interval
from embedcache.heads.recipes import Recipe, make_recipe
from embedcache.heads.run import check_target, write_run
from embedcache.heads.spec import HeadSpec
from embedcache.heads.split import SEED, Split, article_split, check_shares, make_folds, make_split, split_notes
from embedcache.heads.train import BankResult, EngineWarning, train_bank
from embedcache.heads.trained import TrainedHead

TOP = 10  # rows of the leaderboard in a report; leaderboard.csv has all
PACKAGES = ("numpy", "scikit-learn", "torch", "safetensors", "h5py")

Progress = Callable[[int, int, int], None]
Values = Sequence[float] | float | None


@dataclass
class HeadReport:
    """What train_head did; to_dict() is what --json prints."""

    run: str
    heads: int
    engine: str
    train_seconds: float  # the training alone
    head_rows_per_second: float  # training rows x epochs, summed over heads, by train_seconds
    split: dict[str, Any]  # rows of train, val, test; unlabelled, duplicates, conflicts, left_out; group, folds
    best: dict[str, Any]  # name, hyperparameters, epochs, scores on val and test (None where a side is empty)
    baselines: dict[str, dict[str, Any]]
    leaderboard: list[dict[str, Any]]  # the first ten
    label: str
    classes: list[str]
    pooling: str
    layer: int
    recipe: str
    notes: list[str]
    seconds: float  # everything

    def to_dict(self) -> dict[str, Any]:
        """JSON types, without NaN."""
        return asdict(self)


@dataclass(frozen=True)
class Options:
    """How the heads are trained, beside the recipe; all of it goes into run.json."""

    early_stop: int
    class_weight: str
    engine: str
    device: str
    compute: str
    threads: int | None

    def bank(self) -> dict[str, Any]:
        """Keywords of train_bank."""
        return {"engine": self.engine, "device": self.device, "compute": self.compute, "threads": self.threads}


def train_head(
    cache: str | Path,
    run: str | Path,
    *,
    label: str | None = None,
    recipe: str = "default",
    hidden: Values = None,
    lr: Values = None,
    dropout: Values = None,
    weight_decay: Values = None,
    seed: Values = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    group: str | None = None,
    class_weight: str = "none",
    standardize: bool | None = None,
    early_stop: int | None = None,
    pooling: str | None = None,
    layer: int = -1,
    engine: str = "auto",
    device: str = "auto",
    compute: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> HeadReport:
    """Train a head for every combination of hidden, lr, dropout, weight_decay and seed, and write the folder ``run``.

    None takes the recipe's value. ``label``: a label column (None: "label", or the only one). ``val`` and ``test``:
    shares of the labelled rows; the lowest validation loss chooses each head's epoch and the best head, and only that
    head sees the test rows, once. ``folds``: K folds of all rows but the test's in place of ``val``: every combination
    is trained K times, the lowest mean loss wins, and one head with its settings is trained on all K folds together.
    ``group``: a kept or label column; rows with one value stay on one side. ``progress(done, total, rows)`` counts
    training rows, summed over heads. ``run`` may be a run already: it is replaced, at the very end.
    Raises EmbedcacheError for data, settings or folders that cannot do; then ``run`` is as it was.
    """
    start = time.perf_counter()
    sweep = {"hidden": hidden, "lr": lr, "dropout": dropout, "weight_decay": weight_decay, "seed": seed}
    common = {"batch_size": batch_size, "epochs": epochs, "standardize": standardize}
    settings = make_recipe(recipe, **sweep, **common, val=0.0 if folds else val, test=test)
    settings.specs()  # an unusable value is said before anything is read
    check_shares(settings.val, settings.test)
    if folds and val is not None:
        raise EmbedcacheError("--val and --folds: give one of them; folds take the place of the validation rows")
    if early_stop and not settings.val and not folds:
        raise EmbedcacheError("--early-stop needs validation rows: raise --val")
    check_target(run)
    options = Options(early_stop or 0, class_weight, engine, device, compute, threads)
    with open_cache(cache) as opened:
        data = load_data(opened, label, pooling, layer, group)
        plain_article = recipe == "article" and val is None and test is None and group is None and not folds
        split = _split(opened, data, settings, plain_article)
        job = Job(opened, data, settings, options, split, recipe, group, folds)
        return job.execute(Path(run), progress, start)


def _split(cache: Cache, data: Data, settings: Recipe, plain_article: bool) -> Split:
    if plain_article:
        return article_split(data.y, cache.hashes)
    return make_split(data.y, cache.hashes, data.groups, val=settings.val, test=settings.test)


@dataclass
class Job:
    """One training job, planned and checked."""

    cache: Cache
    data: Data
    settings: Recipe
    options: Options
    split: Split
    recipe: str
    group: str | None
    folds: int | None

    def execute(self, run: Path, progress: Progress | None, start: float) -> HeadReport:
        """Train, rank, test, compare with the baselines, write."""
        data, split = self.data, self.split
        sides = self._folds() if self.folds else [split]
        tasks = [make_task(data, side, self.settings.standardize, self.options.class_weight) for side in sides]
        heads = [(spec, task) for spec in self.settings.specs() for task in range(len(tasks))]
        tell = None if progress is None else lambda done, total: progress(done, total, done)
        result, warned = self._train(tasks, heads, self.settings.epochs, self.options.early_stop, tell)
        for head in result.heads:
            head.classes = data.classes
        entries = make_leaderboard(result, tasks)
        if entries[0].status != "ok":
            raise EmbedcacheError(
                f"every head diverged (the loss exploded), {len(entries):,} in all: give a lower --lr"
            )
        best = self._train_again(entries[0]) if self.folds else entries[0].heads[0]
        rows = sum(head.epochs_run * len(tasks[head.task].train.rows) for head in result.heads)
        report = HeadReport(
            run=str(run),
            heads=len(entries),
            engine=result.engine,
            train_seconds=result.seconds,
            head_rows_per_second=rows / max(result.seconds, 1e-9),
            split=self._split_report(sides),
            best=self._best_report(entries[0], best),
            baselines=run_baselines(self.cache.texts, data.y, split),
            leaderboard=[entry.row(i + 1) for i, entry in enumerate(entries[:TOP])],
            label=data.label,
            classes=data.classes,
            pooling=data.pooling,
            layer=data.layer,
            recipe=self.recipe,
            notes=[],
            seconds=0.0,
        )
        report.notes = warned + self._notes(entries, report)
        report.seconds = time.perf_counter() - start
        self._write(run, report, entries, best, result)
        return report

    def _train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        epochs: int,
        early_stop: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[BankResult, list[str]]:
        """The trained bank, and what the engine warned of. Raises KeyboardInterrupt where it was stopped."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EngineWarning)
            result = train_bank(
                tasks,
                heads,
                batch_size=self.settings.batch_size,
                epochs=epochs,
                early_stop=early_stop,
                progress=progress,
                **self.options.bank(),
            )
        if result.cancelled:
            raise KeyboardInterrupt
        return result, [str(warning.message) for warning in caught if issubclass(warning.category, EngineWarning)]

    def _folds(self) -> list[Split]:
        codes = self.data.y.copy()
        codes[self.split.test] = -1
        return make_folds(codes, self.cache.hashes, self.data.groups, folds=self.folds or 0)

    def _train_again(self, winner: Entry) -> TrainedHead:
        """The winning settings on all folds together, for as many epochs as were best on average."""
        task = make_task(self.data, self.split, self.settings.standardize, self.options.class_weight)
        best = self._train([task], [(winner.spec, 0)], max(1, round(winner.best_epoch + 1)))[0].heads[0]
        if best.status != "ok":
            raise EmbedcacheError("the best head diverged when it was trained on all folds: give a lower --lr")
        best.classes = self.data.classes
        return best

    def _split_report(self, sides: Sequence[Split]) -> dict[str, Any]:
        split = self.split
        counts = ("unlabelled", "duplicates", "conflicts", "left_out")
        report = {side: len(getattr(split, side)) for side in ("train", "val", "test")}
        report |= {count: getattr(split, count) for count in counts}
        folds = [{"train": len(side.train), "val": len(side.val)} for side in sides] if self.folds else None
        return {**report, "group": self.group, "folds": folds}

    def _best_report(self, winner: Entry, best: TrainedHead) -> dict[str, Any]:
        tested = score_rows(best, self.data.x, self.data.y, self.split.test)
        return {
            "name": winner.name,
            "hyperparameters": best.spec.to_dict(),
            "best_epoch": best.best_epoch,
            "epochs_run": best.epochs_run,
            "val_accuracy": number(winner.val_accuracy),
            "val_loss": number(winner.val_loss),
            "val_macro_f1": winner.val_macro_f1,
            "test_accuracy": tested and tested.accuracy,
            "test_accuracy_interval": tested and list(accuracy_interval(tested.accuracy, len(self.split.test))),
            "test_loss": tested and tested.loss,
            "test_macro_f1": tested and tested.macro_f1,
        }

    def _notes(self, entries: Sequence[Entry], report: HeadReport) -> list[str]:
        """What a person should know before trusting the numbers, one line each."""
        split, best, notes = self.split, report.best, []
        if split.unlabelled:
            notes.append(f"rows left out, because they have no label in {self.data.label!r}: {split.unlabelled:,}")
        notes += split_notes(split, self.data.y, self.data.classes)
        if diverged := sum(entry.status != "ok" for entry in entries):
            notes.append(f"heads that diverged, and are never chosen: {diverged:,} of {len(entries):,}; lower --lr")
        if best["val_loss"] is None:
            notes.append("no validation rows: the last epoch is kept, and the lowest training loss chose the head")
        elif not self.folds and best["best_epoch"] + 1 == self.settings.epochs:
            notes.append("the best epoch was the last one: more --epochs or a higher --lr may do better")
        if not len(split.test) and best["val_loss"] is not None:
            notes.append("no test rows: the validation scores also chose the head, so they flatter it (--test 0.1)")
        baseline = report.baselines["tfidf_logreg"]
        side = "test_accuracy" if len(split.test) else "val_accuracy"
        if baseline[side] is not None and best[side] is not None and baseline[side] > best[side]:
            other = "another model" if self.data.pooling == "mean" else "--pooling mean or another model"
            notes.append(f"TF-IDF + logistic regression does better on these rows: try {other}")
        if "note" in baseline:
            notes.append(f"TF-IDF baseline: {baseline['note']}")
        return notes

    def _write(
        self, run: Path, report: HeadReport, entries: Sequence[Entry], best: TrainedHead, result: BankResult
    ) -> None:
        """The run directory. run.json holds what is needed to do it all again."""
        heads = {}
        for entry in sorted(entries, key=lambda entry: entry.name):
            for fold, head in enumerate(entry.heads):
                heads[f"{entry.name}/fold-{fold}" if self.folds else entry.name] = head
        cache, split = self.cache, self.split
        info = {
            "embedcache": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "cache": {"path": str(cache.path), "fingerprint": cache.fingerprint, "rows": cache.rows},
            "encoder": cache.encoder,
            "dim": self.data.x.shape[1],
            "dtype": str(self.data.x.dtype),
            "pooling": self.data.pooling,
            "layer": self.data.layer,
            "label": self.data.label,
            "classes": self.data.classes,
            "recipe": self.recipe,
            "settings": asdict(self.settings),
            "options": asdict(self.options),
            "split": {
                **report.split,
                "seed": SEED,
                "digests": {side: _digest(getattr(split, side)) for side in ("train", "val", "test")},
            },
            "engine": result.engine,
            "train_seconds": result.seconds,
            "seconds": report.seconds,
            "best": report.best,
            "baselines": report.baselines,
            "notes": report.notes,
            "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in PACKAGES}},
        }
        write_run(run, info, best, heads, [entry.row(i + 1) for i, entry in enumerate(entries)])


def _digest(rows: np.ndarray) -> str:
    """Of a set of row numbers: the same rows of the same cache, the same digest."""
    return hashlib.blake2b(np.sort(rows).astype("<i8").tobytes(), digest_size=16).hexdigest()
