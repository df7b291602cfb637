"""The engine in plain torch, float32: the same training with the same random streams, readable and slower.

It does the work where the native library cannot be had, and is one of the references in the tests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from embedcache.errors import EmbedcacheError
from embedcache.heads import philox
from embedcache.heads.bank import Options, Outcome, Progress, Task, View, empty_outcome, weight_shapes
from embedcache.heads.spec import HeadSpec

VAL_ROWS = 4096
TELL_SECONDS = 0.1


class TorchEngine:
    """Trains head after head on one torch device ("auto": a GPU if torch has one)."""

    def __init__(self, device: str) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if device.startswith("cuda"):
            number = int(device.partition(":")[2] or 0)
            if number >= torch.cuda.device_count():
                raise EmbedcacheError(f"torch has no device {device}: use device cpu, or install torch with CUDA")
            device = f"cuda:{number}"
        self.device = device
        self.name = f"torch-{device.partition(':')[0]}"

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
                progress(done, total)

        runs = [_Run(spec, tasks[task], options, self.device) for spec, task in heads]
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(options.threads or threads)
            for run in runs:
                run.train(add)
            if progress is not None:
                progress(total, total)  # heads that stopped early have nothing left to do
        except KeyboardInterrupt:
            pass
        finally:
            torch.set_num_threads(threads)
        return [run.outcome for run in runs]


class _Run:
    """One head: its parameters, their moments and what is known of the best epoch."""

    def __init__(self, spec: HeadSpec, task: Task, options: Options, device: str) -> None:
        self.spec, self.task, self.options, self.device = spec, task, options, device
        self.shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
        self.mean, self.inv_std, self.class_weight = (
            None if vector is None else torch.from_numpy(vector).to(device)
            for vector in (task.mean, task.inv_std, task.class_weight)
        )
        self.outcome = empty_outcome(spec, task, options.epochs)

    def train(self, add: Callable[[int], None]) -> None:
        initial = philox.initial_weights(self.spec.seed, self.shapes)
        w = {name: nn.Parameter(torch.from_numpy(array).to(self.device)) for name, array in initial.items()}
        s = self.spec
        adamw = torch.optim.AdamW(w.values(), lr=s.lr, betas=s.betas, eps=s.eps, weight_decay=s.weight_decay)
        out = self.outcome
        best_loss = math.inf
        for epoch in range(self.options.epochs):
            loss = self._epoch(w, adamw, epoch, add)
            if not math.isfinite(loss):
                out.status = "diverged"
                return
            val_loss, val_accuracy = self._validate(w)
            out.epochs_run = epoch + 1
            out.train_loss[epoch], out.val_loss[epoch], out.val_accuracy[epoch] = loss, val_loss, val_accuracy
            if self.task.val is None or val_loss < best_loss:
                best_loss, out.best_epoch = val_loss, epoch
                out.weights = {name: value.detach().cpu().numpy().copy() for name, value in w.items()}
            elif not math.isfinite(val_loss):
                out.status = "diverged"
                return
            elif self.options.early_stop and epoch - out.best_epoch >= self.options.early_stop:
                break
        out.status = "ok"

    def _epoch(
        self,
        w: dict[str, nn.Parameter],
        adamw: torch.optim.AdamW,
        epoch: int,
        add: Callable[[int], None],
    ) -> float:
        """One epoch's steps; the mean loss over its batches, weighted by rows, or NaN as soon as one is not finite."""
        view, batch_size = self.task.train, self.options.batch_size
        n = len(view.rows)
        steps = -(-n // batch_size)
        order = philox.shuffle(self.spec.seed, epoch, n)
        total = 0.0
        for i in range(steps):
            x, y = self._batch(view, order[i * batch_size : (i + 1) * batch_size])
            loss = nn.functional.nll_loss(self._forward(w, x, epoch * steps + i), y, self.class_weight)
            value = float(loss.detach())
            if not math.isfinite(value):
                return math.nan
            adamw.zero_grad()
            loss.backward()
            adamw.step()
            total += value * len(y)
            add(len(y))
        return total / n

    def _forward(self, w: dict[str, nn.Parameter], x: torch.Tensor, step: int | None) -> torch.Tensor:
        """Log-probabilities; ``step`` None: without dropout."""
        if self.spec.hidden:
            x = nn.functional.relu(nn.functional.linear(x, w["w1"], w["b1"]))
            if step is not None and self.spec.dropout:
                p = self.spec.dropout
                kept = philox.dropout_kept(self.spec.seed, step, len(x), self.spec.hidden, p)
                x = x * torch.from_numpy(kept).to(self.device) * (1.0 / (1.0 - p))
        return nn.functional.log_softmax(nn.functional.linear(x, w["w2"], w["b2"]), dim=1)

    @torch.no_grad()
    def _validate(self, w: dict[str, nn.Parameter]) -> tuple[float, float]:
        view = self.task.val
        if view is None:
            return math.nan, math.nan
        loss = weight = right = 0.0
        for start in range(0, len(view.rows), VAL_ROWS):
            x, y = self._batch(view, np.arange(start, min(start + VAL_ROWS, len(view.rows))))
            log_p = self._forward(w, x, None)
            loss += float(nn.functional.nll_loss(log_p.double(), y, self._double_class_weight(), reduction="sum"))
            weight += float(len(y) if self.class_weight is None else self.class_weight[y].double().sum())
            right += float((log_p.argmax(dim=1) == y).sum())
        return loss / weight, right / len(view.rows)

    def _double_class_weight(self) -> torch.Tensor | None:
        return None if self.class_weight is None else self.class_weight.double()

    def _batch(self, view: View, positions: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        rows = view.rows[positions]
        x = torch.from_numpy(view.x[rows].astype(np.float32)).to(self.device)
        if self.mean is not None and self.inv_std is not None:
            x = (x - self.mean) * self.inv_std
        return x, torch.from_numpy(view.y[rows].astype(np.int64)).to(self.device)
