"""Training of a head in float64 NumPy, written from the formulas, for the engines to be measured against.

Its own Philox, with Python's integers, is the third after csrc/heads/numerics.h and embedcache/heads/random_streams.py.
Losses, schedules and scores are themselves compared with torch, transformers and scikit-learn
(test_float64_reference.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from embedcache.heads import random_streams
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View, weight_shapes


def philox_words(seed: int, c0: int, c1: int, c2: int, c3: int) -> list[int]:
    """Philox4x32-10 of one counter."""
    k0, k1, mask = seed & 0xFFFFFFFF, seed >> 32, 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return [c0, c1, c2, c3]


@dataclass
class Trained:
    initial: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]  # after the last step
    step_loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    val_macro_f1: list[float] = field(default_factory=list)
    of_epoch: list[dict[str, np.ndarray]] = field(default_factory=list)


def batches(spec: HeadSpec, n: int, batch_size: int, epoch: int) -> list[np.ndarray]:
    order = random_streams.shuffle(spec.seed, epoch, n)
    return [order[i : i + batch_size] for i in range(0, n, batch_size)]


def standardised(task: Task, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    if task.mean is None or task.inv_std is None:
        return x
    return (x - task.mean.astype(np.float64)) * task.inv_std.astype(np.float64)


# ---- Losses: (mean loss of a batch, its gradient by the logits z [n, outputs]); sample: the rows' weights [n] ----


def column(sample, n):
    """[n, 1]."""
    return np.ones((n, 1)) if sample is None else sample.astype(np.float64)[:, None]


def nll(z, y, weight=None, smoothing=0.0, sample=None):
    """torch.nn.CrossEntropyLoss; y: classes [n]."""
    n, classes = z.shape
    w = np.ones(classes) if weight is None else weight.astype(np.float64)
    top = z.max(axis=1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    q = np.tile(smoothing / classes * w, (n, 1))  # what each class counts in each row
    q[np.arange(n), y] += (1.0 - smoothing) * w[y]
    q *= column(sample, n)
    return -(q * log_p).sum() / w[y].sum(), (q.sum(axis=1, keepdims=True) * np.exp(log_p) - q) / w[y].sum()


def bce(z, targets, weight=None, smoothing=0.0, sample=None):
    """torch.nn.BCEWithLogitsLoss, weight: its pos_weight; targets [n, outputs] 0 or 1, then smoothed."""
    w = 1.0 if weight is None else weight.astype(np.float64)
    t = targets * (1.0 - smoothing) + 0.5 * smoothing
    loss, s = w * t * np.logaddexp(0, -z) + (1.0 - t) * np.logaddexp(0, z), column(sample, len(z))
    return (s * loss).mean(), s * ((w * t + 1.0 - t) * np.exp(-np.logaddexp(0, -z)) - w * t) / z.size


def mse(z, targets, weight=None, smoothing=0.0, sample=None):
    """torch.nn.MSELoss; targets [n, outputs]. It has neither weights nor smoothing."""
    assert weight is None
    s = column(sample, len(z))
    return (s * (z - targets) ** 2).mean(), s * 2.0 * (z - targets) / z.size


LOSSES = {"classification": nll, "multilabel": bce, "regression": mse}


def focal_value(log_p, gamma):
    """(-(1 - p)^gamma log p, its derivative by log p), from the formula and its product rule."""
    p, q = np.exp(log_p), -np.expm1(log_p)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = gamma * q ** (gamma - 1.0) * p * log_p - q**gamma
    return -(q**gamma) * log_p, np.where(q > 0, slope, -1.0 if gamma == 0 else 0.0)


def focal(z, y, weight=None, smoothing=0.0, gamma=2.0, sample=None):
    """nll with the focal loss of every class's log-probability in place of -log p."""
    n, classes = z.shape
    w = np.ones(classes) if weight is None else weight.astype(np.float64)
    top = z.max(axis=1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))
    counts = np.tile(smoothing / classes * w, (n, 1))
    counts[np.arange(n), y] += (1.0 - smoothing) * w[y]
    counts *= column(sample, n)
    value, slope = focal_value(log_p, gamma)
    pull = counts * slope
    gradient = pull - pull.sum(axis=1, keepdims=True) * np.exp(log_p)
    return (counts * value).sum() / w[y].sum(), gradient / w[y].sum()


def focal_labels(z, targets, weight=None, smoothing=0.0, gamma=2.0, sample=None):
    """bce with the focal loss of each label's being there or not."""
    w = 1.0 if weight is None else weight.astype(np.float64)
    t = targets * (1.0 - smoothing) + 0.5 * smoothing
    log_p, log_q = -np.logaddexp(0, -z), -np.logaddexp(0, z)
    (there, there_slope), (absent, absent_slope) = focal_value(log_p, gamma), focal_value(log_q, gamma)
    gradient = w * t * there_slope * np.exp(log_q) - (1.0 - t) * absent_slope * np.exp(log_p)
    s = column(sample, len(z))
    return (s * (w * t * there + (1.0 - t) * absent)).mean(), s * gradient / z.size


FOCAL = {"classification": focal, "multilabel": focal_labels}


def training_loss(kind: str, spec: HeadSpec, z, y, weight, sample=None):
    """Of a head's batch."""
    if spec.loss == "focal":
        return FOCAL[kind](z, y, weight, spec.label_smoothing, spec.focal_gamma, sample)
    return LOSSES[kind](z, y, weight, spec.label_smoothing, sample)


# ---- Scores of validation logits ----


def scores(kind: str, z: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Accuracy and macro F1."""
    if kind == "regression":
        return math.nan, math.nan
    actual, predicted = y > 0, z > 0
    if kind == "classification":
        actual, predicted = (np.eye(z.shape[1], dtype=bool)[labels] for labels in (y, z.argmax(axis=1)))
    there, both = actual.sum(axis=0) + predicted.sum(axis=0), (actual & predicted).sum(axis=0)
    f1 = 2.0 * both[there > 0] / there[there > 0]
    return float((actual == predicted).all(axis=1).mean()), float(f1.mean()) if len(f1) else math.nan


def lr_factor(schedule: str, warmup: float, step: int, total: int) -> float:
    first = math.ceil(warmup * total)
    if step < first:
        return step / first
    done = (step - first) / max(1, total - first)
    return {"constant": 1.0, "linear": 1.0 - done, "cosine": 0.5 * (1.0 + math.cos(math.pi * done))}[schedule]


def training_weight(task: Task, spec: HeadSpec) -> np.ndarray | None:
    """Of the training loss: the head's own class weights, or the task's."""
    if task.kind == "regression" or spec.class_weight == "none":
        return None
    if spec.class_weight is None:
        return task.class_weight
    if spec.class_weight != "balanced":
        return np.asarray(spec.class_weight, np.float32)
    y = task.train.y[task.train.rows]
    if task.kind == "multilabel":
        there = np.maximum(1, (y > 0).sum(axis=0))
        return (np.maximum(1, len(y) - there) / there).astype(np.float32)
    counts = np.maximum(1, np.bincount(y, minlength=task.classes))
    return (len(y) / (task.classes * counts)).astype(np.float32)


def start(task: Task, spec: HeadSpec) -> dict[str, np.ndarray]:
    """The first weights, float32: of a probe zeros, and the biases of a model that has seen the targets alone."""
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    w = random_streams.initial_weights(spec.seed, shapes)
    if not spec.hidden and task.kind != "regression":
        w["b2"][:] = start_of_probe(task, spec)
    if task.start is not None:
        for name, given in task.start.weights.items():
            rows = task.start.known if name in ("w2", "b2") else slice(None)
            w[name][rows] = given[rows]
    return w


def start_of_probe(task: Task, spec: HeadSpec) -> np.ndarray:
    b2 = np.zeros(task.classes)
    sample = np.ones(len(task.train.rows)) if task.train.sample_weight is None else sample_of(task.train)
    y, weight = task.train.y[task.train.rows], training_weight(task, spec)
    weight = np.ones(task.classes) if weight is None else weight.astype(np.float64)
    if task.kind == "multilabel":
        for c in range(task.classes):
            there = min(max(float(sample[y[:, c] > 0].sum()), 0.5), max(len(y) - 0.5, 0.5))
            rate = weight[c] * there / (weight[c] * there + max(len(y) - there, 0.5))
            b2[c] = math.log(rate / (1.0 - rate))
    else:
        rows = np.array([max(float(sample[y == c].sum()), 0.5) for c in range(task.classes)]) * weight
        b2[:] = np.log(rows / rows.sum())
    return b2


# ---- The head ----


def bfloat16(a: np.ndarray) -> np.ndarray:
    """Rounded to bfloat16, to the nearest and of two to the even one."""
    bits = a.astype(np.float32).view(np.uint32)
    bits = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(np.float64)


def tf32(a: np.ndarray) -> np.ndarray:
    """Rounded to TF32, 11 bits of precision, to the nearest and of two away from zero."""
    bits = (a.astype(np.float32).view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return bits.view(np.float32).astype(np.float64)


ROUND = {"float32": lambda a: a, "bfloat16": bfloat16, "tf32": tf32}  # operands of the first layer's two products


def forward(w, spec, x, kept=None, compute="float32"):
    """Logits, the second layer's inputs and d inputs / d z1 (None in a probe); kept: bool [rows, hidden] or None."""
    if not spec.hidden:
        return x @ w["w2"].T + w["b2"], x, None
    z1 = ROUND[compute](x) @ ROUND[compute](w["w1"]).T + w["b1"]
    slope = (z1 > 0) * (1.0 if kept is None else kept / (1.0 - spec.dropout))
    a = np.where(slope > 0, z1 * slope, 0.0)
    return a @ w["w2"].T + w["b2"], a, slope


def gradients(w, x, a, slope, dz, compute="float32"):
    """Of every parameter, from the gradient by the logits."""
    out = {"w2": dz.T @ a, "b2": dz.sum(axis=0)}
    if slope is not None:
        dz1 = dz @ w["w2"] * slope
        out |= {"w1": ROUND[compute](dz1).T @ ROUND[compute](x), "b1": dz1.sum(axis=0)}
    return out


def adamw(w, m, v, g, spec, lr, t):
    """torch.optim.AdamW, in place; t = 1, 2, ..."""
    beta1, beta2 = spec.betas
    w *= 1.0 - lr * spec.weight_decay
    m += (1.0 - beta1) * (g - m)
    v[...] = beta2 * v + (1.0 - beta2) * g * g
    w -= lr / (1.0 - beta1**t) * m / (np.sqrt(v) / np.sqrt(1.0 - beta2**t) + spec.eps)


def data_of(task: Task, view: View) -> tuple[np.ndarray, np.ndarray]:
    y = view.y[view.rows]
    return standardised(task, view.x[view.rows]), y if task.kind == "classification" else y.astype(np.float64)


def sample_of(view: View) -> np.ndarray | None:
    return None if view.sample_weight is None else view.sample_weight[view.rows].astype(np.float64)


def train(task: Task, spec: HeadSpec, batch_size: int, epochs: int, compute: str = "float32") -> Trained:
    w = {name: array.astype(np.float64) for name, array in start(task, spec).items()}
    out = Trained({name: array.copy() for name, array in w.items()}, w)
    m, v = ({name: np.zeros_like(array) for name, array in w.items()} for _ in range(2))
    x, y = data_of(task, task.train)
    sample = sample_of(task.train)
    weight, step, total = training_weight(task, spec), 0, epochs * -(-len(y) // batch_size)
    for epoch in range(epochs):
        before = step
        for rows in batches(spec, len(y), batch_size, epoch):
            kept = None
            if spec.hidden and spec.dropout:
                kept = random_streams.dropout_kept(spec.seed, step, len(rows), spec.hidden, spec.dropout)
            z, a, slope = forward(w, spec, x[rows], kept, compute)
            loss, dz = training_loss(task.kind, spec, z, y[rows], weight, None if sample is None else sample[rows])
            out.step_loss.append(loss)
            lr = spec.lr * lr_factor(spec.schedule, spec.warmup, step, total)
            step += 1
            for name, g in gradients(w, x[rows], a, slope, dz, compute).items():
                adamw(w[name], m[name], v[name], g, spec, lr, step)
        sizes = [len(rows) for rows in batches(spec, len(y), batch_size, epoch)]
        out.train_loss.append(float(np.average(out.step_loss[before:], weights=sizes)))
        out.of_epoch.append({name: array.copy() for name, array in w.items()})
        if task.val is not None:
            validate(task, spec, w, out)
    return out


def validate(task: Task, spec: HeadSpec, w: dict[str, np.ndarray], out: Trained) -> None:
    x, y = data_of(task, task.val)
    z = forward(w, spec, x)[0]
    out.val_loss.append(float(LOSSES[task.kind](z, y, task.class_weight, sample=sample_of(task.val))[0]))
    accuracy, macro_f1 = scores(task.kind, z, y)
    out.val_accuracy.append(accuracy)
    out.val_macro_f1.append(macro_f1)


def distance(weights: dict[str, np.ndarray], reference: dict[str, np.ndarray], initial: dict[str, np.ndarray]) -> float:
    """Norm of the difference over the norm of the way that the reference travelled, over all parameters."""

    def norm(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum(((a[name].astype(np.float64) - b[name]) ** 2).sum() for name in b)))

    return norm(weights, reference) / norm(initial, reference)
