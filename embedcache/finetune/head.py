"""A head together with the layers that were trained below it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedcache.finetune.checkpoint import State
from embedcache.finetune.config import Config
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import weight_names
from embedcache.heads.train import HISTORY


@dataclass(repr=False)
class TunedHead(TrainedHead):
    """Its weights act on the vectors of the tuned encoder. ``layers``: what was trained of that, by stored name.

    outputs: (rows, logits) that were computed while the layers were there. kind_of_layers, scale: how they are stored,
    see encoder/tuned.py. state: of its training.
    """

    config: Config | None = None
    layers: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    outputs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list, repr=False)
    kind_of_layers: str = "tensors"
    scale: float = 1.0
    state: State | None = None

    def settings(self) -> dict[str, Any]:
        assert self.config is not None
        more = self.config.settings()
        first = {name: more.pop(name) for name in ("train", "pooling")}
        return {**first, **super().settings(), **more}

    def known_outputs(self, rows: np.ndarray) -> np.ndarray | None:
        return next((logits for known, logits in self.outputs if np.array_equal(known, rows)), None)


def tuned_head(state: State, config: Config, start: TrainedHead, val: np.ndarray | None, task: int) -> TunedHead:
    """The head of a training that has ended. val: the validation rows."""
    progress = state.progress
    names = weight_names(start.spec.hidden)
    kept = {name: state.best.get(f"head/{name}", np.zeros_like(start.weights[name])) for name in names}
    layers = {name: array for name, array in state.best.items() if not name.startswith("head/")}
    finite = all(np.isfinite(array).all() for array in state.best.values())
    head = TunedHead(config.spec, kept, status=progress.status if finite else "diverged", kind=start.kind)
    head.kind_of_layers, head.scale = state.kind, state.scale
    head.config, head.layers, head.task, head.state = config, layers if finite else {}, task, state
    if not finite:
        head.weights = {name: np.zeros_like(array) for name, array in kept.items()}
    run = max((len(values) for values in progress.history.values()), default=0)
    head.best_epoch, head.epochs_run = progress.best_epoch + 1 if finite else 0, run
    head.history = {name: [np.nan if v is None else v for v in progress.history[name]] for name in HISTORY}
    if head.best_epoch:
        at = head.best_epoch - 1
        head.val_loss, head.val_accuracy = head.history["val_loss"][at], head.history["val_accuracy"][at]
    if val is not None and state.outputs is not None:
        head.outputs.append((val, state.outputs))
    return head
