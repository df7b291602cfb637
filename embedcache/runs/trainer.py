"""The training of a run: all heads of all its label columns in one bank, but for those that need no second training."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedcache.common.progress import Progress, Tell
from embedcache.errors import EmbedcacheError
from embedcache.heads.engine import EngineWarning
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Task
from embedcache.heads.train import BankResult, choose_engine, train_bank
from embedcache.labelling.opened import labels_changed
from embedcache.runs.column import Column, Plan
from embedcache.runs.leaderboard import Entry
from embedcache.runs.resume import find_heads, identity, save_unfinished, unfinished_paths


class InterruptedTraining(KeyboardInterrupt):
    """Ctrl-C, after what was finished has been saved; str() says where, and how to continue."""


@dataclass(frozen=True)
class TrainerOptions:
    """How the heads are trained, beside the recipe; all of it goes into run.json."""

    early_stop: int
    engine: str
    device: str
    compute: str
    threads: int | None

    @property
    def computed(self) -> str:
        """What "auto" stands for."""
        return "float32" if self.compute == "auto" else self.compute

    def bank(self) -> dict[str, Any]:
        """Keywords of train_bank."""
        return {"engine": self.engine, "device": self.device, "compute": self.compute, "threads": self.threads}


@dataclass
class Bank:
    """All trained heads, by label column: for every combination of the settings, one head a task of the column."""

    heads: dict[str, list[TrainedHead]]
    identities: dict[str, list[str]]
    kept: int  # heads that --resume found
    rows: int  # trained now, summed over heads and epochs
    seconds: float
    engine: str
    notes: list[str]

    def by_identity(self) -> dict[str, TrainedHead]:
        return {
            key: head
            for column, heads in self.heads.items()
            for key, head in zip(self.identities[column], heads, strict=True)
        }


@dataclass
class Trainer:
    """Trains for the run of that name. ``tell`` is called with each note before the training starts."""

    columns: list[Column]
    plan: Plan
    options: TrainerOptions
    run: Path
    tell: Tell

    def train(self, resume: bool, progress: Progress | None) -> Bank:
        """Every head of every column, in one call of the engine; those that are kept need none."""
        tasks = [task for column in self.columns for task in column.tasks]
        heads = self._heads()
        engine, notes = self._engine_name()
        identities = self._identities(heads, engine)
        kept = self._kept(set(identities), resume)
        todo = [i for i, key in enumerate(identities) if key not in kept]
        seconds, rows = 0.0, 0
        if todo:
            result, warned = self._train(tasks, [heads[i] for i in todo], self.plan.settings.epochs, progress)
            for i, head in zip(todo, result.heads, strict=True):
                if head.status != "cancelled":
                    kept[identities[i]] = head
            if result.cancelled:
                raise self.interrupted(kept, len(heads))
            notes, engine, seconds = list(dict.fromkeys([*notes, *warned])), result.engine, result.seconds
            rows = sum(head.epochs_run * len(tasks[head.task].train.rows) for head in result.heads)
        bank = Bank({}, {}, len(heads) - len(todo), rows, seconds, engine, notes)
        ends = iter(range(len(heads)))
        for column in self.columns:
            mine = list(itertools.islice(ends, len(column.tasks) * len(self.plan.specs)))
            bank.identities[column.label] = [identities[i] for i in mine]
            bank.heads[column.label] = [replace(kept[identities[i]], task=heads[i][1]) for i in mine]
        return bank

    def _heads(self) -> list[tuple[HeadSpec, int]]:
        """(settings, number of the task) of every head: for every column, every combination, every task of its own."""
        heads, first = [], 0
        for column in self.columns:
            numbers = range(first, first + len(column.tasks))
            heads += [(spec, number) for spec in self.plan.specs for number in numbers]
            first = numbers.stop
        return heads

    def _identities(self, heads: Sequence[tuple[HeadSpec, int]], engine: str) -> list[str]:
        """What each head is known by: everything that it depends on."""
        training = {
            "batch_size": self.plan.settings.batch_size,
            "epochs": self.plan.settings.epochs,
            "early_stop": self.options.early_stop,
            "compute": self.options.computed,
            "engine": engine,
        }
        if self._choose != "loss":
            training["choose"] = self._choose
        digests = [digest for column in self.columns for digest in column.digests()]
        return [identity(spec, digests[task], training) for spec, task in heads]

    @property
    def _choose(self) -> str:
        """By which score a head keeps an epoch; the lowest loss is the highest r2."""
        return "loss" if self.plan.choose == "r2" else self.plan.choose

    def _kept(self, identities: set[str], resume: bool) -> dict[str, TrainedHead]:
        """Heads that need no training, and a note about them."""
        left = next((path for path in unfinished_paths(self.run) if path.exists()), None)
        if not resume:
            if left is not None:
                self.tell(f"heads of an interrupted run are in {left}; they are not used: --resume continues with them")
            return {}
        kept = find_heads(self.run, identities)
        for note in kept.notes:
            self.tell(note)
        if kept.heads:
            self.tell(f"--resume: {len(kept.heads):,} of {len(identities):,} heads are there already")
        else:
            self.tell("--resume: nothing of this sweep is there yet, so every head is trained")
        if len(kept.heads) < len(identities):  # perhaps since people have labelled meanwhile
            changed = (labels_changed(then, self._labels_from) for then in kept.labels_from)
            for line in dict.fromkeys(filter(None, changed)):
                self.tell(f"--resume: heads of other labels are trained again: {line}")
        return kept.heads

    @property
    def _labels_from(self) -> dict[str, Any] | None:
        return self.columns[0].cache.labels_from

    def _engine_name(self) -> tuple[str, list[str]]:
        """The engine that will train, and its warnings."""
        options = self.options
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EngineWarning)
            bank = Options(compute=options.computed, threads=options.threads or 0, choose=self._choose)
            engine, _ = choose_engine(options.engine, options.device, bank)
        return engine.name, _messages(caught)

    def _train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        epochs: int,
        progress: Progress | None = None,
        early_stop: int | None = None,
    ) -> tuple[BankResult, list[str]]:
        """The trained bank, and the engine's warnings."""
        total = len(heads) * epochs
        tell = None if progress is None else lambda rows, all, _: progress(round(total * rows / all), total, rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", EngineWarning)
            result = train_bank(
                tasks,
                heads,
                batch_size=self.plan.settings.batch_size,
                epochs=epochs,
                early_stop=self.options.early_stop if early_stop is None else early_stop,
                progress=tell,
                choose=self._choose,
                folder=next(folder for folder in self.run.absolute().parents if folder.is_dir()),
                **self.options.bank(),
            )
        return result, _messages(caught)

    def interrupted(self, heads: dict[str, TrainedHead], total: int) -> InterruptedTraining:
        """Saves the heads that are finished."""
        if not heads:
            return InterruptedTraining("Interrupted before a head was finished; the same command starts again.")
        path = save_unfinished(self.run, heads, self._labels_from)
        return InterruptedTraining(
            f"Interrupted: {len(heads):,} of {total:,} heads are saved in {path}; "
            "the same command with --resume trains the others."
        )

    def train_again(self, column: Column, winner: Entry) -> TrainedHead:
        """The winning settings on all folds together, for as many epochs as are best in their mean curve."""
        epochs = max(1, round(winner.best_epoch))
        task = column.task(column.split)
        result, _ = self._train([task], [(winner.spec, 0)], epochs, early_stop=0)
        if result.cancelled:
            raise KeyboardInterrupt
        best = result.heads[0]
        if best.status != "ok":
            raise EmbedcacheError("the best head diverged when it was trained on all folds: give a lower --lr")
        best.classes = column.data.classes
        return best


def _messages(caught: Sequence[warnings.WarningMessage]) -> list[str]:
    return [str(warning.message) for warning in caught if issubclass(warning.category, EngineWarning)]
