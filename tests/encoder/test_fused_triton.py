"""The Triton kernels against float64: on a GPU where there is one, else by Triton's interpreter on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # as tests/conftest.py has it, unless there is a GPU that torch cannot use
pytest.importorskip("triton", reason="Triton is not installed (it comes with torch's builds for GPUs)")

from embedcache.encoder.fused_triton import COLUMNS, KINDS, Fused  # noqa: E402
from embedcache.encoder.gpu_parts import ACTIVATIONS  # noqa: E402

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def numbers(*shape: int, dtype: torch.dtype, by: float = 1.0) -> torch.Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))) * by).to(DEVICE, dtype)


def near(found: torch.Tensor, exact: torch.Tensor) -> None:
    """Within one rounding of each number, and float32's of the sums."""
    off = (found.double() - exact).abs()
    assert bool((off <= torch.finfo(found.dtype).eps * exact.abs() + 2e-6 * (1 + exact.abs().max())).all()), off.max()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 16), (7, 36), (2, 384), (5, 768), (1, 1024), (2, 1031)])
def test_residual_and_norm(rows: int, width: int, dtype: torch.dtype) -> None:
    x, y = numbers(rows, width, dtype=dtype, by=3), numbers(rows, width, dtype=dtype)
    scale, shift = numbers(width, dtype=dtype), numbers(width + 1, dtype=dtype)[:width]
    before = x.clone()
    found = Fused("gelu", 1e-5).add_norm(x, y, scale, shift)
    exact = functional.layer_norm(x.double() + y.double(), (width,), scale.double(), shift.double(), 1e-5)
    assert found.dtype == dtype and torch.equal(x, before)
    near(found, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("activation", KINDS)
@pytest.mark.parametrize(("rows", "width"), [(1, 1), (3, 36), (2, COLUMNS), (2, COLUMNS + 5), (1, 3 * COLUMNS)])
def test_bias_and_activation(rows: int, width: int, activation: str, dtype: torch.dtype) -> None:
    x, bias = numbers(rows, width, dtype=dtype, by=4), numbers(width, dtype=dtype)
    exact = ACTIVATIONS[activation](x.double() + bias.double())
    found = Fused(activation, 1e-5).activate(x, bias)
    assert found.data_ptr() == x.data_ptr()
    near(found, exact)


def test_gelu_keeps_the_digits_of_small_numbers() -> None:
    """Also where 1 + erf is all but 0."""
    x = torch.linspace(-9, 9, 4097, device=DEVICE)[None]
    exact = x.double() * torch.special.erfc(-x.double() / 2**0.5) / 2
    found = Fused("gelu", 1e-5).activate(x.clone(), torch.zeros(4097, device=DEVICE))
    assert (found.double() / exact - 1).abs().nan_to_num().max() < 1e-5


@pytest.mark.parametrize("activation", KINDS)
def test_large_numbers_stay_finite(activation: str) -> None:
    x = torch.tensor([[-1e30, -200.0, -0.0, 200.0, 1e30]], device=DEVICE)
    found = Fused(activation, 1e-5).activate(x, torch.zeros(5, device=DEVICE))
    assert found.isfinite().all() and found[0, 3] == 200 and found[0, :3].abs().max() == 0


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from embedcache.encoder.fused_triton import _activate, _add_norm, KINDS

of = ["x", "y", "scale", "shift", "out"]
for arch in (80, 90):
    for kind in ("bf16", "fp16", "fp32"):
        norm = dict.fromkeys(of, f"*{kind}") | {"width": "i32", "epsilon": "fp32", "BLOCK": "constexpr"}
        kernels = [(_add_norm, norm, {"BLOCK": block}) for block in (512, 1024, 4096)]
        act = {"x": f"*{kind}", "bias": f"*{kind}", "width": "i32", "KIND": "constexpr", "BLOCK": "constexpr"}
        kernels += [(_activate, act, {"KIND": number, "BLOCK": 1024}) for number in KINDS.values()]
        for kernel, signature, constants in kernels:
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            assert compile(source, target=GPUTarget("cuda", arch, 32)).asm["cubin"]
"""


@pytest.mark.slow
def test_compiled_for_gpus(tmp_path: Path) -> None:
    """Machine code for 8.0 and 9.0, which needs no GPU: the interpreter takes what the compiler refuses."""
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env={**settings, "TRITON_CACHE_DIR": str(tmp_path)}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
