"""A part for GPUs is used only where its numbers are right: tried here on a CPU, with right and with wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from embedcache.encoder.blueprint import Blueprint
from embedcache.encoder.gpu_parts import ACTIVATIONS, attends, flash_attention, fused_parts, fuses
from embedcache.encoder.read_model import read_blueprint
from tests.encoder.conftest import attend_by_rows

CPU = torch.device("cpu")


def blueprint_of(model: Any, dtype: torch.dtype) -> Blueprint:
    found = read_blueprint(model.to(dtype), 64)
    assert found is not None
    return found


def over_all_rows(q: Tensor, k: Tensor, v: Tensor, *_: Any) -> Tensor:
    one, keys, values = (part.transpose(0, 1) for part in (q, k, v))
    return ((one @ keys.mT / q.shape[-1] ** 0.5).softmax(-1) @ values).transpose(0, 1)


def unscaled(q: Tensor, k: Tensor, *rest: Any) -> Tensor:
    return attend_by_rows(q * q.shape[-1] ** 0.5, k, *rest)


def not_finite(q: Tensor, *rest: Any) -> Tensor:
    return attend_by_rows(q, *rest) * float("nan")


def failing(*_: Any) -> Tensor:
    raise RuntimeError("this build has no flash attention")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_attention(dtype: torch.dtype) -> None:
    assert attends(attend_by_rows, 3, 8, dtype, CPU)
    for wrong in (over_all_rows, unscaled, not_finite, failing):
        assert not attends(wrong, 3, 8, dtype, CPU), wrong


class Fused:
    """Right, but for what is said."""

    def __init__(
        self, activation: str = "gelu", epsilon: float = 1e-12, residual: float = 1.0, bias: float = 1.0
    ) -> None:
        self._activate, self._epsilon, self._residual, self._bias = ACTIVATIONS[activation], epsilon, residual, bias

    def add_norm(self, x: Tensor, y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        both = x.float() + self._residual * y.float()
        return torch.nn.functional.layer_norm(both, scale.shape, scale.float(), shift.float(), self._epsilon).to(
            x.dtype
        )

    def activate(self, x: Tensor, bias: Tensor) -> Tensor:
        return self._activate(x.float() + self._bias * bias.float()).to(x.dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fused(make_model: Callable[..., Any], dtype: torch.dtype) -> None:
    blueprint = blueprint_of(make_model("bert"), dtype)
    assert fuses(Fused(), blueprint)
    assert not fuses(Fused("relu"), blueprint)
    assert not fuses(Fused(epsilon=1.0), blueprint)
    assert not fuses(Fused(residual=0.9), blueprint)
    assert not fuses(Fused(bias=0.0), blueprint)


def test_a_cpu_has_neither(make_model: Callable[..., Any]) -> None:
    blueprint = blueprint_of(make_model("bert"), torch.bfloat16)
    assert flash_attention(blueprint) is None
    assert fused_parts(blueprint) is None
