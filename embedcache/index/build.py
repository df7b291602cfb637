"""From a plan to a searchable index: built, measured and tuned; the prediction is reported first."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.common.devices import read_device
from embedcache.common.machine import memory_free
from embedcache.common.progress import Progress
from embedcache.errors import EmbedcacheError
from embedcache.index.approximate import Approximate
from embedcache.index.exact import Exact, StoredRows, has_faiss, import_faiss
from embedcache.index.file_format import About, SpoiltError
from embedcache.index.kind import IndexPlan
from embedcache.index.kinds import KINDS, engine_of
from embedcache.index.plan import MEMORY_SHARE, SPEED, choose
from embedcache.index.tune import Measured, Truth, held_out, truth_of, tune

FEWEST_HELD_OUT = 100  # with fewer new rows an index that holds them out keeps what was measured before
LARGEST_GROWTH = 2  # times the rows that it was trained on; with more the lists no longer fit
Planned = Callable[[IndexPlan], None]


def build(
    rows: StoredRows,
    *,
    kind: str,
    recall: float,
    device: str,
    progress: Progress | None = None,
    planned: Planned | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The engine, and what is to be known about it (fields of ``About``)."""
    gpu, speed = gpu_of(device), measured_speed() if len(rows) > 100_000 else SPEED
    on: dict[str, Any] = {"memory": memory_free(), "device": "cpu" if gpu is None else "cuda"}
    plan = choose(len(rows), rows.dim, **on, recall=recall, kind=kind, speed=speed)
    if planned is not None:
        planned(plan)
    if plan.kind == "exact":
        return _exact(rows, gpu), {"kind": "exact", "asked": recall}
    engine = engine_of(plan.kind)(rows)
    tick = _ticker(progress, len(rows))
    start = time.perf_counter()
    engine.train(plan, lambda share: tick(0.3 * share))
    seconds = time.perf_counter() - start
    measured, changed = _add_and_tune(engine, 0, plan.parameters, recall, lambda share: tick(0.3 + 0.7 * share))
    if kind == "auto" and not measured.reaches(recall) and measured.recall < 1:
        return _exact(rows, gpu), {"kind": "exact", "asked": recall}
    changed["seconds"] += seconds
    return on_device(engine, gpu), {"kind": plan.kind, "asked": recall, "trained_rows": len(rows), **changed}


def extend(engine: Approximate, about: About, recall: float, progress: Progress | None = None) -> dict[str, Any]:
    """Add the rows that the engine does not hold yet, measure and tune again; what has changed about it."""
    tick = _ticker(progress, len(engine.rows))
    _, changed = _add_and_tune(engine, about.rows, about.parameters, recall, tick)
    changed["seconds"] += about.seconds
    if engine.holds_out and len(engine.rows) - about.rows < FEWEST_HELD_OUT:
        engine.effort = int(about.parameters[engine.effort_name])
        changed = {"seconds": changed["seconds"]}  # too few to tell
    return {"rows": len(engine.rows), "asked": recall, **changed}


def _add_and_tune(
    engine: Approximate, first: int, parameters: dict[str, Any], recall: float, tick: Callable[[float], None]
) -> tuple[Measured, dict[str, Any]]:
    """Add the rows from ``first`` on and tune; fields of ``About``."""
    start = time.perf_counter()
    which, rows = np.arange(first, len(engine.rows)), engine.rows
    later = held_out(rows, first) if engine.holds_out else which[:0]
    if len(later) > len(rows) // 2:
        later = later[: len(rows) // 2]
    engine.add(np.setdiff1d(which, later), lambda share: tick(0.6 * share))
    seconds = time.perf_counter() - start
    present = np.setdiff1d(np.arange(len(rows)), later) if len(later) else None
    queries = later if len(later) else held_out(rows)
    if not len(queries):
        raise EmbedcacheError(
            "no row has a usable vector (all are zero, or hold NaN): no index finds anything here; "
            "extract into a new file"
        )
    truth = truth_of(rows, queries, present)
    measured = tune(engine, truth, recall, lambda share: tick(0.65 + 0.35 * share))
    start = time.perf_counter()
    if len(later):
        engine.add(later, lambda _: None)
    seconds += time.perf_counter() - start
    return measured, {"seconds": seconds, **tuned(engine, parameters, measured, truth)}


def tuned(engine: Approximate, parameters: dict[str, Any], measured: Measured, truth: Truth) -> dict[str, Any]:
    found: dict[str, Any] = {**parameters, engine.effort_name: engine.effort}
    if len(engine.factors) > 1:
        found["rerank_factor"] = engine.factor
    return {"parameters": found, "measured": measured.recall, "held_out": len(truth.own)}


def restored(about: About, rows: StoredRows, sections: dict[str, np.ndarray], device: str) -> Any:
    """The engine of a file. Raises ``SpoiltError``, KeyError, TypeError or ValueError where that is not whole."""
    if about.kind not in KINDS:
        raise SpoiltError(f"unknown index kind {about.kind!r}: choose {', '.join(KINDS)}")
    gpu = gpu_of(device)
    if about.kind == "exact":
        return _exact(rows, gpu)
    engine = engine_of(about.kind)(rows)
    engine.restore(sections, IndexPlan(about.kind, about.rows, about.dim, about.parameters))
    engine.effort = int(about.parameters[engine.effort_name])
    engine.factor = int(about.parameters.get("rerank_factor", 1))
    if not (1 <= engine.effort <= engine.most_effort and 1 <= engine.factor <= 1000):
        raise ValueError("its parameters are out of range")
    return on_device(engine, gpu)


def can_extend(about: About, rows: int) -> bool:
    return rows <= LARGEST_GROWTH * max(about.trained_rows, 1)


def _exact(rows: StoredRows, gpu: int | None) -> Any:
    if gpu is None:
        return Exact(rows, memory_free() * MEMORY_SHARE)
    from embedcache.index.gpu import GpuExact

    return GpuExact(rows, gpu)


def on_device(engine: Approximate, gpu: int | None) -> Any:
    if gpu is not None and engine.on_gpu:
        from embedcache.index.gpu import GpuIvf

        return GpuIvf(engine, gpu)
    return engine


def gpu_of(device: str) -> int | None:
    """The number of the GPU to use, if FAISS was built for GPUs and finds it; None means the CPU.

    Raises:
        EmbedcacheError: a GPU was asked for and there is none; no such device.
    """
    kind, number = read_device(device)
    if kind == "cpu" or (kind == "auto" and not (may_have_gpu() and has_faiss())):
        return None
    faiss = import_faiss()
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > (number or 0):
        return number or 0
    if kind == "auto":
        return None
    raise EmbedcacheError(f"FAISS finds no {device} here: install 'embedcache[gpu]', or use --device cpu")


def may_have_gpu() -> bool:
    """Whether there is a driver's file: asking FAISS would cost importing it."""
    return os.name != "posix" or any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists()


def measured_speed() -> float:
    """FLOP/s of this machine's matrix products, from a tenth of a second of them."""
    A = np.ones((1024, 512), np.float32)
    A @ A.T
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        A @ A.T
        count += 1
    return count * 2 * 1024 * 1024 * 512 / (time.perf_counter() - start)


def _ticker(progress: Progress | None, rows: int) -> Callable[[float], None]:
    def tick(share: float) -> None:
        if progress is not None:
            progress(int(1000 * min(share, 1)), 1000, int(rows * min(share, 1)))

    return tick
