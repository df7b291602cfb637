"""The work between a layer's matrix products, in two Triton kernels of one pass over memory each.

Residual with LayerNorm reads two rows and writes one; torch also writes and reads their sum. Bias with activation works
in place, after a product without its bias. Both compute in float32 and round once, at the end.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-not-found,import-untyped,unused-ignore]
import triton.language as tl  # type: ignore[import-not-found,import-untyped,unused-ignore]
from torch import Tensor

KINDS = {"gelu": 0, "gelu_tanh": 1, "relu": 2}
COLUMNS = 1024  # that one program of the activation kernel handles


# No annotations except constexpr: Triton's compiler reads annotations.
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
        # value * Phi(value), the normal distribution function. Its tail beyond |value| is
        # t 2^(q(t) - value^2 log2(e) / 2) with t = 1 / (1 + |value| / sqrt 8) and a polynomial q, fitted to 8e-8. The
        # kernel is bound by instructions: 27 per number, against 40 with tl.math.erf, whose 1 + erf also loses the
        # tail's digits.
        size = tl.abs(value)
        root = tl.math.rsqrt(tl.math.fma(size, 0.35355339059327373, 1.0))
        t = root * root
        power = tl.math.fma(t, 0.22245164215564728, -1.0546956062316895)
        power = tl.math.fma(power, t, 1.8385151624679565)
        power = tl.math.fma(power, t, -1.2290022373199463)
        power = tl.math.fma(power, t, 0.06854043155908585)
        power = tl.math.fma(power, t, -0.0952586680650711)
        power = tl.math.fma(power, t, 0.08258902281522751)
        power = tl.math.fma(power, t, 0.5510573983192444)
        power = tl.math.fma(power, t, 1.4414958953857422)
        power = tl.math.fma(power, t, -2.825692892074585)
        tail = t * tl.math.exp2(tl.math.fma(size * -0.7213475204444817, size, power))
        value = value * tl.where(value < 0.0, tail, 1.0 - tail)
    elif KIND == 1:  # (1 + tanh u) / 2 = 1 / (1 + exp(-2 u))
        cubic = 1.5957691216057308 * (value + 0.044715 * value * value * value)
        value = value / (1.0 + tl.exp(-cubic))
    else:
        value = tl.maximum(value, 0.0)
    tl.store(x + place, value.to(x.dtype.element_ty), mask=inside)


class Fused:
    """The two kernels, for contiguous tensors on the current device; ``activation`` as ``Blueprint.activation``."""

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
        """The activation of x + bias, [T, F] and [F], in place: x is overwritten and returned."""
        rows, width = x.shape
        _activate[(rows, triton.cdiv(width, COLUMNS))](x, bias, width, KIND=self._kind, BLOCK=COLUMNS)
        return x
