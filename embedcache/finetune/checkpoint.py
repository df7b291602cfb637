"""The state of a training on the disk: parameters, AdamW's moments, the best epoch so far; a file that appears whole.

Row order and dropout follow from seed, epoch and step alone, so a training that is continued gives the same bits on a
CPU.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.tensors import save_tensors
from embedcache.finetune.trainee import Trainee

FORMAT = "embedcache-checkpoint"
UNREADABLE = (SafetensorError, SchemaError, KeyError, OSError)  # what reading one raises


class Progress(msgspec.Struct):
    """epoch, step: the next ones, from 0. loss: of this epoch's rows so far, summed. best_epoch: from 0, -1: none.

    labels_from: what lay over the cache's labels, see ``recorded_labels``.
    """

    identity: str
    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    best_epoch: int = -1
    status: str = ""  # "" until it has ended
    history: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    labels_from: dict[str, Any] | None = None


@dataclass
class State:
    """Where a training is.

    Attributes:
        best: the kept epoch's tensors.
        outputs: its logits of the validation rows.
        kind, scale: how the tensors are stored, see encoder/tuned.py.
    """

    progress: Progress
    best: dict[str, np.ndarray] = field(default_factory=dict)
    outputs: np.ndarray | None = None
    kind: str = "tensors"
    scale: float = 1.0


def save_state(path: Path, state: State, trainee: Trainee | None, adamw: torch.optim.Optimizer | None) -> None:
    """Write it; without a trainee, of a training that has ended. Raises OSError."""
    arrays = {f"best/{name}": array for name, array in state.best.items()}
    if state.outputs is not None:
        arrays["outputs"] = state.outputs
    if trainee is not None and adamw is not None:
        arrays |= {f"now/{name}": array for name, array in trainee.tensors().items()}
        for number, moments in adamw.state_dict()["state"].items():
            arrays |= {f"adamw/{number}/{name}": value.float().cpu().numpy() for name, value in moments.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(path, arrays, {FORMAT: json.dumps(msgspec.to_builtins(state.progress), allow_nan=False)})


def load_state(path: Path, identity: str) -> tuple[State, dict[str, np.ndarray]] | None:
    """(state, every array) of the training with that identity; None where there is none, or the file is damaged."""
    try:
        with safe_open(str(path), framework="numpy") as file:
            progress = _progress(file)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except UNREADABLE:
        return None
    if progress.identity != identity:
        return None
    best = {name.removeprefix("best/"): array for name, array in arrays.items() if name.startswith("best/")}
    return State(progress, best, arrays.get("outputs")), arrays


def labels_of(folder: Path, but: Collection[str]) -> list[dict[str, Any] | None]:
    """What lay over the cache's labels in each training that is kept there, but those with these identities."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="numpy") as file:
                progress = _progress(file)
        except UNREADABLE:  # or not of a training
            continue
        if progress.identity not in but:
            found.append(progress.labels_from)
    return found


def _progress(file: Any) -> Progress:
    return conform(parse_json((file.metadata() or {})[FORMAT]), Progress)


def restore(arrays: dict[str, np.ndarray], trainee: Trainee, adamw: torch.optim.Optimizer) -> None:
    """Put parameters and moments back. Raises KeyError where some are missing."""
    trainee.put({name.removeprefix("now/"): array for name, array in arrays.items() if name.startswith("now/")})
    now = adamw.state_dict()
    moments: dict[int, dict[str, Any]] = {}
    for name, array in arrays.items():
        if name.startswith("adamw/"):
            _, number, key = name.split("/")
            moments.setdefault(int(number), {})[key] = torch.from_numpy(array.copy())
    adamw.load_state_dict({**now, "state": moments})
