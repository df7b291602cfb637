"""Training of a head in float64 NumPy, written from the formulas, for the engines to be measured against.

Its own Philox, with Python's integers, is the third after csrc/numerics.h and embedcache/heads/philox.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from embedcache.heads import philox
from embedcache.heads.bank import Task, weight_shapes
from embedcache.heads.spec import HeadSpec


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
    of_epoch: list[dict[str, np.ndarray]] = field(default_factory=list)


def batches(spec: HeadSpec, n: int, batch_size: int, epoch: int) -> list[np.ndarray]:
    order = philox.shuffle(spec.seed, epoch, n)
    return [order[i : i + batch_size] for i in range(0, n, batch_size)]


def standardised(task: Task, x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    if task.mean is None or task.inv_std is None:
        return x
    return (x - task.mean.astype(np.float64)) * task.inv_std.astype(np.float64)


def loss_and_gradients(w, spec, x, y, class_weight, kept):
    """Weighted mean NLL of a batch and its gradient by every parameter; kept: bool [rows, hidden] or None."""
    a, scale = x, 1.0
    if spec.hidden:
        z1 = x @ w["w1"].T + w["b1"]
        scale = 1.0 if kept is None else 1.0 / (1.0 - spec.dropout)
        on = (z1 > 0) if kept is None else (z1 > 0) & kept
        a = np.where(on, z1 * scale, 0.0)
    z = a @ w["w2"].T + w["b2"]
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    weight = np.ones(len(y)) if class_weight is None else class_weight.astype(np.float64)[y]
    at_target = np.arange(len(y)), y
    loss = -(weight * log_p[at_target]).sum() / weight.sum()
    dz = np.exp(log_p)
    dz[at_target] -= 1.0
    dz *= (weight / weight.sum())[:, None]
    gradients = {"w2": dz.T @ a, "b2": dz.sum(axis=0)}
    if spec.hidden:
        dz1 = np.where(on, dz @ w["w2"] * scale, 0.0)
        gradients = {"w1": dz1.T @ x, "b1": dz1.sum(axis=0), **gradients}
    return loss, log_p, gradients


def train(task: Task, spec: HeadSpec, batch_size: int, epochs: int) -> Trained:
    shapes = weight_shapes(spec, task.train.x.shape[1], task.classes)
    w = {name: array.astype(np.float64) for name, array in philox.initial_weights(spec.seed, shapes).items()}
    out = Trained({name: array.copy() for name, array in w.items()}, w)
    m = {name: np.zeros_like(array) for name, array in w.items()}
    v = {name: np.zeros_like(array) for name, array in w.items()}
    x, y = standardised(task, task.train.x[task.train.rows]), task.train.y[task.train.rows]
    (beta1, beta2), t = spec.betas, 0
    for epoch in range(epochs):
        total = 0.0
        for rows in batches(spec, len(y), batch_size, epoch):
            kept = None
            if spec.hidden and spec.dropout:
                kept = philox.dropout_kept(spec.seed, t, len(rows), spec.hidden, spec.dropout)
            loss, _, gradients = loss_and_gradients(w, spec, x[rows], y[rows], task.class_weight, kept)
            out.step_loss.append(loss)
            total += loss * len(rows)
            t += 1
            for name, g in gradients.items():  # torch.optim.AdamW
                w[name] *= 1.0 - spec.lr * spec.weight_decay
                m[name] += (1.0 - beta1) * (g - m[name])
                v[name] = beta2 * v[name] + (1.0 - beta2) * g * g
                denominator = np.sqrt(v[name]) / np.sqrt(1.0 - beta2**t) + spec.eps
                w[name] -= spec.lr / (1.0 - beta1**t) * m[name] / denominator
        out.train_loss.append(total / len(y))
        out.of_epoch.append({name: array.copy() for name, array in w.items()})
        if task.val is not None:
            xv, yv = standardised(task, task.val.x[task.val.rows]), task.val.y[task.val.rows]
            loss, log_p, _ = loss_and_gradients(w, spec, xv, yv, task.class_weight, None)
            out.val_loss.append(loss)
            out.val_accuracy.append(float((log_p.argmax(axis=1) == yv).mean()))
    return out


def distance(weights: dict[str, np.ndarray], reference: dict[str, np.ndarray], initial: dict[str, np.ndarray]) -> float:
    """Norm of the difference over the norm of the way that the reference travelled, over all parameters."""

    def norm(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
        return float(np.sqrt(sum(((a[name].astype(np.float64) - b[name]) ** 2).sum() for name in b)))

    return norm(weights, reference) / norm(initial, reference)
