"""The engines that this machine can run, and problems for them."""

from __future__ import annotations

import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from embedcache.heads import engine_native
from embedcache.heads.spec import HeadSpec
from embedcache.heads.train import BankResult, Task, View, train_bank


@dataclass(frozen=True)
class Engine:
    """How train_bank reaches one engine; ``isa`` forces an instruction set of the CPU library."""

    engine: str
    device: str
    isa: str = ""

    def train(self, tasks: list[Task], heads: list[tuple[HeadSpec, int]], **options: Any) -> BankResult:
        before = os.environ.get("EMBEDCACHE_ISA")
        os.environ["EMBEDCACHE_ISA"] = self.isa
        try:
            # One thread for torch: its OpenMP loop falls many-fold when the tests share the cores.
            options = {"threads": 1 if self.engine == "torch" else 2, **options}
            return train_bank(tasks, heads, engine=self.engine, device=self.device, **options)
        finally:
            os.environ.pop("EMBEDCACHE_ISA") if before is None else os.environ.update(EMBEDCACHE_ISA=before)


def native_cpu_engines() -> dict[str, Engine]:
    """One for each instruction set of this machine."""
    engines = {}
    others = ("neon",) if platform.machine() in ("aarch64", "arm64") else ("plain",)
    for isa in ("avx512", "avx2", "plain") if platform.machine() in ("x86_64", "AMD64") else others:
        engine = Engine("native", "cpu", isa)
        try:
            name = engine.train([make_task(8, 4, 2)], [(HeadSpec(hidden=0), 0)], epochs=1).engine
        except engine_native.NativeUnavailableError as error:
            pytest.skip(f"the native library is not built: {error}", allow_module_level=True)
        if name == f"native-cpu-{isa}":
            engines[name] = engine
    return engines


def all_engines() -> dict[str, Engine]:
    engines = native_cpu_engines()
    if importlib.util.find_spec("torch"):  # there is none where a wheel is tried
        engines["torch-cpu"] = Engine("torch", "cpu")
    try:
        engine_native.find("cuda")
        engines["native-cuda"] = Engine("native", "cuda")
    except engine_native.NativeUnavailableError:
        pass
    return engines


def parametrize(engines: Callable[[], dict[str, Engine]]) -> Any:
    made = engines()
    return pytest.mark.parametrize("engine", made.values(), ids=made.keys())


def make_task(
    n: int,
    dim: int,
    classes: int,
    *,
    n_val: int = 0,
    dtype: type = np.float32,
    noise: float = 0.5,
    standardize: bool = False,
    weighted: bool = False,
    sampled: bool = False,
    kind: str = "classification",
    seed: int = 0,
) -> Task:
    """A noisy linear problem of so many outputs. The rows of x are used in an odd order, and not all of them."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + n_val + 3, dim))
    if standardize:
        x = x * rng.uniform(0.2, 3, dim) + rng.standard_normal(dim)
    x = x.astype(dtype)
    scores = x.astype(np.float64) @ rng.standard_normal((dim, classes)) / np.sqrt(dim)
    scores += noise * rng.standard_normal(scores.shape)
    if kind == "classification":
        y = scores.argmax(axis=1).astype(np.int32)
        y[:classes] = np.arange(classes)[: len(y)]
    else:
        y = (scores > 0.5 if kind == "multilabel" else scores).astype(np.float32)
    rows = rng.permutation(len(x)).astype(np.int64)
    train, val = rows[:n], rows[n : n + n_val]
    task = Task(View(x, y, train), View(x, y, val) if n_val else None, classes, kind=kind)
    if standardize:
        used = x[train].astype(np.float64)
        task.mean = used.mean(axis=0).astype(np.float32)
        task.inv_std = (1 / used.std(axis=0)).astype(np.float32)
    if weighted:
        task.class_weight = rng.uniform(0.5, 2, classes).astype(np.float32)
    if sampled:
        give_sample_weights(task)
    return task


def give_sample_weights(task: Task) -> None:
    """Some rows weigh nothing, some much; those that are not used are NaN."""
    for view in (view for view in (task.train, task.val) if view is not None):
        weight = np.random.default_rng(len(view.rows)).choice([0.0, 0.2, 1.0, 3.5], len(view.x))
        view.sample_weight = (weight / weight[view.rows].mean()).astype(np.float32)
        view.sample_weight[np.setdiff1d(np.arange(len(view.x)), view.rows)] = np.nan


def same_heads(a: BankResult, b: BankResult, pick_a: Any = None, pick_b: Any = None) -> bool:
    """Whether weights and losses agree to the bit: of all heads, or of those with the given numbers."""
    these, those = (list(range(len(r.heads))) if pick is None else pick for r, pick in ((a, pick_a), (b, pick_b)))
    heads = [(a.heads[i], b.heads[j]) for i, j in zip(these, those, strict=True)]
    weights = all(x.weights[n].tobytes() == y.weights[n].tobytes() for x, y in heads for n in x.weights)
    return weights and all(a.history[n][these].tobytes() == b.history[n][those].tobytes() for n in a.history)
