"""The engine in plain torch: the same training with the same random streams, readable and slower.

It does the work where the native library cannot be had, and is one of the references in the tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from embedcache.common.devices import read_device
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.heads import random_streams
from embedcache.heads.kinds import Kind, kind_of
from embedcache.heads.losses import LOSSES
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import (
    Options,
    Outcome,
    Task,
    View,
    empty_outcome,
    start_weights,
    training_weight,
    weight_shapes,
)

VAL_ROWS = 4096
TELL_SECONDS = 0.1


class TorchEngine:
    """Trains head after head on one torch device ("auto": a GPU if torch has one)."""

    def __init__(self, device: str) -> None:
        kind, number = read_device(device)
        if kind == "auto":
            kind = "cuda" if torch.cuda.is_available() else "cpu"
        if kind == "cuda" and (number or 0) >= torch.cuda.device_count():
            raise EmbedcacheError(f"torch finds no GPU for device {device}: use device cpu or auto")
        self.device = f"cuda:{number or 0}" if kind == "cuda" else "cpu"
        self.name = f"torch-{kind}"

    def train(
        self,
        tasks: Sequence[Task],
        heads: Sequence[tuple[HeadSpec, int]],
        options: Options,
        progress: Progress | None,
    ) -> list[Outcome]:
        """Train the bank; on KeyboardInterrupt return what there is, the rest "cancelled"."""
        total = sum(len(tasks[task].train.rows) for _, task in heads) * options.epochs
        done, told = 0, time.monotonic()

        def add(rows: int) -> None:
            nonlocal done, told
            done += rows
            if progress is not None and time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                progress(done, total, done)

        runs = [_Run(spec, tasks[task], options, self.device) for spec, task in heads]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(options.threads or threads)
            for run in runs:
                run.train(add)
            if progress is not None:
                progress(total, total, total)  # heads that stopped early have nothing left to do
        except KeyboardInterrupt:
            pass
        finally:
            torch.set_num_threads(threads)
        return [run.finished() for run in runs]


class _Run:
    """One head: its parameters, their moments and what is known of the best epoch."""

    def __init__(self, spec: HeadSpec, task: Task, options: Options, device: str) -> None:
        self.spec, self.task, self.options, self.device = spec, task, options, device
        self.shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
        self.mean, self.inv_std, self.train_weight, self.val_weight = (
            None if vector is None else torch.from_numpy(vector).to(device)
            for vector in (task.mean, task.inv_std, training_weight(spec, task), task.class_weight)
        )
        self.steps = -(-len(task.train.rows) // options.batch_size)  # of an epoch
        self.outcome = empty_outcome(spec, task, options)

    def train(self, add: Callable[[int], None]) -> None:
        initial = random_streams.initial_weights(self.spec.seed, self.shapes)
        initial |= start_weights(self.spec, self.task)
        w = {name: nn.Parameter(torch.tensor(array, device=self.device)) for name, array in initial.items()}
        s = self.spec
        adamw = torch.optim.AdamW(w.values(), lr=s.lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
        out = self.outcome
        best_score, best_loss = -math.inf, math.inf
        for epoch in range(self.options.epochs):
            # 1. All steps; a loss that is not finite ends the head before the epoch counts.
            loss = self._epoch(w, adamw, epoch, add)
            if not math.isfinite(loss):
                out.status = "diverged"
                return
            # 2. Validate, and keep the weights if they are the best so far; without validation rows the last are.
            val_loss, out.val_accuracy[epoch], out.val_macro_f1[epoch] = self._validate(w)
            out.epochs_run = epoch + 1
            out.train_loss[epoch], out.val_loss[epoch] = loss, val_loss
            score = self._chosen_score(epoch)
            if self.task.val is None or (val_loss < math.inf and (score, -val_loss) > (best_score, -best_loss)):
                best_score, best_loss, out.best_epoch = score, val_loss, epoch
                for name, value in w.items():
                    np.copyto(out.weights[name], value.detach().cpu().numpy())
            # 3. End early where the validation loss exploded, or nothing got better for long enough.
            elif not math.isfinite(val_loss):
                out.status = "diverged"
                return
            elif self.options.early_stop and epoch - out.best_epoch >= self.options.early_stop:
                break
        out.status = "ok"

    def finished(self) -> Outcome:
        """The outcome, without the weights that are not all finite: the very last step may overflow."""
        out = self.outcome
        if not all(np.isfinite(array).all() for array in out.weights.values()):
            for array in out.weights.values():
                array.fill(0)
            out.status, out.best_epoch = "diverged", -1
        return out

    def _chosen_score(self, epoch: int) -> float:
        """The score that decides before the loss, as csrc/heads/numerics.h has it; -1 where there is none."""
        scores = {"accuracy": self.outcome.val_accuracy, "macro_f1": self.outcome.val_macro_f1}
        score = float(scores[self.options.choose][epoch]) if self.options.choose in scores else 0.0
        return -1.0 if math.isnan(score) else score

    def _epoch(
        self,
        w: dict[str, nn.Parameter],
        adamw: torch.optim.AdamW,
        epoch: int,
        add: Callable[[int], None],
    ) -> float:
        """One epoch's steps; the mean loss over its batches, weighted by rows, or NaN as soon as one is not finite."""
        s, view, batch_size = self.spec, self.task.train, self.options.batch_size
        order = random_streams.shuffle(s.seed, epoch, len(view.rows))
        total = 0.0
        for i in range(self.steps):
            step = epoch * self.steps + i
            # (rows, D) float32, (rows, ...), (rows,) or None
            x, y, sample = self._batch(view, order[i * batch_size : (i + 1) * batch_size])
            z = self._forward(w, x, step)
            loss = training_loss(s, kind_of(self.task.kind), z, y, self.train_weight, sample)
            value = float(loss.detach())
            if not math.isfinite(value):
                return math.nan
            adamw.zero_grad()
            loss.backward()
            adamw.param_groups[0]["lr"] = s.lr * lr_factor(s, step, self.options.epochs * self.steps)
            adamw.step()
            total += value * len(y)
            add(len(y))
        return total / len(view.rows)

    def _forward(self, w: dict[str, nn.Parameter], x: torch.Tensor, step: int | None) -> torch.Tensor:
        """Logits; ``step`` None: without dropout."""
        if self.spec.hidden:
            bfloat16 = self.options.compute == "bfloat16" and step is not None  # validation is of the float32 weights
            first = _BFloat16Linear.apply if bfloat16 else functional.linear
            x = functional.relu(first(x, w["w1"], w["b1"]))  # (rows, hidden)
            if step is not None and self.spec.dropout:
                p = self.spec.dropout
                kept = random_streams.dropout_kept(self.spec.seed, step, len(x), self.spec.hidden, p)
                x = x * torch.from_numpy(kept).to(self.device) * (1.0 / (1.0 - p))
        return functional.linear(x, w["w2"], w["b2"])  # (rows, C)

    @torch.no_grad()
    def _validate(self, w: dict[str, nn.Parameter]) -> tuple[float, float, float]:
        """Loss, accuracy and macro F1; NaN where there is none."""
        view, kind, weight = self.task.val, kind_of(self.task.kind), self.val_weight
        if view is None:
            return math.nan, math.nan, math.nan
        loss = total = right = 0.0
        counts = torch.zeros((3, self.task.classes), dtype=torch.int64, device=self.device)
        for start in range(0, len(view.rows), VAL_ROWS):
            x, y, sample = self._batch(view, np.arange(start, min(start + VAL_ROWS, len(view.rows))))
            z = self._forward(w, x, None)
            double = None if weight is None else weight.double()
            target = y if kind.exclusive else y.double()
            loss += float(row_sum(likelihood(kind, z.double(), target, double, 0.0, "none"), sample))
            total += float(double[y].sum()) if kind.exclusive and double is not None else y.numel()
            chunk = counts_of(kind, z, y)
            right, counts = right + float(chunk[1]), counts + chunk[0]
        if not kind.has_classes:
            return loss / total, math.nan, math.nan
        return loss / total, right / len(view.rows), macro_f1(counts)

    def _batch(self, view: View, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """x, y and the sample weights of some rows."""
        rows = view.rows[positions]
        x = torch.from_numpy(view.x[rows].astype(np.float32)).to(self.device)
        if self.mean is not None and self.inv_std is not None:
            x = (x - self.mean) * self.inv_std
        y = view.y[rows]
        y = torch.from_numpy(y.astype(np.int64) if kind_of(self.task.kind).exclusive else y).to(self.device)
        sample = None if view.sample_weight is None else torch.from_numpy(view.sample_weight[rows]).to(self.device)
        return x, y, sample


class _BFloat16Linear(torch.autograd.Function):
    """x w' + b: operands of both products rounded to bfloat16, sums in float32; no gradient to x."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        x = x.bfloat16().float()
        ctx.save_for_backward(x)
        return functional.linear(x, w.bfloat16().float(), b)

    @staticmethod
    def backward(ctx: Any, dz: torch.Tensor) -> tuple[None, torch.Tensor, torch.Tensor]:
        (x,) = ctx.saved_tensors
        return None, dz.bfloat16().float().T @ x, dz.sum(dim=0)


def lr_factor(spec: HeadSpec, step: int, total: int) -> float:
    """What a step (from 0) of so many multiplies lr by, as transformers' get_..._schedule_with_warmup."""
    first = math.ceil(spec.warmup * total)
    if step < first:
        return step / first
    done = (step - first) / max(1, total - first)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[spec.schedule]


def training_loss(
    spec: HeadSpec,
    kind: Kind,
    z: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    sample: torch.Tensor | None = None,
) -> torch.Tensor:
    """What a batch's logits [n, C] cost; y as ``likelihood`` has it, weight: of classes [C], sample: of rows [n]."""
    reduction = "mean" if sample is None else "none"
    if spec.loss == "nll":
        loss = likelihood(kind, z, y, weight, spec.label_smoothing, reduction)
    else:
        one = LOSSES[spec.loss]
        setting = getattr(spec, one.setting) if one.setting else 0.0
        loss = _general_loss(kind, z, y, weight, spec.label_smoothing, lambda p: one.value(p, setting), reduction)
    if sample is None:
        return loss
    # The rows' weights have a mean of 1: what the sum is divided by does not depend on them.
    count = weight[y].sum() if kind.exclusive and weight is not None else y.numel()
    return row_sum(loss, sample) / count


def row_sum(loss: torch.Tensor, sample: torch.Tensor | None) -> torch.Tensor:
    """The sum of losses [n] or [n, C], each row's times its weight."""
    if sample is None:
        return loss.sum()
    return (loss * sample.reshape(-1, *[1] * (loss.ndim - 1))).sum()


def likelihood(
    kind: Kind,
    z: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    smoothing: float,
    reduction: str = "mean",
) -> torch.Tensor:
    """The negative log-likelihood. y: int64 [n] of classes, else float [n, C]."""
    if kind.exclusive:
        return functional.cross_entropy(z, y, weight, label_smoothing=smoothing, reduction=reduction)
    if kind.has_classes:
        y = y * (1.0 - smoothing) + 0.5 * smoothing
        return functional.binary_cross_entropy_with_logits(z, y, pos_weight=weight, reduction=reduction)
    return functional.mse_loss(z, y, reduction=reduction)


def _general_loss(
    kind: Kind,
    z: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor | None,
    smoothing: float,
    value: Callable[[torch.Tensor], torch.Tensor],
    reduction: str,
) -> torch.Tensor:
    """The same sums over a batch as likelihood, of ``value`` (a loss of log-probabilities) in place of -log p."""
    weights = torch.ones(z.shape[1], dtype=z.dtype, device=z.device) if weight is None else weight
    if kind.exclusive:
        counts = (weights * smoothing / z.shape[1]).repeat(len(z), 1)  # [n, C]: what each class counts in each row
        counts[torch.arange(len(z)), y] += (1.0 - smoothing) * weights[y]  # the rest of the row's own class
        losses = (counts * value(functional.log_softmax(z, dim=1))).sum(dim=1)
        return losses if reduction == "none" else losses.sum() / weights[y].sum()
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    losses = weights * y * value(functional.logsigmoid(z)) + (1.0 - y) * value(functional.logsigmoid(-z))
    return losses if reduction == "none" else losses.mean()


def counts_of(kind: Kind, z: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(int64 [3, C]: rows of each class, rows predicted as it, both at once; how many rows are right altogether)."""
    if kind.exclusive:
        said = z.argmax(dim=1)
        each = (y, said, y[y == said])
        counts = torch.stack([torch.bincount(classes, minlength=z.shape[1]) for classes in each])
        return counts, counts[2].sum()
    is_there, said = y > 0.5, z > 0
    counts = torch.stack([is_there.sum(dim=0), said.sum(dim=0), (is_there & said).sum(dim=0)])
    return counts, (is_there == said).all(dim=1).sum()


def macro_f1(counts: torch.Tensor) -> float:
    """The mean over the classes that occur in either the rows or the predictions."""
    actual, predicted, both = counts.double()
    return float((2 * both / (actual + predicted))[actual + predicted > 0].mean())
