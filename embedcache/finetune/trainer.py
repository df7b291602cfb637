"""The training of a run: every configuration on every side of its column, each kept on the disk when it ends."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedcache import __version__
from embedcache.common.progress import Progress, Tell
from embedcache.errors import EmbedcacheError
from embedcache.finetune.bench import Bench
from embedcache.finetune.checkpoint import State, labels_of, load_state, save_state
from embedcache.finetune.compute import takes_bfloat16
from embedcache.finetune.config import Config
from embedcache.finetune.head import TunedHead, tuned_head
from embedcache.finetune.loop import LoopOptions, Training, predict_rows, train_together
from embedcache.finetune.native_layers import NativeLayers, Trial
from embedcache.finetune.start import Start
from embedcache.finetune.trainee import Trainee
from embedcache.heads.head import TrainedHead
from embedcache.heads.kinds import kind_of
from embedcache.labelling.opened import labels_changed
from embedcache.runs.column import Column, Plan
from embedcache.runs.leaderboard import Entry
from embedcache.runs.resume import recorded_labels
from embedcache.runs.trainer import Bank, InterruptedTraining, TrainerOptions

# Configurations at a time in torch: what they share is then an eighth of the work, and each has a checkpoint.
BESIDE = 8


@dataclass
class TunedTrainer:
    """Trains for the run of that name, as runs.trainer.Trainer does for heads.

    Attributes:
        starts: by pooling.
        native: trains what it can, torch the rest; None: torch everything.
    """

    column: Column
    plan: Plan
    options: TrainerOptions
    run: Path
    tell: Tell
    configs: list[Config]
    starts: Mapping[str, Start]
    bench: Bench
    native: NativeLayers | None = None
    resume: bool = False
    progress: Progress | None = None
    _done: int = field(default=0, init=False)
    # State, and how many rows were trained on now, of what was trained together with one before.
    _ahead: dict[str, tuple[State, int]] = field(default_factory=dict, init=False)

    @property
    def columns(self) -> list[Column]:
        """The one that is trained."""
        return [self.column]

    @property
    def folder(self) -> Path:
        """Where checkpoints are, beside the run."""
        path = self.run.resolve()
        return path.parent / f".{path.name}.tuning"

    def train(self, resume: bool, progress: Progress | None) -> Bank:
        """Every configuration on every side, in their order; those that had ended need no training."""
        self.resume, self.progress = resume, progress
        if self.folder.exists() and not resume:
            self.tell(f"an interrupted finetune is in {self.folder}; it is not used: --resume continues with it")
            shutil.rmtree(self.folder, ignore_errors=True)
        begun, rows, kept = time.perf_counter(), 0, 0
        trainings = self._trainings()
        if resume:
            self._tell_of_labels({one.identity for one in trainings})
        heads: list[TunedHead] = []
        identities: list[str] = []
        best: tuple[TunedHead, str] | None = None
        for place, one in enumerate(trainings):
            head, trained = self._train(one, trainings[place + 1 :])
            rows, kept = rows + trained, kept + (not trained)
            heads.append(head)
            identities.append(one.identity)
            # Layers are kept of the best alone; with folds of none, since the best is trained again on all of them.
            worse: tuple[TunedHead, str] | None = (head, one.identity)
            if not self.plan.folds and (best is None or self._rank(head) > self._rank(best[0])):
                best, worse = worse, best
            if worse is not None:
                self._drop_layers(*worse)
        label = self.column.label
        seconds = time.perf_counter() - begun
        engine = " and ".join(dict.fromkeys(self._engine_of(config) for config in self.configs))
        return Bank({label: list(heads)}, {label: identities}, kept, rows, seconds, engine, [])

    def _tell_of_labels(self, wanted: set[str]) -> None:
        """A sentence where some are trained again since people have labelled meanwhile."""
        if all(self._path(identity).exists() for identity in wanted):
            return
        changed = (labels_changed(then, self._labels_from) for then in labels_of(self.folder, wanted))
        for line in dict.fromkeys(filter(None, changed)):
            self.tell(f"--resume: what was trained on other labels is trained again: {line}")

    def _trainings(self) -> list[Trial]:
        """Every configuration on every side, in their order."""
        digests, found = self.column.digests(), []
        for config in self.configs:
            for number, task in enumerate(self.column.tasks):
                start = self.starts[config.pooling].heads[number]
                identity = self._identity(config, digests[number], start)
                found.append(Trial(config, task, start, identity, number))
        return found

    def train_again(self, column: Column, winner: Entry) -> TrainedHead:
        """The winning configuration on all folds together, for as many epochs as are best in their mean curve."""
        first = winner.heads[0]
        assert isinstance(first, TunedHead) and first.config is not None
        config = replace(first.config, epochs=max(1, round(winner.best_epoch)))
        task = replace(column.task(column.split), val=None)
        start = self.starts[config.pooling].whole
        digest = " ".join(["whole", *column.digests()])
        head, _ = self._train(Trial(config, task, start, self._identity(config, digest, start), 0), [])
        if head.status != "ok":
            raise EmbedcacheError("the best configuration diverged when it was trained on all folds: give a lower --lr")
        head.classes = column.data.classes
        return head

    def judge(self, head: TunedHead, rows: np.ndarray) -> None:
        """Compute its logits of these rows, once."""
        assert head.config is not None
        trainee = self.bench.trainee(head.config, head)
        trainee.put({**head.layers, **{f"head/{name}": array for name, array in head.weights.items()}})
        inputs, classes = self.bench.inputs(head.config.way), len(head.weights["b2"])
        head.outputs.append((rows, predict_rows([trainee], inputs, rows, classes, self.bench.device)[0]))

    def interrupted(self, heads: Mapping[str, TrainedHead], total: int) -> InterruptedTraining:
        """What to say after Ctrl-C: everything is in the folder already."""
        return InterruptedTraining(
            f"Interrupted: what was trained is saved in {self.folder}; the same command with --resume continues."
        )

    def clean(self) -> None:
        """Once the run is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _engine_of(self, config: Config) -> str:
        if self._is_native(config):
            assert self.native is not None
            return self.native.name
        return f"torch-{self.bench.device.split(':')[0]}"

    def _is_native(self, config: Config) -> bool:
        return self.native is not None and not self.native.why_not(config.way, config.pooling)

    @property
    def _labels_from(self) -> dict[str, Any] | None:
        return recorded_labels(self.column.cache.labels_from)

    @property
    def _choose(self) -> str:
        return "loss" if self.plan.choose == "r2" else self.plan.choose

    def _train(self, one: Trial, later: Sequence[Trial]) -> tuple[TunedHead, int]:
        """(the head and its layers, how many rows were trained on now). later: what may be trained beside it."""
        native = self._is_native(one.config)
        state, rows = self._train_natively(one, later) if native else self._train_in_torch(one, later)
        val = None if one.task.val is None else one.task.val.rows
        head = tuned_head(state, one.config, one.start, val, one.number)
        return head, rows

    def _train_in_torch(self, one: Trial, later: Sequence[Trial]) -> tuple[State, int]:
        """Together with later ones that read the same batches of states, as many as there is memory for."""
        if one.identity not in self._ahead:
            before, trainings = self._done, self._side_by_side(one, later)
            try:
                train_together(trainings)
            except KeyboardInterrupt:
                for training in trainings:
                    if training.running and training.whole:  # else the last checkpoint stays
                        training.save()
                raise self.interrupted({}, 0) from None
            self._done = before + sum(training.total for training in trainings)
            for training in trainings:
                state, trainee = training.state, training.trainee
                state.kind, state.scale = trainee.kind, trainee.scale
                self._ahead[state.progress.identity] = state, 0 if training.ended else training.rows
        return self._ahead.pop(one.identity)

    def _side_by_side(self, one: Trial, later: Sequence[Trial]) -> list[Training]:
        trainings = [self._training(one, self.bench.trainee(one.config, one.start))]
        room, needed = self.bench.room(), self.bench.needed(trainings[0].trainee, one.config)
        for other in later:
            if len(trainings) == BESIDE or needed > room:
                break
            if not self._reads_alike(one, other) or self._ended(other) is not None:
                continue
            trainee = self.bench.trainee(other.config, other.start, check=False)
            needed += self.bench.needed(trainee)
            if needed <= room:
                trainings.append(self._training(other, trainee))
        return trainings

    def _reads_alike(self, one: Trial, other: Trial) -> bool:
        """Whether it makes the same batches of the same states, in the same order."""
        mine, theirs = (
            (trial.number, trial.config.way.depth, trial.config.batch_size, trial.config.spec.seed)
            for trial in (one, other)
        )
        return mine == theirs and mine[1] is not None and not self._is_native(other.config)

    def _training(self, one: Trial, trainee: Trainee) -> Training:
        def tell(count: int) -> None:
            self._done += count
            if self.progress is not None:
                total = self._total()
                self.progress(min(self._done, total), total, self._done)

        bfloat16 = takes_bfloat16(self.options.compute, self.bench.device)
        path, early_stop = self._path(one.identity), self.options.early_stop
        options = LoopOptions(
            early_stop, self._choose, self.bench.device, bfloat16, path, self.resume, tell, self.bench.accumulate
        )
        inputs = self.bench.inputs(one.config.way)
        training = Training(trainee, inputs, one.task, one.config, one.identity, options)
        training.state.progress.labels_from = self._labels_from
        return training

    def _train_natively(self, one: Trial, later: Sequence[Trial]) -> tuple[State, int]:
        """As many at a time as can be: this one, and later ones of its kind. Each is whole, or not there."""
        assert self.native is not None
        if one.identity not in self._ahead:
            if (found := self._ended(one)) is not None:
                self._done += _rows(one)
                return found, 0
            beside = [other for other in later if self._is_native(other.config) and self._ended(other) is None]
            self._train_group(self.native.together(one, beside))
        return self._ahead.pop(one.identity)

    def _train_group(self, group: Sequence[Trial]) -> None:
        assert self.native is not None
        total, before = self._total(), self._done

        def tell(done: int, _total: int, _trained: int) -> None:
            if self.progress is not None:
                self.progress(min(before + done, total), total, before + done)

        states = self.native.train(group, tell)
        for one, state in zip(group, states, strict=True):
            if state.progress.status != "cancelled":
                state.progress.labels_from = self._labels_from
                save_state(self._path(one.identity), state, None, None)
                self._ahead[one.identity] = state, state.progress.epoch * len(one.task.train.rows)
        if len(set(self._ahead) & {one.identity for one in group}) < len(group):
            raise self.interrupted({}, 0)
        self._done = before + sum(map(_rows, group))

    def _ended(self, one: Trial) -> State | None:
        """What an interrupted finetune left of one that had come to its end."""
        found = load_state(self._path(one.identity), one.identity) if self.resume else None
        return found[0] if found is not None and found[0].progress.status else None

    def _path(self, identity: str) -> Path:
        return self.folder / f"{identity}.safetensors"

    def _rank(self, head: TunedHead) -> tuple[float, ...]:
        return _rank(head, self._choose)

    def _total(self) -> int:
        """Rows of all configurations, sides and epochs."""
        sides = sum(len(task.train.rows) for task in self.column.tasks)
        return sum(config.epochs for config in self.configs) * sides

    def _drop_layers(self, head: TunedHead, identity: str) -> None:
        """Neither in memory nor on the disk."""
        head.layers = {}
        state = head.state
        if state is not None and any(not name.startswith("head/") for name in state.best):
            state.best = {name: array for name, array in state.best.items() if name.startswith("head/")}
            save_state(self._path(identity), state, None, None)

    def _identity(self, config: Config, task: str, start: TrainedHead) -> str:
        """Of everything that a configuration depends on."""
        states = None if config.way.depth is None else {"layer": self.bench.stored.layer}
        about = {
            **({"parts": self.bench.accumulate} if self.bench.accumulate > 1 else {}),
            "config": config.settings(),
            "spec": config.spec.to_dict(),
            "task": task,
            "encoder": self.bench.encoder.identity,
            "states": states,
            "start": _digest(start),
            "options": [self.options.early_stop, self._choose, self.options.compute, self._engine_of(config)],
            "beside": [self.bench.alpha, list(self.bench.targets), self.bench.checkpointing],
            "embedcache": __version__,
            "torch": torch.__version__,
        }
        return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=16).hexdigest()


def _rows(one: Trial) -> int:
    """Of all epochs."""
    return one.config.epochs * len(one.task.train.rows)


def _digest(head: TrainedHead) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, array in sorted(head.weights.items()):
        digest.update(f"{name}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _rank(head: TunedHead, choose: str) -> tuple[float, ...]:
    """As the leaderboard ranks: higher is better."""
    if head.status != "ok" or not head.best_epoch:
        return (-1.0, 0.0, 0.0, 0.0)
    at = head.best_epoch - 1
    loss = head.val_loss if np.isfinite(head.val_loss) else head.history["train_loss"][-1]
    score = 0.0 if choose == "loss" else head.history[f"val_{choose}"][at]
    main = head.history[f"val_{kind_of(head.kind).main}"][at]
    return (1.0, score if np.isfinite(score) else 0.0, -loss, main if np.isfinite(main) else 0.0)
