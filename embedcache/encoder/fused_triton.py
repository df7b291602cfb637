"""What stands between a layer's matrix products, each in one pass over memory: two Triton kernels.

Residual and LayerNorm: reads two rows, writes one; torch writes and reads the sum between. Bias and activation: in
place, behind a product without its bias. Both compute in float32 and round once, at the end.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

KINDS = {"gelu": 0, "gelu_tanh": 1, "relu": 2}
COLUMNS = 1024  # of an activation's program


# No annotations but constexpr: Triton's compiler reads them, too.
@triton.jit
def _add_norm(x, y, scale, shift, out, width, epsilon, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64) * width + at
    inside = at < width
    both = tl.load(x + row, mask=inside, other=0.0).to(tl.float32)
    both += tl.load(y + row, mask=inside, other=0.0).to(tl.float32)
    off = tl.where(inside, both - tl.sum(both, axis=0) / width, 0.0)
    spread = tl.sqrt(tl.sum(off * off, axis=0) / width + epsilon)
    by = tl.load(scale + at, mask=inside, other=0.0).to(tl.float32)
    plus = tl.load(shift + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row, (off / spread * by + plus).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _activate(x, bias, width, KIND: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    place = tl.program_id(0).to(tl.int64) * width + at
    inside = at < width
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
    if KIND == 0:
        value = 0.5 * value * (1.0 + tl.math.erf(value * 0.7071067811865476))
    elif KIND == 1:  # (1 + tanh u) / 2 = 1 / (1 + exp(-2 u))
        cubic = 1.5957691216057308 * (value + 0.044715 * value * value * value)
        value = value / (1.0 + tl.exp(-cubic))
    else:
        value = tl.maximum(value, 0.0)
    tl.store(x + place, value.to(x.dtype.element_ty), mask=inside)


class Fused:
    """The two kernels, for contiguous tensors on the current device. activation: as ``Blueprint.activation``."""

    def __init__(self, activation: str, epsilon: float) -> None:
        self._kind, self._epsilon = KINDS[activation], epsilon

    def add_norm(self, x: Tensor, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """LayerNorm of x + y, both [T, D], in x's dtype."""
        out, (rows, width) = torch.empty_like(x), x.shape
        block = triton.next_power_of_2(width)
        warps = 4 if block <= 2048 else 8
        _add_norm[(rows,)](x, y, scale, shift, out, width, self._epsilon, BLOCK=block, num_warps=warps)
        return out

    def activate(self, x: Tensor, bias: Tensor) -> Tensor:
        """The activation of x + bias, [T, F] and [F]; x is overwritten."""
        rows, width = x.shape
        _activate[(rows, triton.cdiv(width, COLUMNS))](x, bias, width, KIND=self._kind, BLOCK=COLUMNS)
        return x
