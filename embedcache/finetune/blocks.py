"""The last layers with a head on top, as an engine trains them: shape, tensors, settings, outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedcache.errors import EmbedcacheError
from embedcache.heads.spec import HeadSpec

ACTIVATIONS = ("gelu", "gelu_tanh", "relu")  # by their numbers in csrc/encoder/encoder.h
QUERIES = ("first", "last", "mean")
# In the order of csrc/block/block.h. The key's bias is not among them: the softmax does not see it.
LAYER_TENSORS = (
    "query", "query_bias", "key", "value", "value_bias", "output", "output_bias", "norm1", "norm1_bias", "up",
    "up_bias", "down", "down_bias", "norm2", "norm2_bias",
)  # fmt: skip
HEAD_TENSORS = ("head1", "head1_bias", "head2", "head2_bias")


@dataclass(frozen=True)
class Shape:
    """Post-LayerNorm layers, one above the other, and what of the last one is a text's vector.

    Attributes:
        dim, inner, heads: D, F and the number of attention heads, which divides D.
        epsilon: of both LayerNorms. activation: one of ACTIVATIONS.
        query: whose row of the last layer is the vector, the "first" token's or the "last" one's; or the "mean" of all.
        relative: what is added to the score of query i and key j at [head, j - i + P - 1], float32 [heads, 2 P - 1];
            it is not trained. None: nothing.
        layers: how many. unit: whether the vector is scaled to length 1.
    """

    dim: int
    inner: int
    heads: int
    epsilon: float
    activation: str = "gelu"
    query: str = "first"
    relative: np.ndarray | None = None
    layers: int = 1
    unit: bool = False


@dataclass(frozen=True)
class Ragged:
    """What the lowest layer reads: row i's tokens are ``values[begins[i]:][:lengths[i]]``; rows may share theirs.

    Attributes:
        values: float16 or float32 [T, D], rows next to each other; a memory map is read in place.
        begins, lengths: int64 [N]. A row without tokens has a vector of zeros.
    """

    values: np.ndarray
    begins: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Block:
    """Layers and a head to be trained.

    Attributes:
        spec: what it shares with heads: the layers' ``lr``, decay (of matrices alone), betas, schedule, loss, weights,
            seed; ``hidden`` and ``dropout`` of its head.
        task: index into the tasks. start: float32 arrays by the names of ``tensor_shapes``.
        clip: the most that a step's gradient may have as its norm; 0: any.
    """

    spec: HeadSpec
    task: int
    start: Mapping[str, np.ndarray]
    head_lr: float = 1e-3
    batch_size: int = 32
    epochs: int = 5
    early_stop: int = 0
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    clip: float = 1.0


@dataclass
class TunedBlock:
    """A block as an engine leaves it: weights and validation logits float32 [n, C] of the best epoch.

    Scores are NaN where not run; ``best_epoch`` counts from 0, and is -1 for none. ``norm``: mean over an epoch's steps
    of the gradient's norm before it was clipped; NaN without clipping.
    """

    weights: dict[str, np.ndarray]
    val_logits: np.ndarray
    train_loss: np.ndarray
    val_loss: np.ndarray
    val_accuracy: np.ndarray
    val_macro_f1: np.ndarray
    norm: np.ndarray
    best_epoch: int = -1
    epochs_run: int = 0
    status: str = "cancelled"


def tensor_shapes(shape: Shape, hidden: int, classes: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name, in the engine's order: "0.query", ... of the lowest layer, "1.query", ...; then the head's.

    A head without hidden units has no head1.
    """
    d, f = shape.dim, shape.inner
    special = {"up": (f, d), "up_bias": (f,), "down": (d, f)}

    def of_layer(name: str) -> tuple[int, ...]:
        return special.get(name) or ((d,) if name.endswith("bias") or name.startswith("norm") else (d, d))

    found = {f"{k}.{name}": of_layer(name) for k in range(shape.layers) for name in LAYER_TENSORS}
    if hidden:
        found |= {"head1": (hidden, d), "head1_bias": (hidden,)}
    return found | {"head2": (classes, hidden or d), "head2_bias": (classes,)}


def check_start(block: Block, shape: Shape, classes: int) -> dict[str, np.ndarray]:
    """The start as contiguous float32 arrays. Raises EmbedcacheError where one is missing, misshapen or not finite."""
    found = {}
    for name, wanted in tensor_shapes(shape, block.spec.hidden, classes).items():
        if name not in block.start:
            raise EmbedcacheError(f"a block starts without its tensor {name!r}: give a float32 array {list(wanted)}")
        array = np.ascontiguousarray(block.start[name], np.float32)
        if array.shape != wanted:
            raise EmbedcacheError(f"a block's tensor {name!r} must have shape {list(wanted)}, not {list(array.shape)}")
        if not np.isfinite(array).all():
            raise EmbedcacheError(f"a block's tensor {name!r} holds NaN or infinity: start from finite weights")
        found[name] = array
    return found


def check_states(states: Ragged, shape: Shape) -> Ragged:
    """States as an engine takes them. Raises EmbedcacheError."""
    values = states.values
    if values.ndim != 2 or values.shape[1] != shape.dim:
        raise EmbedcacheError(
            f"the token states have shape {list(values.shape)}; the layer reads [tokens, {shape.dim}]"
        )
    if values.dtype not in (np.float16, np.float32) or not values.flags.c_contiguous:
        raise EmbedcacheError("token states must be a float16 or float32 array whose rows lie next to each other")
    begins, lengths = (np.ascontiguousarray(one, np.int64) for one in (states.begins, states.lengths))
    if begins.ndim != 1 or begins.shape != lengths.shape:
        raise EmbedcacheError("token states need one begin and one length for each row")
    return Ragged(values, begins, lengths)
