"""A trained head: weights and how they came about; predicts, goes to torch, and to a safetensors file and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedcache.common.checked import SchemaError, conform, parse_json
from embedcache.common.display import html_table
from embedcache.common.int8_rows import Int8Rows
from embedcache.common.tensors import save_tensors
from embedcache.errors import EmbedcacheError
from embedcache.heads.arrays import json_number, to_numpy
from embedcache.heads.kinds import kind_of
from embedcache.heads.schema import HEAD_VERSION, Head, check_head, head_of_today
from embedcache.heads.spec import BRIEF, SETTINGS, HeadSpec, weight_names

if TYPE_CHECKING:
    import torch

PREDICT_ROWS = 4096  # rows at a time: bounds the memory of a prediction, large enough for a fast product
FORMAT = "embedcache-head"


@dataclass
class TrainedHead:
    """A head with the weights of its best epoch. ``kind``: "classification", "multilabel" or "regression".

    ``weights``: float32 arrays w1 [hidden, D], b1 [hidden], w2 [C, hidden], b2 [C]; a linear probe has w2 [C, D] and b2
    alone. They act on the raw X: a standardization is already folded in. ``status`` is "ok", "diverged" or
    "cancelled"; ``best_epoch`` counts from 1 and is 0 where no epoch ended with a finite loss (weights are then zeros).
    The values of ``history`` are those of epochs 1, 2, ...: the best epoch's is ``history[name][best_epoch - 1]``.
    """

    spec: HeadSpec
    weights: dict[str, np.ndarray]
    classes: list[Any] | None = None
    best_epoch: int = 0
    epochs_run: int = 0
    status: str = "ok"
    val_loss: float = float("nan")
    val_accuracy: float = float("nan")
    task: int = 0
    kind: str = "classification"
    history: dict[str, list[float]] = field(default_factory=dict, repr=False)
    reads: str | None = None  # which vectors, where a sweep has heads of several

    def __repr__(self) -> str:
        return describe_head(self)

    def _repr_html_(self) -> str:
        return head_html(self)

    @property
    def dim(self) -> int:
        return int(self.weights["w1" if self.spec.hidden else "w2"].shape[1])

    def logits(self, X: Any, dtype: Any = np.float32) -> np.ndarray:
        """Outputs [n, C] of X [n, D] (any float dtype; a memory map is read in parts); regression: the values.

        ``dtype``: what they are computed in. Raises EmbedcacheError where X has another width.
        """
        x = X if isinstance(X, Int8Rows) else to_numpy(X)
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise EmbedcacheError(f"X has shape {list(x.shape)}, but this head reads [rows, {self.dim}]")
        w = self.weights
        out = np.empty((len(x), len(w["b2"])), dtype)
        for start in range(0, len(x), PREDICT_ROWS):
            a = np.asarray(x[start : start + PREDICT_ROWS], dtype)
            if self.spec.hidden:
                a = np.maximum(a @ w["w1"].T + w["b1"], 0)
            out[start : start + PREDICT_ROWS] = a @ w["w2"].T + w["b2"]
        return out

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Log-probabilities float32 [n, C]: of the classes, which exclude each other, or of each label by itself."""
        return kind_of(self.kind).log_probabilities(self.logits(X))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities float32 [n, C]."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> Any:
        """What the head says of each row.

        Classification: array [n] of the likeliest label, a value of ``classes``, or its number where there are none.
        Multilabel: a list of each row's labels (probability above 1/2), or a 0/1 matrix [n, C] where there are none.
        Regression: float32 [n], or [n, C] for several values a row.
        """
        return kind_of(self.kind).named(self.logits(X), self.classes)

    def settings(self) -> dict[str, Any]:
        """How it was trained, as a leaderboard's columns; JSON types."""
        of_spec = {name: value for name, value in self.spec.to_dict().items() if SETTINGS[name].column}
        return of_spec if self.reads is None else {"pooling": self.reads, **of_spec}

    def known_outputs(self, rows: np.ndarray) -> np.ndarray | None:
        """The outputs [n, C] of rows of its cache, where they were kept; else None, and they are computed."""
        return None

    def to_torch(self) -> torch.nn.Sequential:
        """The same head as torch modules, in evaluation mode; gives log-probabilities, or a regression's values."""
        import torch
        from torch import nn

        hidden, w, kind = self.spec.hidden, self.weights, kind_of(self.kind)
        first = [nn.Linear(self.dim, hidden), nn.ReLU(), nn.Dropout(self.spec.dropout)] if hidden else []
        last: list[nn.Module] = [nn.Linear(hidden or self.dim, len(w["b2"]))]
        if kind.has_classes:
            last.append(nn.LogSoftmax(dim=1) if kind.exclusive else nn.LogSigmoid())
        module = nn.Sequential(*first, *last)
        with torch.no_grad():
            for parameter, array in zip(module.parameters(), w.values(), strict=True):  # w1 b1 w2 b2: the same order
                parameter.copy_(torch.from_numpy(array))
        return module.eval()

    def save(self, path: str | Path) -> None:
        """Write a safetensors file: the weights, and everything else as JSON in its header."""
        save_tensors(Path(path), self.weights, {FORMAT: json.dumps(self.metadata())})

    def metadata(self) -> dict[str, Any]:
        """Everything but the weights, as JSON types."""
        reads = {} if self.reads is None else {"reads": self.reads}
        return {
            "version": HEAD_VERSION,
            **reads,
            "spec": self.spec.to_dict(),
            "classes": None if self.classes is None else [_plain(label) for label in self.classes],
            "best_epoch": self.best_epoch,
            "epochs_run": self.epochs_run,
            "status": self.status,
            "val_loss": json_number(self.val_loss),
            "val_accuracy": json_number(self.val_accuracy),
            "task": self.task,
            "kind": self.kind,
            "history": {name: [json_number(value) for value in values] for name, values in self.history.items()},
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any], weights: dict[str, np.ndarray]) -> TrainedHead:
        """The inverse of ``metadata()``, also of older versions'.

        Raises SchemaError, KeyError or EmbedcacheError where it doesn't fit.
        """
        metadata = head_of_today(metadata)
        check_head(conform(metadata, Head, "head"), "head")
        spec = HeadSpec.from_dict(metadata["spec"])
        head = cls(spec, {name: weights[name] for name in weight_names(spec.hidden)})
        for name in ("classes", "best_epoch", "epochs_run", "status", "task"):
            setattr(head, name, metadata[name])
        head.kind = metadata.get("kind", "classification")  # files of version 0.1 have none
        head.reads = metadata.get("reads")
        head.val_loss, head.val_accuracy = _number(metadata["val_loss"]), _number(metadata["val_accuracy"])
        head.history = {name: [_number(v) for v in values] for name, values in metadata["history"].items()}
        _check_weights(head)
        return head

    @classmethod
    def load(cls, path: str | Path) -> TrainedHead:
        """Read what ``save`` wrote. Raises EmbedcacheError if the file is missing, damaged or something else."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="numpy") as file:
                metadata = parse_json((file.metadata() or {})[FORMAT])
                return cls.from_metadata(metadata, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        except FileNotFoundError:
            raise EmbedcacheError(f"no such file: {path}") from None
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise EmbedcacheError(f"{path} is not a saved head, or is damaged ({error}); train it again") from None


def _check_weights(head: TrainedHead) -> None:
    """Raises SchemaError for weights with which no text could be judged: not finite, or far too large."""
    largest = {}
    for name, array in head.weights.items():
        if array.dtype != np.float32:
            raise SchemaError(f"{name} is {array.dtype}, not float32")
        largest[name] = float(max(array.max(initial=0), -array.min(initial=0)))  # NaN stays NaN
        if not np.isfinite(largest[name]):
            raise SchemaError(f"{name} holds NaN or infinity")
    if not kind_of(head.kind).has_classes:
        return  # its outputs have the label's unit, however large
    inputs = 1.0
    if head.spec.hidden:
        inputs = head.weights["w1"].shape[-1] * largest["w1"] + largest["b1"]
    if head.weights["w2"].shape[-1] * largest["w2"] * inputs + largest["b2"] > float(np.finfo(np.float32).max):
        raise SchemaError("its weights are so large that its outputs are not finite")


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def describe_head(head: TrainedHead) -> str:
    """One line: shape, kind, settings, scores."""
    hidden = f"{head.spec.hidden}-" if head.spec.hidden else ""
    shape = f"{head.dim}-{hidden}{len(head.weights['b2'])}" if head.weights else "no weights"
    settings = ", ".join(f"{name} {getattr(head.spec, name):g}" for name in BRIEF[1:])
    scores = ", ".join(f"{name} {value:.4f}" for name, value in head_scores(head).items() if value is not None)
    epoch = f", epoch {head.best_epoch} of {head.epochs_run}" if head.epochs_run else ""
    return f"TrainedHead({head.kind}, {shape}, {settings}{epoch}{', ' * bool(scores)}{scores}, {head.status})"


def head_html(head: TrainedHead) -> str:
    """A table of two columns."""
    rows: list[Sequence[Any]] = [("kind", head.kind), ("reads", f"[rows, {head.dim}]")]
    if head.classes is not None:
        rows.append(("labels", ", ".join(map(str, head.classes[:20])) + (" …" if len(head.classes) > 20 else "")))
    rows.append(("settings", ", ".join(f"{name} {getattr(head.spec, name):g}" for name in BRIEF)))
    rows.append(("epoch", f"{head.best_epoch} of {head.epochs_run}, {head.status}"))
    rows += list(head_scores(head).items())
    return html_table("Trained head", (), rows)


def head_scores(head: TrainedHead) -> dict[str, float | None]:
    """Its validation scores at its best epoch, None where there are none."""
    if kind_of(head.kind).has_classes:
        return {"val_loss": json_number(head.val_loss), "val_accuracy": json_number(head.val_accuracy)}
    r2 = head.history.get("val_r2", [])
    return {
        "val_loss": json_number(head.val_loss),
        "val_r2": json_number(r2[head.best_epoch - 1]) if r2 and head.best_epoch else None,
    }
