"""The head as one torch operator, for those who write their own training loop.

``fused_head`` is registered as ``torch.ops.embedcache.fused_head`` with kernels for autograd and for fake tensors, so
it works in eager mode, under torch.compile and torch.export, and with double backward. This module imports torch.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from embedcache.errors import EmbedcacheError

__all__ = ["focal", "fused_head"]

aten = torch.ops.aten


def fused_head(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Log-probabilities [n, C] of Linear - ReLU - Linear - LogSoftmax, with gradients to whichever inputs want them.

    ``x`` [n, D], ``w1`` [hidden, D], ``b1`` [hidden], ``w2`` [C, hidden], ``b2`` [C] as torch.nn.Linear has them; all
    on one device and of one dtype (float32, float64, bfloat16 or float16), which the result has too. The same values
    as nn.Sequential(Linear, ReLU, Linear, LogSoftmax). Under torch.autocast the inputs are cast and the result is
    float32, on every device (that of the four modules only on a GPU).

    Between forward and backward it keeps its inputs, the hidden activations [n, hidden] and the result, nothing else;
    bias and ReLU are the product's epilogue where the library has one (cuBLASLt), and pre-activations are overwritten.
    On a CPU that is a third less memory in training, half in prediction, and no gain in time: a tenth slower at batch
    32, 2% faster at 1,024 (docs/engine.md, "The custom op").
    Raises EmbedcacheError for shapes or dtypes that don't fit each other.
    """
    float32 = torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64
    if float32:
        low = torch.get_autocast_dtype(x.device.type)
        x, w1, b1, w2, b2 = (tensor.to(low) for tensor in (x, w1, b1, w2, b2))
    _check(x, w1, b1, w2, b2)
    run = _fused_head if torch.compiler.is_compiling() else _Eager.apply
    return run(x, w1, b1, w2, b2, float32)[0]


def focal(log_p: Tensor, gamma: float = 2.0) -> Tensor:
    """The focal loss of log-probabilities, -(1 - p)^gamma log p (Lin et al., 2017): 0 at p = 1, -log p at gamma = 0.

    Of any shape and floating dtype, with gradients. Of a head's rows: ``focal(fused_head(x, w1, b1, w2,
    b2).gather(1, y[:, None])).mean()`` for classes y [n]. For labels, which are there or not:
    ``focal(torch.nn.functional.logsigmoid(torch.where(y > 0, z, -z))).mean()`` of logits z and y, both [n, C].
    """
    others = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)  # else its root has no slope at p = 1
    return -log_p * others**gamma


def _check(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in (x, w1, b1, w2, b2)]
    fits = x.ndim == 2 and w1.ndim == 2 and w2.ndim == 2 and w1.shape[1] == x.shape[1] and w2.shape[1] == w1.shape[0]
    if not fits or shapes[2] != shapes[1][:1] or shapes[4] != shapes[3][:1]:
        names = ", ".join(f"{name} {list(shape)}" for name, shape in zip("x w1 b1 w2 b2".split(), shapes, strict=True))
        wanted = "x [n, D], w1 [hidden, D], b1 [hidden], w2 [C, hidden], b2 [C]"
        raise EmbedcacheError(f"fused_head has {names}, but needs {wanted}")
    if not x.dtype == w1.dtype == b1.dtype == w2.dtype == b2.dtype or not x.dtype.is_floating_point:
        dtypes = ", ".join(str(tensor.dtype).removeprefix("torch.") for tensor in (x, w1, b1, w2, b2))
        raise EmbedcacheError(
            f"fused_head needs one floating dtype for all its inputs, not {dtypes}: cast x or the head"
        )


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """The operator's own products run in the dtype of its inputs, also where autocast is on around it."""
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def _forward(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, float32: bool) -> tuple[Tensor, Tensor]:
    """(log-probabilities, hidden activations); log-probabilities in float32 if wanted, else in the dtype of x."""
    with _without_autocast(x.device):
        hidden = aten._addmm_activation(b1, x, w1.t())  # relu(b1 + x w1'): in the product's epilogue, or in place
        logits = torch.addmm(b2, hidden, w2.t())
        return torch.log_softmax(logits, 1, dtype=torch.float32 if float32 else None), hidden


def _fake(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, float32: bool) -> tuple[Tensor, Tensor]:
    dtype = torch.float32 if float32 else x.dtype
    return x.new_empty(x.shape[0], w2.shape[0], dtype=dtype), x.new_empty(x.shape[0], w1.shape[0])


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, w1, _, w2, _, _ = inputs
    ctx.save_for_backward(x, w1, w2, *output)
    ctx.set_materialize_grads(False)  # the hidden activations are an output only to be saved: no zeros for them


def _backward(ctx: Any, grad: Tensor | None, grad_hidden: Tensor | None) -> tuple[Tensor | None, ...]:
    """Gradients of the inputs that want one; ``grad_hidden`` comes in a double backward alone."""
    x, w1, w2, log_proba, hidden = ctx.saved_tensors
    wants_x, wants_w1, wants_b1, wants_w2, wants_b2, _ = ctx.needs_input_grad
    dx = dw1 = db1 = dw2 = db2 = None
    with _without_autocast(x.device):
        dz = None if grad_hidden is None else grad_hidden.clone()
        if grad is not None:
            dlogits = aten._log_softmax_backward_data(grad, log_proba, 1, log_proba.dtype).to(x.dtype)
            dw2 = dlogits.t() @ hidden if wants_w2 else None
            db2 = dlogits.sum(0) if wants_b2 else None
            if wants_x or wants_w1 or wants_b1:
                dz = dlogits @ w2 if dz is None else torch.addmm(dz, dlogits, w2)
        if dz is not None and (wants_x or wants_w1 or wants_b1):
            if torch.is_grad_enabled():  # by create_graph: each step is differentiated in its turn
                dz = aten.threshold_backward(dz, hidden, 0)
            else:
                aten.threshold_backward.grad_input(dz, hidden, 0, grad_input=dz)
            dw1 = dz.t() @ x if wants_w1 else None
            db1 = dz.sum(0) if wants_b1 else None
            dx = dz @ w1 if wants_x else None
    return dx, dw1, db1, dw2, db2, None


SCHEMA = "(Tensor x, Tensor w1, Tensor b1, Tensor w2, Tensor b2, bool float32) -> (Tensor, Tensor)"
_fused_head = torch.library.custom_op("embedcache::fused_head", _forward, mutates_args=(), schema=SCHEMA)
_fused_head.register_fake(_fake)
_fused_head.register_autograd(_backward, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The same three functions without the dispatcher's way through Python: at small batches that costs a fifth."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)
