"""The float64 reference itself, against those whose formulas it follows: torch, transformers and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers
from engines import make_task
from float64_reference import LOSSES, lr_factor, scores, train
from sklearn.metrics import accuracy_score, f1_score

from embedcache.heads import philox
from embedcache.heads.bank import weight_shapes
from embedcache.heads.spec import HeadSpec

KINDS = tuple(LOSSES)


def torch_loss(kind: str, z: torch.Tensor, y: torch.Tensor, weight: np.ndarray | None, smoothing: float):
    w = None if weight is None else torch.tensor(weight, dtype=torch.float64)
    if kind == "classification":
        return torch.nn.CrossEntropyLoss(weight=w, label_smoothing=smoothing)(z, y.long())
    if kind == "multilabel":
        return torch.nn.BCEWithLogitsLoss(pos_weight=w)(z, y * (1 - smoothing) + smoothing / 2)
    return torch.nn.MSELoss()(z, y)


def draw(kind: str, rng: np.random.Generator, n: int, outputs: int) -> np.ndarray:
    if kind == "classification":
        return rng.integers(0, outputs, n)
    return rng.integers(0, 2, (n, outputs)).astype(float) if kind == "multilabel" else rng.normal(size=(n, outputs))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_torchs(kind: str, smoothing: float, weighted: bool) -> None:
    if kind == "regression" and (smoothing or weighted):
        return  # it has neither
    rng = np.random.default_rng(0)
    for outputs in (2, 5, 40):
        z, y = rng.normal(size=(30, outputs)) * 20, draw(kind, rng, 30, outputs)
        weight = rng.uniform(0.1, 5, outputs).astype(np.float32) if weighted else None
        loss, gradient = LOSSES[kind](z, y, weight, smoothing)
        logits = torch.tensor(z, requires_grad=True)
        expected = torch_loss(kind, logits, torch.tensor(y), weight, smoothing)
        expected.backward()
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_transformers(schedule: str, warmup: float) -> None:
    for total in (1, 2, 7, 100):
        adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        made = getattr(transformers, f"get_{schedule}_schedule_with_warmup")
        steps = {} if schedule == "constant" else {"num_training_steps": total}
        scheduler = made(adamw, num_warmup_steps=math.ceil(warmup * total), **steps)
        for step in range(total):
            assert lr_factor(schedule, warmup, step, total) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-15)
            adamw.step()
            scheduler.step()


@pytest.mark.parametrize("kind", ["classification", "multilabel"])
def test_scores_are_scikit_learns(kind: str) -> None:
    """Classes that occur in neither labels nor predictions have no F1."""
    rng = np.random.default_rng(1)
    for n, outputs in ((1, 2), (4, 7), (200, 3), (50, 60)):
        z, y = rng.normal(size=(n, outputs)) - 0.5, draw(kind, rng, n, outputs)
        predicted = z.argmax(axis=1) if kind == "classification" else z > 0
        accuracy, macro_f1 = scores(kind, z, y)
        assert accuracy == pytest.approx(accuracy_score(y, predicted))
        expected = f1_score(y, predicted, average="macro", zero_division=np.nan)
        assert macro_f1 == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0, 24])
def test_training_is_torchs(kind: str, hidden: int) -> None:
    """Backward pass, AdamW, schedule and smoothing together, in float64."""
    task = make_task(70, 12, 3, kind=kind, weighted=kind != "regression")
    smoothing = 0.0 if kind == "regression" else 0.2
    spec = HeadSpec(hidden=hidden, dropout=0.0, schedule="cosine", warmup=0.3, label_smoothing=smoothing, lr=1e-2)
    shapes = weight_shapes(spec, 12, 3)
    w = {name: torch.nn.Parameter(torch.tensor(a).double()) for name, a in philox.initial_weights(0, shapes).items()}
    adamw = torch.optim.AdamW(w.values(), lr=spec.lr, weight_decay=spec.weight_decay)
    scheduler = transformers.get_cosine_schedule_with_warmup(adamw, math.ceil(0.3 * 15), 15)
    x, y = torch.tensor(task.train.x[task.train.rows]).double(), torch.tensor(task.train.y[task.train.rows])
    y = y if kind == "classification" else y.double()
    for epoch in range(3):
        order = torch.tensor(philox.shuffle(0, epoch, 70))
        for rows in order.split(16):
            a = torch.relu(x[rows] @ w["w1"].T + w["b1"]) if hidden else x[rows]
            adamw.zero_grad()
            torch_loss(kind, a @ w["w2"].T + w["b2"], y[rows], task.class_weight, smoothing).backward()
            adamw.step()
            scheduler.step()
    reference = train(task, spec, 16, 3)
    for name, value in w.items():
        np.testing.assert_allclose(reference.weights[name], value.detach().numpy(), rtol=1e-9, atol=1e-12)
