"""Where the long runs of test_engine.py end in float64, and how far from there PyTorch's float32 ends: kept in a file.

    python -m tests.heads.long_references

They take two minutes to compute, which neither each run of the tests nor a lent GPU has to spare. Kept is a sample of
each head's parameters, the same places for everybody: a distance over them is that over all, but for some per cent. A
slow test computes all of it anew.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task
from tests.heads.engines import make_task
from tests.heads.float64_reference import train

FILE = Path(__file__).with_suffix(".npz")
SAMPLE = 1024
SEEDS = range(3)
ALL = {"label_smoothing": 0.1, "class_weight": "balanced", "schedule": "cosine", "warmup": 0.1}
LONG = {  # 200 steps of 768 inputs: kind, outputs, settings
    "plain": ("classification", 2, {"dropout": 0.0}),
    "dropout": ("classification", 2, {}),
    "everything": ("classification", 3, ALL),
    "focal, everything": ("classification", 3, {**ALL, "loss": "focal"}),
    "multilabel, focal": ("multilabel", 4, {"loss": "focal", "focal_gamma": 1.0}),
    "multilabel, everything": ("multilabel", 4, ALL),
    "regression": ("regression", 2, {"schedule": "linear"}),
}


class Reference(NamedTuple):
    """One run: float64 [epochs], float64 [SAMPLE] each, and PyTorch's distance."""

    train_loss: np.ndarray
    end: np.ndarray
    start: np.ndarray
    pytorch: float

    def distance(self, weights: dict[str, np.ndarray]) -> float:
        """From these weights to the end, over the way that the reference travelled."""
        return float(np.linalg.norm(sample(weights) - self.end) / np.linalg.norm(self.start - self.end))


def sample(weights: dict[str, np.ndarray]) -> np.ndarray:
    """float64 [SAMPLE] of all parameters, spread over them as a permutation has it."""
    flat = np.concatenate([weights[name].ravel().astype(np.float64) for name in sorted(weights)])
    return flat[np.random.default_rng(0).permutation(len(flat))[:SAMPLE]]


@cache
def long_task(kind: str, outputs: int) -> Task:
    return make_task(1600, 768, outputs, noise=1.0, kind=kind)  # 50 steps an epoch at batch 32


def long_run(name: str, seed: int) -> tuple[Task, HeadSpec]:
    kind, outputs, settings = LONG[name]
    return long_task(kind, outputs), HeadSpec(hidden=64, seed=seed, **settings)


def compute(name: str, seed: int) -> Reference:
    import torch

    from tests.heads.pytorch_loop import pytorch_train

    task, spec = long_run(name, seed)
    exact = train(task, spec, 32, 4)
    found = Reference(np.array(exact.train_loss), sample(exact.weights), sample(exact.initial), 0.0)
    return found._replace(pytorch=found.distance(pytorch_train(task, spec, 32, 4, torch.float32)))


@cache
def _stored() -> dict[str, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as arrays:
        return dict(arrays)


def stored(name: str, seed: int) -> Reference:
    arrays = _stored()
    losses, end, start, pytorch = (arrays[f"{name}/{seed}/{field}"] for field in Reference._fields)
    return Reference(losses, end, start, float(pytorch))


def main() -> None:
    import torch

    torch.set_num_threads(1)
    found = {}
    for name in LONG:
        for seed in SEEDS:
            one = compute(name, seed)
            found |= {f"{name}/{seed}/{field}": np.asarray(getattr(one, field)) for field in Reference._fields}
            print(f"{name}, seed {seed}: PyTorch {one.pytorch:.2e}", flush=True)
    np.savez_compressed(FILE, **found)


if __name__ == "__main__":
    main()
