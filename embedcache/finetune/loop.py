"""The training of one configuration: AdamW with a rate for the layers and one for the head, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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


@dataclass(frozen=True)
class LoopOptions:
    """What holds for all configurations. choose: loss, accuracy or macro_f1; path: of the checkpoint; tell: rows."""

    early_stop: int
    choose: str
    device: str
    bfloat16: bool
    path: Path
    resume: bool
    tell: Callable[[int], None]


class Training:
    """One configuration on the rows of one task.

    Attributes:
        state: where it is. ended: whether there was nothing left to train: the checkpoint said so.
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
        self.ended = False
        self.adamw = make_adamw(trainee, config)
        self._saved = time.monotonic()

    def save(self) -> None:
        """A checkpoint of now."""
        save_state(self.options.path, self.state, self.trainee, self.adamw)

    def run(self) -> State:
        """Train to the end, from the checkpoint where there is one; the file then holds what became of it."""
        progress = self._restore()
        while not progress.status:
            if progress.epoch == self.config.epochs:
                progress.status = "ok" if progress.best_epoch >= 0 else "diverged"
                break
            self._epoch()
        save_state(self.options.path, self.state, None, None)
        return self.state

    def _restore(self) -> Progress:
        found = load_state(self.options.path, self.state.progress.identity) if self.options.resume else None
        if found is not None:
            self.state, arrays = found
            self.ended = bool(self.state.progress.status)
            if not self.ended:
                restore(arrays, self.trainee, self.adamw)
            progress = self.state.progress
            done = progress.epoch * len(self.task.train.rows) + progress.step * self.config.batch_size
            self.options.tell(self.total if self.ended else done)
        return self.state.progress

    @property
    def total(self) -> int:
        """Rows of all epochs."""
        return self.config.epochs * len(self.task.train.rows)

    def _epoch(self) -> None:
        progress, task, config = self.state.progress, self.task, self.config
        batches = epoch_batches(
            self.inputs.lengths, task.train.rows, config.batch_size, config.spec.seed, progress.epoch
        )
        self.trainee.train()
        for rows in batches[progress.step :]:
            loss = self.step(rows)
            if not math.isfinite(loss):
                progress.status = "diverged"
                return
            progress.loss += loss * len(rows)
            progress.step += 1
            self.options.tell(len(rows))
            self._save_now_and_then()
        self._judge(progress.loss / len(task.train.rows))
        progress.epoch, progress.step, progress.loss = progress.epoch + 1, 0, 0.0
        patience = self.options.early_stop
        if not progress.status and patience and progress.epoch - 1 - progress.best_epoch >= patience:
            progress.status = "ok"
        self._save_now_and_then()

    def step(self, rows: np.ndarray) -> float:
        """One step on these rows; the loss before it."""
        progress, spec = self.state.progress, self._spec
        number = progress.epoch * self.steps + progress.step
        torch.manual_seed((spec.seed * 1_000_003 + number) % SEEDS)
        with torch.autocast(self.options.device.split(":")[0], torch.bfloat16, enabled=self.options.bfloat16):
            z = self._logits(rows)
        loss = training_loss(
            spec, self._kind, self._scaled(z.float()), self._targets(self.task.train, rows), self._train_weight
        )
        factor = lr_factor(spec, number, self.config.epochs * self.steps)
        for group in self.adamw.param_groups:
            group["lr"] = group["highest"] * factor
        self.adamw.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.adamw.param_groups for p in group["params"]], CLIP)
        self.adamw.step()
        return float(loss.detach())

    def _logits(self, rows: np.ndarray) -> Tensor:
        device = self.options.device
        x, mask = self.inputs.batch(rows)
        none = torch.from_numpy(self.inputs.lengths[rows] == 0)
        out: Tensor = self.trainee(x.to(device), mask.to(device), none.to(device) if none.any() else None)
        return out

    @torch.no_grad()
    def outputs(self, rows: np.ndarray) -> np.ndarray:
        """Logits (a regression's values) float32 [n, C] of rows of the cache."""
        return predict_rows(self.trainee, self.inputs, rows, self.task.classes, self.options.device)

    def _scaled(self, z: Tensor) -> Tensor:
        return z if self._unit is None else (z - self._unit[0]) / self._unit[1]

    def _targets(self, view: View, rows: np.ndarray) -> Tensor:
        y = view.y[rows]
        return torch.from_numpy(y.astype(np.int64) if self._kind.exclusive else y).to(self.options.device)

    def _judge(self, train_loss: float) -> None:
        """Validate an epoch, and keep it where it is the best so far; without validation rows the last is."""
        state, val = self.state, self.task.val
        scores: dict[str, float] = dict.fromkeys(HISTORY, math.nan)
        scores["train_loss"] = train_loss
        outputs = None
        if val is not None:
            outputs = self.outputs(val.rows)
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


@torch.no_grad()
def predict_rows(trainee: Trainee, inputs: Inputs, rows: np.ndarray, classes: int, device: str) -> np.ndarray:
    """Logits float32 [n, C] of rows of the cache, in evaluation mode and float32."""
    trainee.eval()
    found = np.empty((len(rows), classes), np.float32)
    for places in even_batches(inputs.lengths, rows):
        x, mask = inputs.batch(rows[places])
        empty = torch.from_numpy(inputs.lengths[rows[places]] == 0).to(device)
        z = trainee(x.to(device), mask.to(device), empty if bool(empty.any()) else None)
        found[places] = z.float().cpu().numpy()
    return found
