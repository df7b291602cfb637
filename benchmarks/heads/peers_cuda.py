"""Training heads on a GPU as the users of PyTorch and JAX would at their best: each peer does the same work.

A peer is a function (case, x, y) -> (step, heads): step(i) does the optimizer's step i for so many heads at once, on
tensors that lie on the device; TF32 is allowed wherever the library can use it. speed_cuda.py times steps
for some seconds and counts how long all of them would take. JAX times itself: its loop over the steps is compiled.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from benchmarks.heads.peers import CLASSES, DECAY, DIM, DROPOUT, LR, Case, _jax_program, make_head

Step = Callable[[int], Any]
Peer = Callable[[Case, torch.Tensor, torch.Tensor], tuple[Step, int]]


def batches(case: Case, x: torch.Tensor, heads: int) -> Callable[[int], torch.Tensor]:
    """Rows of step i, [heads, batch], every head in an order of its own; the orders come round again."""
    steps = case.rows // case.batch_size
    order = torch.stack([torch.randperm(case.rows, device=x.device) for _ in range(heads)])
    return lambda i: order[:, i % steps * case.batch_size :][:, : case.batch_size]


def adamw_of(parameters: Any, **options: Any) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY, fused=True, **options)


def head_loss(head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(head(xs), ys)


def _loop(case: Case, x: torch.Tensor, y: torch.Tensor, loss: Any) -> tuple[Step, int]:
    head = make_head(case).to(x.device)
    adamw, rows_of = adamw_of(head.parameters()), batches(case, x, 1)

    def step(i: int) -> None:
        rows = rows_of(i)[0]
        adamw.zero_grad(set_to_none=True)
        loss(head, x[rows], y[rows]).backward()
        adamw.step()

    return step, 1


def torch_eager(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The usual loop, one head after the other."""
    return _loop(case, x, y, head_loss)


def torch_compiled(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The same loop with forward, loss and backward compiled."""
    return _loop(case, x, y, torch.compile(head_loss))


def torch_cuda_graph(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The same step captured as a CUDA graph: gather, forward, backward and AdamW in one launch."""
    head = make_head(case).to(x.device)
    adamw, rows_of = adamw_of(head.parameters(), capturable=True), batches(case, x, 1)
    rows = rows_of(0)[0].clone()

    def work() -> None:
        adamw.zero_grad(set_to_none=True)
        head_loss(head, x[rows], y[rows]).backward()
        adamw.step()

    return _captured(work, rows, lambda i: rows_of(i)[0]), 1


def _captured(work: Callable[[], None], rows: torch.Tensor, rows_of: Callable[[int], torch.Tensor]) -> Step:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()

    def step(i: int) -> None:
        rows.copy_(rows_of(i))
        graph.replay()

    return step


def torch_vmap(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """torch.func: the heads stacked, one vmapped gradient for all, each with its own rows and dropout."""
    model = make_head(case).to(x.device)

    def loss(parameters: dict[str, torch.Tensor], xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(torch.func.functional_call(model, parameters, (xb,)), yb)

    stacked, _ = torch.func.stack_module_state([make_head(case).to(x.device) for _ in range(case.heads)])
    parameters = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    adamw, rows_of = adamw_of(parameters.values()), batches(case, x, case.heads)
    gradient = torch.func.vmap(torch.func.grad(loss), randomness="different")

    def step(i: int) -> None:
        rows = rows_of(i)
        with torch.no_grad():
            gradients = gradient(parameters, x[rows], y[rows])
        for name, value in parameters.items():
            value.grad = gradients[name]
        adamw.step()

    return step, case.heads


def torch_big_product(
    case: Case, x: torch.Tensor, y: torch.Tensor, compiled: bool = False, graph: bool = False, bfloat16: bool = False
) -> tuple[Step, int]:
    """All heads see the same batch, so that their first layers are one product [B, D] x [D, heads * hidden]."""
    heads, hidden = case.heads, case.hidden
    first = nn.Linear(DIM, heads * (hidden or CLASSES)).to(x.device)
    second = nn.Parameter((torch.rand(heads, hidden, CLASSES, device=x.device) * 2 - 1) * max(hidden, 1) ** -0.5)
    bias = nn.Parameter(torch.zeros(heads, 1, CLASSES, device=x.device))
    parameters = [*first.parameters(), *([second, bias] if hidden else [])]
    adamw = adamw_of(parameters, **({"capturable": True} if graph else {}))
    rows_of = batches(case, x, 1)

    def logits(z: torch.Tensor) -> torch.Tensor:
        if not hidden:
            return z.view(len(z), heads, CLASSES).transpose(0, 1)
        a = F.dropout(torch.relu(z), DROPOUT).view(len(z), heads, hidden).transpose(0, 1)
        return torch.baddbmm(bias, a, second)

    def loss(xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
            log_p = F.log_softmax(logits(first(xs)), dim=2)
        return F.nll_loss(log_p.reshape(-1, CLASSES), ys.repeat(heads)) * heads

    chosen = torch.compile(loss) if compiled else loss
    rows = rows_of(0)[0].clone()

    def work() -> None:
        adamw.zero_grad(set_to_none=True)
        chosen(x[rows], y[rows]).backward()
        adamw.step()

    if graph:
        return _captured(work, rows, lambda i: rows_of(i)[0]), heads

    def step(i: int) -> None:
        rows.copy_(rows_of(i)[0])
        work()

    return step, heads


def torch_big_product_compiled(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The same, compiled."""
    return torch_big_product(case, x, y, compiled=True)


def torch_big_product_graph(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The same, captured as a CUDA graph."""
    return torch_big_product(case, x, y, graph=True)


def torch_big_product_bfloat16(case: Case, x: torch.Tensor, y: torch.Tensor) -> tuple[Step, int]:
    """The same, compiled, in bfloat16 (autocast)."""
    return torch_big_product(case, x, y, compiled=True, bfloat16=True)


def jax_apart(case: Case) -> dict[str, Any]:
    """``jax_seconds`` of the same data in a process of its own: beside torch both would want the GPU's memory."""
    code = (
        "import json, sys\nfrom benchmarks.heads.peers import Case\nfrom benchmarks.heads import peers_cuda\n"
        "case = Case(**json.loads(sys.argv[1]))\n"
        "print(json.dumps(peers_cuda.jax_seconds(case, *peers_cuda.rows_of(case))))"
    )
    settings = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # or it takes 75% of the memory for good
    command = [sys.executable, "-c", code, json.dumps(asdict(case))]
    done = subprocess.run(command, env=settings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no words"])[-1])
    return {"seconds": float(json.loads(done.stdout.splitlines()[-1]))}


def rows_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """float32 [rows, DIM], int64 [rows]: the same each time."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((case.rows, DIM), dtype=np.float32)
    return x, (x @ rng.standard_normal(DIM, dtype=np.float32) > 0).astype(np.int64)


def jax_seconds(case: Case, x: np.ndarray, y: np.ndarray) -> float:
    """JAX: vmap over heads of a lax.scan over steps, compiled ahead; a part of the steps, counted up."""
    import jax

    if not any(device.platform == "gpu" for device in jax.devices()):
        raise RuntimeError("JAX sees no GPU")

    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    part = replace(case, rows=min(case.rows, case.batch_size * 64), epochs=1)
    keys = jax.random.split(jax.random.key(0, impl="rbg"), part.heads)
    rng = np.random.default_rng(0)
    steps = part.rows // part.batch_size
    order = np.stack([rng.permutation(case.rows)[: part.rows] for _ in range(part.heads)])
    order = order.reshape(part.heads, steps, part.batch_size).astype(np.int32)
    on_device = [jax.device_put(array) for array in (x, y.astype(np.int32), order)]
    compiled = _jax_program(part).lower(*on_device, keys).compile()
    jax.block_until_ready(compiled(*on_device, keys))
    start = time.perf_counter()
    jax.block_until_ready(compiled(*on_device, keys))
    return (time.perf_counter() - start) * case.head_rows / part.head_rows


LOOPS: dict[str, Peer] = {"torch eager": torch_eager, "torch.compile": torch_compiled}
BANKS: dict[str, Peer] = {
    "torch.func vmap": torch_vmap,
    "torch, one big product": torch_big_product,
    "torch, one big product, compiled": torch_big_product_compiled,
    "torch, one big product, compiled, bfloat16": torch_big_product_bfloat16,
}
GRAPHS: dict[str, Peer] = {"torch, CUDA graph": torch_cuda_graph}
BANK_GRAPHS: dict[str, Peer] = {"torch, one big product, CUDA graph": torch_big_product_graph}


def peers(device: str, heads: int, loops: bool = True) -> dict[str, Peer]:
    """All that can run on the device; peers for many heads only where there are many.

    loops: also those that train a head after the other.
    """
    graphs = device.startswith("cuda")
    found = (LOOPS | (GRAPHS if graphs else {})) if loops or heads == 1 else {}
    return found | ((BANKS | (BANK_GRAPHS if graphs else {})) if heads > 1 else {})
