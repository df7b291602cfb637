"""The head as a torch operator: values and gradients of the modules, torch's own checks, the compiler, autocast."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from embedcache.errors import EmbedcacheError
from embedcache.ops import focal, fused_head

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OP = torch.ops.embedcache.fused_head.default
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(
    n: int, device: str, dtype: torch.dtype = torch.float32, classes: int = 3
) -> tuple[torch.Tensor, nn.Sequential]:
    torch.manual_seed(n)
    modules = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, classes), nn.LogSoftmax(dim=1))
    return torch.randn(n, 7).to(device, dtype), modules.to(device, dtype)


def gradients(log_proba: torch.Tensor, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, log_proba.numel(), device=log_proba.device, dtype=log_proba.dtype)
    return torch.autograd.grad((log_proba * weights.view_as(log_proba)).sum(), inputs)


def assert_as_the_modules(x: torch.Tensor, modules: nn.Sequential, run: Any = fused_head) -> None:
    x = x.detach().requires_grad_()
    parameters = list(modules.parameters())
    expected, got, limit = modules(x), run(x, *parameters), TOLERANCE[parameters[0].dtype]
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        expected, limit = expected.float(), TOLERANCE[torch.bfloat16]
    assert got.dtype == expected.dtype and got.device == expected.device
    torch.testing.assert_close(got, expected, rtol=limit, atol=limit)
    for ours, theirs in zip(gradients(got, [x, *parameters]), gradients(expected, [x, *parameters]), strict=True):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=4 * limit, atol=4 * limit)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("n", [0, 1, 33])
def test_values_and_gradients_are_the_modules_own(n: int, dtype: torch.dtype, device: str) -> None:
    assert_as_the_modules(*make(n, device, dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_autocast_gives_what_it_gives_for_the_modules(dtype: torch.dtype, device: str) -> None:
    x, modules = make(33, device, dtype)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert_as_the_modules(x, modules)


def test_a_backward_inside_autocast_keeps_the_precision_of_its_forward(device: str) -> None:
    x, modules = make(33, device, torch.float32)
    parameters = list(modules.parameters())
    expected = gradients(modules(x), parameters)
    got = fused_head(x, *parameters)
    with torch.autocast(device, dtype=torch.bfloat16):
        torch.testing.assert_close(gradients(got, parameters), expected)


def test_inputs_need_not_be_contiguous(device: str) -> None:
    x, modules = make(33, device, torch.float64)
    x = x.t().contiguous().t()
    for linear in (modules[0], modules[2]):
        linear.weight = nn.Parameter(torch.stack([linear.weight.detach()] * 2, dim=2)[:, :, 0])
        linear.bias = nn.Parameter(torch.stack([linear.bias.detach()] * 2, dim=1)[:, 0])
    assert not any(tensor.is_contiguous() for tensor in (x, *modules.parameters()))
    assert_as_the_modules(x, modules)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wanted", [0b00000, 0b11110, 0b11111, 0b11000], ids=bin)
def test_torch_opcheck(wanted: int, dtype: torch.dtype, device: str) -> None:
    x, modules = make(6, device, dtype)
    tensors = [x, *modules.parameters()]
    for i, tensor in enumerate(tensors):
        tensor.requires_grad_(bool(wanted >> i & 1))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    results = torch.library.opcheck(OP, (*tensors, False), test_utils=tests)
    assert results == dict.fromkeys(tests, "SUCCESS")


@pytest.mark.parametrize("run", [fused_head, lambda *tensors: OP(*tensors, False)[0]], ids=["eager", "registered"])
def test_gradcheck_once_and_twice(run: Any, device: str) -> None:
    x, modules = make(4, device, torch.float64)
    tensors = [tensor.detach().requires_grad_() for tensor in (x, *modules.parameters())]
    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


@pytest.mark.parametrize("number", range(5))
def test_only_wanted_gradients_are_computed(number: int) -> None:
    x, modules = make(6, "cpu")
    tensors = [tensor.detach().clone() for tensor in (x, *modules.parameters())]
    tensors[number].requires_grad_()
    with torch.profiler.profile() as profiled:
        fused_head(*tensors).pow(2).sum().backward()
    products = sum(event.count for event in profiled.key_averages() if event.key == "aten::mm")
    assert products == [2, 2, 1, 1, 0][number]  # x and w1 need dz, which is a product itself
    assert [tensor.grad is not None for tensor in tensors] == [i == number for i in range(5)]


def test_saves_hidden_activations_and_result_alone() -> None:
    x, modules = make(40, "cpu")
    saved: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        result = fused_head(x, *modules.parameters())
    inputs = {tensor.data_ptr() for tensor in (x, *modules.parameters())}
    assert sorted(t.shape for t in saved if t.data_ptr() not in inputs) == sorted([result.shape, (40, 5)])


def test_torch_compile_takes_it_whole(device: str) -> None:
    torch._dynamo.reset()
    x, modules = make(6, device)
    compiled = torch.compile(fused_head, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (6, 9, 31):
        assert_as_the_modules(make(n, device)[0], modules, compiled)
    with torch.autocast(device, dtype=torch.bfloat16):
        assert_as_the_modules(x, modules, compiled)


def test_the_compiler_sees_one_operator() -> None:
    x, modules = make(6, "cpu")

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.modules_ = copy.deepcopy(modules)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return fused_head(x, *self.modules_.parameters())

    exported = torch.export.export(Head(), (x,))
    called = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    assert OP in called
    torch.testing.assert_close(exported.module()(x), modules(x))


@pytest.mark.slow
def test_torch_compile_with_inductor(device: str) -> None:
    torch._dynamo.reset()
    x, modules = make(33, device)
    assert_as_the_modules(x, modules, torch.compile(fused_head, fullgraph=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: torch.zeros(4, 6)}, "x [4, 6], w1 [5, 7]"),
        ({0: torch.zeros(7)}, "x [7]"),
        ({2: torch.zeros(1)}, "b1 [1]"),
        ({4: torch.zeros(2)}, "b2 [2]"),
        ({3: torch.zeros(3, 7)}, "w2 [3, 7]"),
        ({0: torch.zeros(4, 7, dtype=torch.float16)}, "not float16, float32, float32, float32, float32"),
        ({0: torch.zeros(4, 7, dtype=torch.int64)}, "not int64, float32"),
    ],
)
def test_what_does_not_fit_is_one_clear_line(change: dict[int, torch.Tensor], message: str) -> None:
    x, modules = make(4, "cpu")
    tensors = [x, *modules.parameters()]
    for i, tensor in change.items():
        tensors[i] = tensor
    with pytest.raises(EmbedcacheError, match=re.escape(message)) as caught:
        fused_head(*tensors)
    assert "\n" not in str(caught.value)


def test_training_with_it_is_training_the_modules() -> None:
    x, ours = make(64, "cpu", torch.float64)
    theirs, y = copy.deepcopy(ours), torch.arange(64) % 3
    for modules, run in ((ours, lambda x: fused_head(x, *ours.parameters())), (theirs, theirs)):
        optimizer = torch.optim.AdamW(modules.parameters(), lr=1e-2)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.nll_loss(run(x), y).backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_package_reaches_it_without_loading_torch_at_first() -> None:
    code = (
        "import embedcache as ec, sys\nassert 'torch' not in sys.modules\n"
        "assert ec.ops.fused_head.__name__ == 'fused_head' and 'torch' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_its_formula_with_gradients_everywhere(device: str, gamma: float) -> None:
    p = torch.tensor([1e-30, 0.1, 0.5, 0.999], dtype=torch.float64, device=device)
    log_p = p.log().requires_grad_()
    torch.testing.assert_close(focal(log_p, gamma), -((1 - p) ** gamma) * p.log())
    assert torch.autograd.gradcheck(lambda some: focal(some, gamma), log_p)
    sure = torch.zeros(1, device=device, requires_grad=True)  # p = 1
    focal(sure, gamma).sum().backward()
    assert sure.grad is not None and sure.grad.item() == pytest.approx(-1.0 if gamma == 0 else 0.0, abs=1e-12)


def test_focal_trains_a_fused_head(device: str) -> None:
    x, modules = make(64, device)
    y = torch.arange(64, device=device) % 3
    inputs = [x, *(parameter for parameter in modules.parameters())]
    loss = focal(fused_head(*inputs).gather(1, y[:, None])).mean()
    p = modules(x).exp().gather(1, y[:, None])
    torch.testing.assert_close(loss, (-((1 - p) ** 2) * p.log()).mean())
