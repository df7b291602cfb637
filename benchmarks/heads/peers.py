"""Training heads as the users of other libraries would at their best: each peer does the same work, on its own terms.

A peer is a function (case, x, y, threads) -> seconds of training, on float32 rows in memory. What a library compiles is
compiled before the clock starts. Peers that train many heads at once let all heads share what they can. Those that
train head after head take the time of `loop_heads` heads and scale it up, where a case has very many.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

DIM, HIDDEN, CLASSES, DROPOUT, LR, DECAY = 768, 512, 2, 0.1, 1e-3, 0.01


@dataclass(frozen=True)
class Case:
    name: str
    heads: int
    rows: int
    epochs: int
    batch_size: int
    hidden: int = HIDDEN  # 0: linear probes
    bfloat16: bool = False  # the engine's compute mode; peers may use bfloat16 too
    shared_order: bool = False  # all heads see the rows in one order: a sweep over one seed
    loop_heads: int = 16  # the most heads that a peer trains one after the other
    left_out: tuple[str, ...] = ()  # peers that were 20 times slower than the best one in a tenth of the work

    @property
    def head_rows(self) -> int:
        return self.heads * self.rows * self.epochs

    @property
    def flop(self) -> float:
        if not self.hidden:
            return self.head_rows * 2.0 * 2 * DIM * CLASSES
        return self.head_rows * 2.0 * (2 * DIM * self.hidden + 3 * self.hidden * CLASSES)


Peer = Callable[[Case, np.ndarray, np.ndarray, int], float]


def make_head(case: Case) -> nn.Sequential:
    first = [nn.Linear(DIM, case.hidden), nn.ReLU(), nn.Dropout(DROPOUT)] if case.hidden else []
    return nn.Sequential(*first, nn.Linear(case.hidden or DIM, CLASSES), nn.LogSoftmax(dim=1))


def precision(case: Case) -> Any:
    """bfloat16 in torch as its documentation has it: autocast around forward and loss."""
    return torch.autocast("cpu", torch.bfloat16, enabled=case.bfloat16)


def eager_loss(head: nn.Module, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    return F.nll_loss(head(xs), ys)


def torch_eager(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """The usual loop, head after head, with the fused AdamW: everything in memory, rows gathered by index."""
    return _torch_loop(case, x, y, threads, eager_loss)


def torch_eager_one_thread(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """The same on one thread, which a busy machine hurts less than OpenMP's spinning."""
    return torch_eager(case, x, y, 1)


def torch_compiled(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """The same loop with forward, loss and backward compiled."""
    torch.set_num_threads(threads)
    loss = _compiled_loss()
    with precision(case):
        batch = torch.zeros(case.batch_size, DIM), torch.zeros(case.batch_size, dtype=torch.long)
        loss(make_head(case), *batch).backward()
    return _torch_loop(case, x, y, threads, loss)


@cache
def _compiled_loss() -> Any:
    return torch.compile(eager_loss)


def _torch_loop(case: Case, x: np.ndarray, y: np.ndarray, threads: int, loss: Any) -> float:
    torch.set_num_threads(threads)
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)
    heads = min(case.heads, case.loop_heads)
    start = time.perf_counter()
    for seed in range(heads):
        torch.manual_seed(seed)
        head = make_head(case)
        adamw = torch.optim.AdamW(head.parameters(), lr=LR, weight_decay=DECAY, fused=True)
        for _ in range(case.epochs):
            for rows in torch.randperm(len(xs)).split(case.batch_size):
                adamw.zero_grad(set_to_none=True)
                with precision(case):
                    value = loss(head, xs[rows], ys[rows])
                value.backward()
                adamw.step()
    return (time.perf_counter() - start) * case.heads / heads


def torch_vmap(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """torch.func: the heads stacked, one vmapped gradient for all, each with its own dropout and, mostly, row order."""
    torch.set_num_threads(threads)
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)
    model = make_head(case)

    def loss(parameters: dict[str, torch.Tensor], xb: torch.Tensor, yb: torch.Tensor) -> torch.Tensor:
        return F.nll_loss(torch.func.functional_call(model, parameters, (xb,)), yb)

    start = time.perf_counter()
    stacked, _ = torch.func.stack_module_state([make_head(case) for _ in range(case.heads)])
    parameters = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    adamw = torch.optim.AdamW(parameters.values(), lr=LR, weight_decay=DECAY, fused=True)
    rows_of = None if case.shared_order else 0
    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(0, rows_of, rows_of), randomness="different")
    for _ in range(case.epochs):
        order = torch.stack([torch.randperm(len(xs)) for _ in range(1 if case.shared_order else case.heads)])
        for batch in order.split(case.batch_size, dim=1):
            rows = batch[0] if case.shared_order else batch
            with torch.no_grad(), precision(case):
                gradients = gradient(parameters, xs[rows], ys[rows])
            for name, value in parameters.items():
                value.grad = gradients[name]
            adamw.step()
    return time.perf_counter() - start


def torch_big_product(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """All heads see the same batch, so that their first layers are one product [B, D] x [D, heads * hidden]."""
    torch.set_num_threads(threads)
    xs, ys = torch.from_numpy(x), torch.from_numpy(y)
    start = time.perf_counter()
    hidden = case.hidden
    first = nn.Linear(DIM, case.heads * (hidden or CLASSES))
    second = nn.Parameter((torch.rand(case.heads, max(hidden, 1), CLASSES) * 2 - 1) * max(hidden, 1) ** -0.5)
    bias = nn.Parameter(torch.zeros(case.heads, 1, CLASSES))
    parameters = [*first.parameters(), second, bias] if hidden else list(first.parameters())
    adamw = torch.optim.AdamW(parameters, lr=LR, weight_decay=DECAY, fused=True)
    for _ in range(case.epochs):
        for rows in torch.randperm(len(xs)).split(case.batch_size):
            with precision(case):
                a = first(xs[rows])
                if hidden:
                    a = F.dropout(torch.relu(a), DROPOUT)
                a = a.view(len(rows), case.heads, -1).transpose(0, 1)
                log_p = F.log_softmax(torch.baddbmm(bias, a, second) if hidden else a, dim=2)
                loss = F.nll_loss(log_p.reshape(-1, CLASSES), ys[rows].repeat(case.heads)) * case.heads
            adamw.zero_grad(set_to_none=True)
            loss.backward()
            adamw.step()
    return time.perf_counter() - start


def jax_scan(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """JAX: vmap over heads of a lax.scan over all steps, compiled ahead; XLA takes every core it may use."""
    import jax

    run = _jax_program(case)
    keys = jax.random.split(jax.random.key(0, impl="rbg"), case.heads)
    rng = np.random.default_rng(0)
    steps = len(x) // case.batch_size
    orders = 1 if case.shared_order else case.heads
    order = np.stack([[rng.permutation(len(x)) for _ in range(case.epochs)] for _ in range(orders)])
    order = order.reshape(orders, case.epochs * steps, case.batch_size).astype(np.int32)
    order = order[0] if case.shared_order else order
    on_device = [jax.device_put(array) for array in (x, y.astype(np.int32), order)]
    compiled = _jax_compiled(case, run, *on_device, keys)
    start = time.perf_counter()
    jax.block_until_ready(compiled(*on_device, keys))
    return time.perf_counter() - start


_JAX_COMPILED: dict[tuple[Any, ...], Any] = {}


def _jax_compiled(case: Case, run: Any, *arguments: Any) -> Any:
    key = (case, arguments[0].shape)
    if key not in _JAX_COMPILED:
        _JAX_COMPILED[key] = run.lower(*arguments).compile()
    return _JAX_COMPILED[key]


def _jax_program(case: Case) -> Any:
    import jax
    import jax.numpy as jnp

    compute = jnp.bfloat16 if case.bfloat16 else jnp.float32

    def product(a: Any, b: Any) -> Any:
        return jnp.matmul(a.astype(compute), b.astype(compute), preferred_element_type=jnp.float32)

    def loss(w: dict[str, Any], xb: Any, yb: Any, key: Any) -> Any:
        a = xb
        if case.hidden:
            a = jax.nn.relu(product(xb, w["w1"]) + w["b1"])
            a = jnp.where(jax.random.bernoulli(key, 1 - DROPOUT, a.shape), a / (1 - DROPOUT), 0)
        log_p = jax.nn.log_softmax(product(a, w["w2"]) + w["b2"])
        return -log_p[jnp.arange(len(yb)), yb].mean()

    def adamw(w: Any, m: Any, v: Any, g: Any, t: Any) -> Any:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        step = LR * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return w * (1 - LR * DECAY) - step, m, v

    def train(x: Any, y: Any, order: Any, key: Any) -> Any:
        k1, k2, key = jax.random.split(key, 3)
        inputs = case.hidden or DIM
        w = {
            "w2": jax.random.uniform(k2, (inputs, CLASSES), minval=-(inputs**-0.5), maxval=inputs**-0.5),
            "b2": jnp.zeros(CLASSES),
        }
        if case.hidden:
            w["w1"] = jax.random.uniform(k1, (DIM, case.hidden), minval=-(DIM**-0.5), maxval=DIM**-0.5)
            w["b1"] = jnp.zeros(case.hidden)
        zeros = jax.tree.map(jnp.zeros_like, w)

        def step(state: Any, rows: Any) -> Any:
            w, m, v, t, key = state
            key, now = jax.random.split(key)
            g = jax.grad(loss)(w, x[rows], y[rows], now)
            new = {name: adamw(w[name], m[name], v[name], g[name], t) for name in w}
            w, m, v = ({name: part[i] for name, part in new.items()} for i in range(3))
            return (w, m, v, t + 1, key), None

        return jax.lax.scan(step, (w, zeros, zeros, 1.0, key), order)[0][0]

    return jax.jit(jax.vmap(train, in_axes=(None, None, None if case.shared_order else 0, 0)))


def sklearn_mlp(case: Case, x: np.ndarray, y: np.ndarray, threads: int) -> float:
    """scikit-learn's MLPClassifier, which has no dropout and another weight decay, so does a little less."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    layers = (case.hidden,) if case.hidden else ()
    make = partial(MLPClassifier, layers, batch_size=case.batch_size, max_iter=case.epochs, learning_rate_init=LR)
    start = time.perf_counter()
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        heads = min(case.heads, case.loop_heads)
        for seed in range(heads):
            make(random_state=seed, tol=0.0, n_iter_no_change=case.epochs + 1).fit(x, y)
    return (time.perf_counter() - start) * case.heads / heads


def peers() -> dict[str, Peer]:
    """All that can run here; JAX is not among the project's dependencies."""
    found: dict[str, Peer] = {
        "torch eager": torch_eager,
        "torch eager, 1 thread": torch_eager_one_thread,
        "torch.compile": torch_compiled,
        "torch.func vmap": torch_vmap,
        "torch, one big product": torch_big_product,
        "scikit-learn MLP": sklearn_mlp,
    }
    return found | ({"JAX vmap + scan": jax_scan} if find_spec("jax") else {})
