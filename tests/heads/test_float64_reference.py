"""The float64 reference itself, against those whose formulas it follows: torch, transformers and scikit-learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from embedcache.heads.spec import HeadSpec
from tests.heads.engines import make_task
from tests.heads.float64_reference import FOCAL, LOSSES, bfloat16, lr_factor, scores, train, training_weight
from tests.heads.pytorch_loop import focal_function, loss_function, pytorch_train, scheduler_of

KINDS = tuple(LOSSES)


def draw(kind: str, rng: np.random.Generator, n: int, outputs: int) -> np.ndarray:
    if kind == "classification":
        return rng.integers(0, outputs, n)
    return rng.integers(0, 2, (n, outputs)).astype(float) if kind == "multilabel" else rng.normal(size=(n, outputs))


@pytest.mark.parametrize(
    "kind, smoothing, weighted",
    [(kind, s, w) for kind in KINDS[:2] for s in (0.0, 0.1, 0.7) for w in (False, True)] + [("regression", 0.0, False)],
)
def test_losses_are_torchs(kind: str, smoothing: float, weighted: bool) -> None:
    rng = np.random.default_rng(0)
    for outputs in (2, 5, 40):
        z, y = rng.normal(size=(30, outputs)) * 20, draw(kind, rng, 30, outputs)
        weight = rng.uniform(0.1, 5, outputs).astype(np.float32) if weighted else None
        loss, gradient = LOSSES[kind](z, y, weight, smoothing)
        logits = torch.tensor(z, requires_grad=True)
        expected = loss_function(kind, weight, smoothing, torch.float64)(logits, torch.tensor(y))
        expected.backward()
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-12)
        np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("kind", FOCAL)
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("weighted", [False, True])
def test_focal_losses_are_those_of_autograd_and_of_differences(
    kind: str, gamma: float, smoothing: float, weighted: bool
) -> None:
    rng = np.random.default_rng(0)
    for outputs in (2, 5, 40):
        z, y = rng.normal(size=(20, outputs)) * 4, draw(kind, rng, 20, outputs)
        weight = rng.uniform(0.1, 5, outputs).astype(np.float32) if weighted else None
        loss, gradient = FOCAL[kind](z, y, weight, smoothing, gamma)
        logits = torch.tensor(z, requires_grad=True)
        expected = focal_function(kind, weight, smoothing, gamma, torch.float64)(logits, torch.tensor(y))
        expected.backward()
        np.testing.assert_allclose(loss, expected.item(), rtol=1e-10)
        np.testing.assert_allclose(gradient, logits.grad.numpy(), rtol=1e-8, atol=1e-12)
        way = rng.normal(size=z.shape)
        after, before = (FOCAL[kind](z + step * way, y, weight, smoothing, gamma)[0] for step in (1e-6, -1e-6))
        np.testing.assert_allclose((after - before) / 2e-6, (gradient * way).sum(), rtol=1e-6, atol=1e-9)
        if gamma == 0:
            np.testing.assert_allclose(gradient, LOSSES[kind](z, y, weight, smoothing)[1], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_is_that_of_transformers(gamma: float) -> None:
    from transformers.loss.loss_for_object_detection import sigmoid_focal_loss

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(30, 7)) * 4, draw("multilabel", rng, 30, 7)
    theirs = sigmoid_focal_loss(torch.tensor(z), torch.tensor(y), num_boxes=30, alpha=-1, gamma=gamma)
    np.testing.assert_allclose(FOCAL["multilabel"](z, y, gamma=gamma)[0], theirs.item(), rtol=1e-12)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 0.5, 0.99])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_schedules_are_transformers(schedule: str, warmup: float) -> None:
    for total in (1, 2, 7, 100):
        adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = scheduler_of(adamw, schedule, warmup, total)
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


def test_balanced_weights_are_scikit_learns() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    task, spec = make_task(200, 5, 4), HeadSpec(class_weight="balanced")
    y = task.train.y[task.train.rows]
    np.testing.assert_allclose(
        training_weight(task, spec), compute_class_weight("balanced", classes=np.arange(4), y=y), rtol=1e-6
    )
    task = make_task(200, 5, 4, kind="multilabel")
    positive = task.train.y[task.train.rows].mean(axis=0)
    np.testing.assert_allclose(training_weight(task, spec), (1 - positive) / positive, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hidden", [0, 24])
def test_training_is_torchs(kind: str, hidden: int) -> None:
    """Backward pass, dropout, AdamW, schedule, weights and smoothing together, in float64."""
    task = make_task(70, 12, 3, kind=kind, weighted=kind != "regression", standardize=True)
    smoothing = 0.0 if kind == "regression" else 0.2
    plain = HeadSpec(hidden=hidden, dropout=0.3, schedule="cosine", warmup=0.3, label_smoothing=smoothing, lr=1e-2)
    for spec in [plain] + [replace(plain, loss="focal", focal_gamma=1.5)] * (kind in FOCAL):
        expected, reference = pytorch_train(task, spec, 16, 3, torch.float64), train(task, spec, 16, 3)
        for name, value in expected.items():
            np.testing.assert_allclose(reference.weights[name], value, rtol=1e-9, atol=1e-12)


def test_bfloat16_is_torchs() -> None:
    values = np.random.default_rng(0).normal(size=10_000).astype(np.float32) * np.float32(1e3)
    values[:4] = 1 + 2.0**-8, 1 + 3 * 2.0**-8, 0, -(1 + 2.0**-8)  # ties go to the even neighbour
    np.testing.assert_array_equal(bfloat16(values.astype(np.float64)), torch.tensor(values).bfloat16().double().numpy())
