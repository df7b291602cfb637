"""The faster operations that the packed runner uses on a GPU, each tested on a few rows before use.

A part that is missing (torch before 2.10, no Triton, no C compiler for its launcher), fails, or returns other numbers
is left out; torch's plain operations do the same more slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from embedcache.encoder.blueprint import Blueprint

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
TRIED = (3, 1, 5)  # lengths of the rows on which a part is tested
ROUNDINGS = 4  # of the dtype: how far a part may be from its reference


class FusedParts(Protocol):
    """See ``fused_triton.Fused``."""

    def add_norm(self, x: Tensor, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor: ...
    def activate(self, x: Tensor, bias: Tensor) -> Tensor: ...


def flash_attention(blueprint: Blueprint) -> Callable[..., Any] | None:
    """torch's variable-length attention, or None where device, dtype, shape or torch's version does not support it."""
    word, width = blueprint.word, blueprint.layers[0].query[0].shape[0] // blueprint.heads
    half = word.dtype in (torch.bfloat16, torch.float16)
    if not (word.is_cuda and half and blueprint.relative is None and width % 8 == 0 and width <= 256):
        return None
    if torch.cuda.get_device_capability(word.device) < (8, 0):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    found: Callable[..., Any] = varlen_attn
    return found if attends(found, blueprint.heads, width, word.dtype, word.device) else None


def attends(flash: Callable[..., Any], heads: int, width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether it attends within each row, both for whole rows and for the first token of each row only.

    Args:
        flash: with the signature of ``torch.nn.attention.varlen.varlen_attn``.
        heads: the number of heads.
        width: columns of a head.
        dtype: of query, key and value.
        device: where they are.
    """
    tokens = sum(TRIED)
    joined = _numbers(device, tokens, 3 * heads * width).to(dtype)
    query, key, value = joined.unflatten(1, (3, heads, width)).unbind(1)
    starts = torch.tensor([0, 3, 4, 9], dtype=torch.int32, device=device)
    first, alone = starts[:-1].long(), torch.arange(len(TRIED) + 1, dtype=torch.int32, device=device)
    try:
        whole = flash(query, key, value, starts, starts, max(TRIED), max(TRIED))
        only = flash(query[first], key, value, alone, starts, 1, max(TRIED))
    except Exception:  # a build without it raises anything
        return False
    q, k, v = (part.double().transpose(0, 1) for part in (query, key, value))
    rows = torch.repeat_interleave(torch.arange(len(TRIED), device=device), torch.tensor(TRIED, device=device))
    scores = (q @ k.mT / width**0.5).masked_fill(rows[:, None] != rows, float("-inf"))
    exact = (scores.softmax(-1) @ v).transpose(0, 1)
    return _close(whole, exact) and _close(only, exact[first])


def fused_parts(blueprint: Blueprint) -> FusedParts | None:
    """The Triton kernels, or None where they cannot run."""
    if not blueprint.word.is_cuda:
        return None
    try:
        from embedcache.encoder.fused_triton import Fused

        with torch.cuda.device(blueprint.word.device):
            fused = Fused(blueprint.activation, blueprint.epsilon)
            return fused if fuses(fused, blueprint) else None
    except Exception:  # no Triton, or any error of its compiler
        return None


def fuses(fused: FusedParts, blueprint: Blueprint) -> bool:
    """Whether its results agree with torch's float64 operations on a few rows of a layer's own widths."""
    layer, device, dtype = blueprint.layers[0], blueprint.word.device, blueprint.word.dtype
    (scale, shift), (_, bias) = layer.norm1, layer.up
    x, y = _numbers(device, 2, sum(TRIED), len(shift)).to(dtype)
    wide = _numbers(device, sum(TRIED), len(bias)).to(dtype)
    both, affine = x.double() + y.double(), (scale.double(), shift.double())
    normed = functional.layer_norm(both, scale.shape, *affine, blueprint.epsilon)
    active = ACTIVATIONS[blueprint.activation](wide.double() + bias.double())
    return _close(fused.add_norm(x, y, scale, shift), normed) and _close(fused.activate(wide, bias), active)


def _close(found: Tensor, exact: Tensor) -> bool:
    """Whether all numbers are finite and within ``ROUNDINGS`` roundings, in their dtype, of the largest one."""
    rounding = torch.finfo(found.dtype).eps * exact.abs().max()
    return bool((found.double() - exact).abs().max() <= ROUNDINGS * rounding)


def _numbers(device: torch.device, *shape: int) -> Tensor:
    """The same random numbers each time, independent of the process's own generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(device)
