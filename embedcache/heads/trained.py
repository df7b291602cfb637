"""A trained head: weights and how they came about; predicts, goes to torch, and to a safetensors file and back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec

if TYPE_CHECKING:
    import torch

PREDICT_ROWS = 4096  # rows at a time: bounds the memory of a prediction, large enough for a fast product
FORMAT = "embedcache-head"


@dataclass
class TrainedHead:
    """A head with the weights of its best epoch.

    ``weights``: float32 arrays w1 [hidden, D], b1 [hidden], w2 [C, hidden], b2 [C]; a linear probe has w2 [C, D] and b2
    alone. They act on the raw X: a standardisation is already folded in. ``status`` is "ok", "diverged" or
    "cancelled"; ``best_epoch`` counts from 0 and is -1 where no epoch came to a finite end (weights are then zeros).
    """

    spec: HeadSpec
    weights: dict[str, np.ndarray]
    classes: list[Any] | None = None
    best_epoch: int = -1
    epochs_run: int = 0
    status: str = "ok"
    val_loss: float = float("nan")
    val_accuracy: float = float("nan")
    task: int = 0
    history: dict[str, list[float]] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        return int(self.weights["w1" if self.spec.hidden else "w2"].shape[1])

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities float32 [n, C] of X [n, D] (any float dtype; a memory map is read in parts)."""
        x = to_numpy(X)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise EmbedcacheError(f"X has shape {list(x.shape)}, but this head reads [rows, {self.dim}]")
        w = self.weights
        out = np.empty((len(x), len(w["b2"])), np.float32)
        for start in range(0, len(x), PREDICT_ROWS):
            a = np.asarray(x[start : start + PREDICT_ROWS], np.float32)
            if self.spec.hidden:
                a = np.maximum(a @ w["w1"].T + w["b1"], 0)
            z = a @ w["w2"].T + w["b2"]
            z -= z.max(axis=1, keepdims=True)
            z -= np.log(np.exp(z, dtype=np.float64).sum(axis=1, keepdims=True))
            out[start : start + PREDICT_ROWS] = z
        return out

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest label of each row: a value of ``classes``, or the class number where there are none."""
        best = self.predict_log_proba(X).argmax(axis=1)
        return best if self.classes is None else np.asarray(self.classes)[best]

    def to_torch(self) -> torch.nn.Sequential:
        """The same head as torch modules, in evaluation mode; gives log-probabilities."""
        import torch
        from torch import nn

        hidden, w = self.spec.hidden, self.weights
        first = [nn.Linear(self.dim, hidden), nn.ReLU(), nn.Dropout(self.spec.dropout)] if hidden else []
        module = nn.Sequential(*first, nn.Linear(hidden or self.dim, len(w["b2"])), nn.LogSoftmax(dim=1))
        with torch.no_grad():
            for parameter, array in zip(module.parameters(), w.values(), strict=True):  # w1 b1 w2 b2: the same order
                parameter.copy_(torch.from_numpy(array))
        return module.eval()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the weights, and everything else as JSON in its header."""
        from safetensors.numpy import save_file

        save_file(self.weights, str(path), metadata={FORMAT: json.dumps(self.metadata())})

    def metadata(self) -> dict[str, Any]:
        """Everything but the weights, as JSON types."""
        return {
            "spec": self.spec.to_dict(),
            "classes": None if self.classes is None else [_plain(label) for label in self.classes],
            "best_epoch": self.best_epoch,
            "epochs_run": self.epochs_run,
            "status": self.status,
            "val_loss": _finite(self.val_loss),
            "val_accuracy": _finite(self.val_accuracy),
            "task": self.task,
            "history": {name: [_finite(value) for value in values] for name, values in self.history.items()},
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> TrainedHead:
        """The inverse of ``metadata()``. Raises KeyError, TypeError or EmbedcacheError where it doesn't fit."""
        names = ("w1", "b1", "w2", "b2") if metadata["spec"]["hidden"] else ("w2", "b2")
        head = cls(HeadSpec.from_dict(metadata["spec"]), {name: weights[name] for name in names})
        for name in ("classes", "best_epoch", "epochs_run", "status", "task"):
            setattr(head, name, metadata[name])
        head.val_loss, head.val_accuracy = _number(metadata["val_loss"]), _number(metadata["val_accuracy"])
        head.history = {name: [_number(v) for v in values] for name, values in metadata["history"].items()}
        return head

    @classmethod
    def load(cls, path: str | Path) -> TrainedHead:
        """Read what ``save`` wrote. Raises EmbedcacheError if the file is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = json.loads((file.metadata() or {})[FORMAT])
                return cls.from_metadata(metadata, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except FileNotFoundError:
            raise EmbedcacheError(f"no such file: {path}") from None
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise EmbedcacheError(f"{path} is no saved head, or a damaged one ({error})") from None


def to_numpy(x: Any) -> np.ndarray:
    """x as a NumPy array, uncopied where possible: arrays, memory maps, lists, torch tensors on any device."""
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        if str(x.dtype) == "torch.bfloat16":
            x = x.float()
        x = x.numpy()
    return np.asarray(x)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None  # JSON has no NaN


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
