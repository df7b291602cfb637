"""The steps after pooling in a model's prescribed vector: Dense, LayerNorm, unit length, a cut.

They are NumPy code that sums each row by itself, so a text's vector does not depend on the other texts of its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.tensors import load_float32
from embedcache.encoder.prescription import Prescription, in_words, read_prescription
from embedcache.errors import EmbedcacheError

Step = Callable[[np.ndarray], np.ndarray]  # float32 [n, D] to [n, E]


def _gelu(x: np.ndarray) -> np.ndarray:
    from scipy.special import erf

    return x * np.float32(0.5) * (1 + erf(x * np.float32(0.5**0.5)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    from scipy.special import expit

    return np.asarray(expit(x))


ACTIVATIONS: dict[str, Step] = {
    "Identity": lambda x: x,
    "Tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "GELU": _gelu,
    "Sigmoid": _sigmoid,
    "SiLU": lambda x: x * _sigmoid(x),
}


def load_prescribed(root: Path, name: str, about: Mapping[str, Any], dim: int) -> Prescribed:
    """Load what makes the vectors called ``model`` from a model's folder.

    Args:
        root: the folder that holds modules.json.
        name: of the model, for messages.
        about: how the vectors were made, as a cache records it (``Prescription.about``).
        dim: D, the width of the encoder's vectors.

    Raises:
        EmbedcacheError: the folder now prescribes another vector, or one that is not supported.
    """
    found = read_prescription(root, name)
    now = None if found is None else found.about(about.get("dims"))
    if found is None or now != about:
        says = "has no modules.json" if now is None else f"says {in_words(now)}"
        raise EmbedcacheError(
            f"{name} {says}, but these vectors were made differently ({in_words(about)}): restore the old files, or "
            "run extract again with this model"
        )
    return Prescribed(found, about, dim, name)


class Prescribed:
    """A model's prescribed vector: the poolings that it starts from, and the steps after them.

    Attributes:
        about: how it is made, as a cache records it.
        pooling: names of ``POOLINGS``; their vectors are concatenated.
        width: of the concatenated vectors.
        dim: of the prescribed vector.
        weights: of each step, float32 arrays by name; {} for a step without weights.
    """

    def __init__(self, prescription: Prescription, about: Mapping[str, Any], dim: int, name: str) -> None:
        """Load the weights of every step.

        Args:
            prescription: what the model's folder says now.
            about: what is to be made, see ``load_prescribed``.
            dim: D, the width of the encoder's vectors.
            name: of the model, for messages.

        Raises:
            EmbedcacheError: the weights do not fit together, or are damaged; a cut is wider than the vectors.
        """
        self.about, self.pooling = dict(about), tuple(about["pooling"])
        files = dict(zip(map(_key, prescription.steps), prescription.files, strict=True))
        paths = [files.get(_key(step)) for step in about["steps"]]
        self.weights = [{} if path is None else load_float32(path, name) for path in paths]
        self._steps: list[Step] = []
        self.width = self.dim = dim * len(self.pooling)
        for step, weights in zip(about["steps"], self.weights, strict=True):
            if step["step"] == "cut" and step["dims"] > self.dim:
                raise EmbedcacheError(f"--dims {step['dims']}: the vectors of {name} are {self.dim} wide")
            self.dim = self._width(step, weights, name)
            self._steps.append(make_step(step, weights))

    @property
    def unit_length(self) -> bool:
        """Whether it is brought to unit length."""
        steps = self.about["steps"]
        return bool(steps) and steps[-1]["step"] == "normalize"

    def _width(self, step: Mapping[str, Any], weights: Mapping[str, np.ndarray], name: str) -> int:
        """The width of the vectors after a step. Raises EmbedcacheError where its weights do not fit those before."""
        shapes = {key: weight.shape for key, weight in weights.items()}
        out = step.get("out", self.dim)
        if step["step"] == "dense":
            wanted: dict[str, tuple[int, ...]] = {"linear.weight": (out, self.dim)}
            wanted |= {"linear.bias": (out,)} if "linear.bias" in shapes else {}
            wanted |= {"residual.weight": (out, self.dim)} if step["residual"] and out != self.dim else {}
        else:
            wanted = {key: (self.dim,) for key in ("norm.weight", "norm.bias") if step["step"] == "layer_norm"}
        if shapes != wanted:
            raise EmbedcacheError(f"{name}: the weights of its {step['step']} do not fit its vectors; copy it again")
        return min(out, step.get("dims", out))

    def __call__(self, pooled: Sequence[np.ndarray]) -> np.ndarray:
        """The prescribed vectors, float32 [n, dim], from those of each pooling, float32 [n, D]."""
        x = np.concatenate(pooled, axis=1) if len(pooled) > 1 else pooled[0]
        for step in self._steps:
            x = step(x)
        return np.ascontiguousarray(x, np.float32)


def make_step(step: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> Step:
    """The function of one step."""
    if step["step"] == "dense":
        return _dense(weights, ACTIVATIONS[step["activation"]], step["residual"])
    if step["step"] == "layer_norm":
        return _layer_norm(weights["norm.weight"], weights["norm.bias"])
    if step["step"] == "cut":
        return lambda x: x[:, : step["dims"]]
    return lambda x: x / np.maximum(np.sqrt(np.square(x).sum(axis=1, keepdims=True)), np.float32(1e-12))


def _dense(weights: Mapping[str, np.ndarray], activation: Step, residual: bool) -> Step:
    def linear(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        # One product for all rows would sum in an order that depends on the number of rows.
        return np.stack([weight @ row for row in x]) if len(x) else np.empty((0, len(weight)), np.float32)

    def apply(x: np.ndarray) -> np.ndarray:
        out = activation(linear(x, weights["linear.weight"]) + weights.get("linear.bias", np.float32(0)))
        if residual:
            out = out + (linear(x, weights["residual.weight"]) if "residual.weight" in weights else x)
        return out

    return apply


def _layer_norm(scale: np.ndarray, shift: np.ndarray) -> Step:
    def apply(x: np.ndarray) -> np.ndarray:
        x = x - x.mean(axis=1, keepdims=True)
        return x / np.sqrt(np.square(x).mean(axis=1, keepdims=True) + np.float32(1e-5)) * scale + shift

    return apply


def _key(step: Mapping[str, Any]) -> str:
    return str(step.get("weights"))
