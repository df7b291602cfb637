"""The training loop that a user of plain PyTorch would write, with the engine's random numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import transformers

from embedcache.heads import random_streams
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, training_weight
from tests.heads.float64_reference import batches, standardised, start


def loss_function(kind: str, weight: np.ndarray | None, smoothing: float, dtype: torch.dtype) -> Any:
    """(logits, targets) -> loss."""
    w = None if weight is None else torch.tensor(weight, dtype=dtype)
    if kind == "classification":
        return torch.nn.CrossEntropyLoss(weight=w, label_smoothing=smoothing)
    if kind == "multilabel":
        bce = torch.nn.BCEWithLogitsLoss(pos_weight=w)
        return lambda z, y: bce(z, y * (1 - smoothing) + smoothing / 2)
    return torch.nn.MSELoss()


def focal_function(kind: str, weight: np.ndarray | None, smoothing: float, gamma: float, dtype: torch.dtype) -> Any:
    """(logits, targets) -> focal loss."""
    w = 1.0 if weight is None else torch.tensor(weight, dtype=dtype)

    def focal(log_p: torch.Tensor) -> torch.Tensor:
        return -((1 - log_p.exp()) ** gamma) * log_p

    def of_classes(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        hot = torch.nn.functional.one_hot(y, z.shape[1]).to(dtype)
        counts = w * (hot * (1 - smoothing) + smoothing / z.shape[1])
        return (counts * focal(z.log_softmax(dim=1))).sum() / (w * hot).sum()

    def of_labels(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        t, there, absent = y * (1 - smoothing) + smoothing / 2, z.sigmoid().log(), (-z).sigmoid().log()
        return (w * t * focal(there) + (1 - t) * focal(absent)).mean()

    return of_classes if kind == "classification" else of_labels


def scheduler_of(adamw: torch.optim.Optimizer, schedule: str, warmup: float, total: int) -> Any:
    make = getattr(transformers, f"get_{schedule}_schedule_with_warmup")
    steps = {} if schedule == "constant" else {"num_training_steps": total}
    return make(adamw, num_warmup_steps=math.ceil(warmup * total), **steps)


def pytorch_train(
    task: Task, spec: HeadSpec, batch_size: int, epochs: int, dtype: torch.dtype
) -> dict[str, np.ndarray]:
    """The weights after the last epoch."""
    w = {name: torch.nn.Parameter(torch.tensor(array, dtype=dtype)) for name, array in start(task, spec).items()}
    x = torch.tensor(standardised(task, task.train.x[task.train.rows]), dtype=dtype)
    y = torch.tensor(task.train.y[task.train.rows])
    y = y.long() if task.kind == "classification" else y.to(dtype)
    weight, smoothing = training_weight(spec, task), spec.label_smoothing
    loss = loss_function(task.kind, weight, smoothing, dtype)
    if spec.loss == "focal":
        loss = focal_function(task.kind, weight, smoothing, spec.focal_gamma, dtype)
    adamw = torch.optim.AdamW(w.values(), lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay)
    scheduler = scheduler_of(adamw, spec.schedule, spec.warmup, epochs * -(-len(y) // batch_size))
    step = 0
    for epoch in range(epochs):
        for rows in batches(spec, len(y), batch_size, epoch):
            a = x[rows]
            if spec.hidden:
                a = torch.relu(torch.nn.functional.linear(a, w["w1"], w["b1"]))
                if spec.dropout:
                    kept = random_streams.dropout_kept(spec.seed, step, len(rows), spec.hidden, spec.dropout)
                    a = a * torch.tensor(kept) / (1 - spec.dropout)
            adamw.zero_grad()
            loss(torch.nn.functional.linear(a, w["w2"], w["b2"]), y[rows]).backward()
            adamw.step()
            scheduler.step()
            step += 1
    return {name: value.detach().numpy() for name, value in w.items()}
