"""The training of configurations: AdamW with a rate for the layers and one for the head, epoch by epoch.

Those that see the same rows in the same order train side by side: a batch is read and padded once for all of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedcache.finetune.checkpoint import Progress, State, load_state, restore, save_state
from embedcache.finetune.config import Config
from embedcache.finetune.inputs import Inputs, epoch_batches, even_batches
from embedcache.finetune.trainee import Trainee
from embedcache.heads.engine_torch import counts_of, likelihood, lr_factor, macro_f1, training_loss
from embedcache.heads.kinds import kind_of
from embedcache.heads.task import Task, View, training_weight
from embedcache.heads.train import HISTORY, r2_of

CLIP = 1.0  # of the gradient's norm
SAVE_SECONDS = 30.0  # between two checkpoints
SEEDS = 2**31  # of dropout
Batch = tuple[Tensor, Tensor, Tensor | None]  # inputs and mask of some rows, and which have no token, on the device
Parts = Sequence[tuple[np.ndarray, Batch]]  # of a step: rows, int64, and what they hold


@dataclass(frozen=True)
class LoopOptions:
    """What holds for all configurations. choose: loss, accuracy or macro_f1; path: of the checkpoint; tell: rows.

    parts: in how many a step is computed, whose gradients are added up.
    """

    early_stop: int
    choose: str
    device: str
    bfloat16: bool
    path: Path
    resume: bool
    tell: Callable[[int], None]
    parts: int = 1


class Training:
    """One configuration on the rows of one task.

    Attributes:
        state: where it is. ended: whether there was nothing left to train: the checkpoint said so.
        rows: that were trained on, those of the checkpoint included.
        whole: whether weights, moments and progress are those between two steps, so that they can be saved.
    """

    def __init__(
        self, trainee: Trainee, inputs: Inputs, task: Task, config: Config, identity: str, options: LoopOptions
    ) -> None:
        self.trainee, self.inputs, self.task, self.config, self.options = trainee, inputs, task, config, options
        self._kind, self._spec = kind_of(task.kind), config.spec
        device = options.device
        weight = training_weight(config.spec, task)
        self._train_weight = None if weight is None else torch.from_numpy(weight).to(device)
        self._val_weight = None if task.class_weight is None else torch.from_numpy(task.class_weight).double()
        self._unit = None  # of a regression: its outputs are in the label's unit, the loss is not
        if task.target_mean is not None and task.target_std is not None:
            self._unit = [torch.from_numpy(one).float().to(device) for one in (task.target_mean, task.target_std)]
        self.steps = -(-len(task.train.rows) // config.batch_size)
        self.state = State(Progress(identity, history={name: [] for name in HISTORY}))
        self.ended, self.rows, self.whole = False, 0, False
        self.adamw = make_adamw(trainee, config)
        self._saved = time.monotonic()

    def save(self) -> None:
        """A checkpoint of now."""
        save_state(self.options.path, self.state, self.trainee, self.adamw)

    def begin(self) -> None:
        """Go on from the checkpoint where there is one."""
        found = load_state(self.options.path, self.state.progress.identity) if self.options.resume else None
        if found is not None:
            self.state, arrays = found
            self.ended = bool(self.state.progress.status)
            if not self.ended:
                restore(arrays, self.trainee, self.adamw)
            progress = self.state.progress
            done = progress.epoch * len(self.task.train.rows) + progress.step * self.config.batch_size
            self._tell(self.total if self.ended else done)
        self.whole = True
        self._end()

    @property
    def running(self) -> bool:
        """Whether it has not come to its end; then the checkpoint holds what became of it."""
        return not self.state.progress.status

    @property
    def total(self) -> int:
        """Rows of all epochs."""
        return self.config.epochs * len(self.task.train.rows)

    def learn(self, rows: np.ndarray, parts: Parts) -> None:
        """The epoch's next step."""
        progress = self.state.progress
        loss = self.step(rows, parts)
        if not math.isfinite(loss):
            progress.status = "diverged"
            self._end()
            return
        progress.loss += loss * len(rows)
        progress.step += 1
        self.whole = True
        self._tell(len(rows))
        self._save_now_and_then()

    def end_epoch(self, outputs: np.ndarray | None) -> None:
        """After its last step. outputs: of the validation rows, where there are any."""
        progress, self.whole = self.state.progress, False
        self._judge(progress.loss / len(self.task.train.rows), outputs)
        progress.epoch, progress.step, progress.loss = progress.epoch + 1, 0, 0.0
        patience = self.options.early_stop
        if not progress.status and patience and progress.epoch - 1 - progress.best_epoch >= patience:
            progress.status = "ok"
        self.whole = True
        self._save_now_and_then()
        self._end()

    def _end(self) -> None:
        """Where it has come to its end, the file says what became of it."""
        progress = self.state.progress
        if self.running and progress.epoch == self.config.epochs:
            progress.status = "ok" if progress.best_epoch >= 0 else "diverged"
        if not self.running:
            save_state(self.options.path, self.state, None, None)

    def _tell(self, rows: int) -> None:
        self.rows += rows
        self.options.tell(rows)

    def step(self, rows: np.ndarray, parts: Parts | None = None) -> float:
        """One step on these rows; the loss before it. parts: of the rows; None: they are made here."""
        progress, spec = self.state.progress, self._spec
        number = progress.epoch * self.steps + progress.step
        torch.manual_seed((spec.seed * 1_000_003 + number) % SEEDS)
        factor = lr_factor(spec, number, self.config.epochs * self.steps)
        for group in self.adamw.param_groups:
            group["lr"] = group["highest"] * factor
        self.adamw.zero_grad(set_to_none=True)
        parts = parts or make_parts(self.inputs, rows, self.options.device, self.options.parts)
        whole: Any = 0.0
        for some, batch in parts:
            with torch.autocast(self.options.device.split(":")[0], torch.bfloat16, enabled=self.options.bfloat16):
                z = self.trainee(*batch)
            loss = training_loss(
                spec, self._kind, self._scaled(z.float()), self._targets(self.task.train, some), self._train_weight
            )
            if len(parts) > 1:
                loss = loss * self._share(some, rows)
            loss.backward()
            whole = whole + loss.detach()
        nn.utils.clip_grad_norm_([p for group in self.adamw.param_groups for p in group["params"]], CLIP)
        self.whole = False  # until the step is counted
        self.adamw.step()
        return float(whole)

    def _share(self, some: np.ndarray, rows: np.ndarray) -> float:
        """Of these rows in the loss of all: a mean, in which a class's weight counts."""
        if not self._kind.exclusive or self._train_weight is None:
            return len(some) / len(rows)
        weights, y = self._train_weight.cpu().numpy().astype(np.float64), self.task.train.y
        return float(weights[y[some]].sum() / weights[y[rows]].sum())

    def _scaled(self, z: Tensor) -> Tensor:
        return z if self._unit is None else (z - self._unit[0]) / self._unit[1]

    def _targets(self, view: View, rows: np.ndarray) -> Tensor:
        y = view.y[rows]
        return torch.from_numpy(y.astype(np.int64) if self._kind.exclusive else y).to(self.options.device)

    def _judge(self, train_loss: float, outputs: np.ndarray | None) -> None:
        """Validate an epoch, and keep it where it is the best so far; without validation rows the last is."""
        state, val = self.state, self.task.val
        scores: dict[str, float] = dict.fromkeys(HISTORY, math.nan)
        scores["train_loss"] = train_loss
        if val is not None and outputs is not None:
            scores |= self._scores(outputs, val)
        before = state.progress
        for name in HISTORY:
            before.history[name].append(scores[name] if math.isfinite(scores[name]) else None)
        if val is not None and not math.isfinite(scores["val_loss"]):
            before.status = "diverged" if before.best_epoch < 0 else "ok"
        elif before.best_epoch < 0 or val is None or self._rank(before.epoch) > self._rank(before.best_epoch):
            before.best_epoch, state.outputs = before.epoch, outputs
            state.best = self.trainee.tensors()

    def _scores(self, outputs: np.ndarray, val: View) -> dict[str, float]:
        z, y = self._scaled(torch.from_numpy(outputs)).double(), self._targets(val, val.rows).cpu()
        y = y if self._kind.exclusive else y.double()
        found = {"val_loss": float(likelihood(self._kind, z, y, self._val_weight, 0.0))}
        if self._kind.has_classes:
            counts, right = counts_of(self._kind, z, y)
            return found | {"val_accuracy": float(right) / len(y), "val_macro_f1": macro_f1(counts)}
        return found | {"val_r2": float(r2_of(found["val_loss"], y.numpy()))}

    def _rank(self, epoch: int) -> tuple[float, float]:
        history, choose = self.state.progress.history, self.options.choose
        score = 0.0 if choose == "loss" else history[f"val_{choose}"][epoch]
        loss = history["val_loss"][epoch]
        return (-1.0 if score is None else score, -math.inf if loss is None else -loss)

    def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved >= SAVE_SECONDS:
            self.save()
            self._saved = time.monotonic()


def make_adamw(trainee: Trainee, config: Config) -> torch.optim.AdamW:
    """Groups: the layers' matrices, their biases and norms (no decay), the head's matrices and biases."""
    spec = config.spec
    body, head = list(trainee.weights.values()), list(trainee.head.parameters())
    groups: list[dict[str, Any]] = []
    for weights, lr in ((body, spec.lr), (head, config.head_lr)):
        for decayed in (True, False):
            some = [one for one in weights if (one.dim() > 1) == decayed]
            decay = spec.weight_decay if decayed else 0.0
            if some:
                groups.append({"params": some, "lr": lr, "highest": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=spec.betas, eps=spec.eps, fused=True)


def train_together(trainings: Sequence[Training]) -> None:
    """Train each to its end, to the same bits as alone: every batch is made once, and each takes its step with it.

    They read the same inputs and have the same rows, seed and batch size, hence the same order. Of interrupted ones
    some may be further than others; they wait.
    """
    for one in trainings:
        one.begin()
    while running := [one for one in trainings if one.running]:
        epoch = min(one.state.progress.epoch for one in running)
        _epoch([one for one in running if one.state.progress.epoch == epoch], epoch)


def _epoch(trainings: Sequence[Training], epoch: int) -> None:
    first = trainings[0]
    inputs, task, config, device = first.inputs, first.task, first.config, first.options.device
    for one in trainings:
        one.trainee.train()
    batches = epoch_batches(inputs.lengths, task.train.rows, config.batch_size, config.spec.seed, epoch)
    for number, rows in enumerate(batches):
        if now := [one for one in trainings if one.running and one.state.progress.step == number]:
            parts = make_parts(inputs, rows, device, first.options.parts)
            for one in now:
                one.learn(rows, parts)
    if left := [one for one in trainings if one.running]:
        outputs: Sequence[np.ndarray | None] = [None] * len(left)
        if task.val is not None:
            outputs = predict_rows([one.trainee for one in left], inputs, task.val.rows, task.classes, device)
        for one, found in zip(left, outputs, strict=True):
            one.end_epoch(found)


def make_parts(inputs: Inputs, rows: np.ndarray, device: str, count: int) -> Parts:
    """The rows of a step in so many parts, those of like length together."""
    return [(some, make_batch(inputs, some, device)) for some in np.array_split(rows, min(count, len(rows)))]


def make_batch(inputs: Inputs, rows: np.ndarray, device: str) -> Batch:
    """What a trainee reads of these rows."""
    x, mask = inputs.batch(rows)
    none = torch.from_numpy(inputs.lengths[rows] == 0)
    return x.to(device), mask.to(device), none.to(device) if none.any() else None


@torch.no_grad()
def predict_rows(
    trainees: Sequence[Trainee], inputs: Inputs, rows: np.ndarray, classes: int, device: str
) -> list[np.ndarray]:
    """Of each the logits (a regression's values) float32 [n, C] of rows of the cache, in evaluation mode, float32."""
    found = [np.empty((len(rows), classes), np.float32) for _ in trainees]
    for trainee in trainees:
        trainee.eval()
    for places in even_batches(inputs.lengths, rows):
        batch = make_batch(inputs, rows[places], device)
        for trainee, logits in zip(trainees, found, strict=True):
            logits[places] = trainee(*batch).float().cpu().numpy()
    return found
