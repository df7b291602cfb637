"""What test_sanitizers.py runs: heads of random shapes on the emulated GPU; ``threaded_run.py LIBRARY [CASES]``.

A line for each case: its name and a digest of its results to the bit. EC_EMULATION_THREADS=warps in the environment
runs a host thread for each warp, and the cases that have "lanes" in their name one for each thread. CASES, a regular
expression, chooses some by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.heads import engine_native
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Outcome
from tests.heads.engines import make_task

SHAPES = 30  # of each kind
# Also with a host thread for each CUDA thread.
LANES = ("cluster 0", "wide 0", "stacked 0", "split 0", "plain 0", "probe 0", "large 0", "linear 0")


def cases() -> Iterator[tuple[str, Any, list[HeadSpec], Options]]:
    """Name, task, heads, options: clusters (also with v in registers, or in bfloat16), stacked, plain, probes."""
    rng = np.random.default_rng(13)

    def pick(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    for number in range(SHAPES):
        for name in ("cluster", "held", "wide", "stacked", "plain", "probe"):
            kind = KINDS[number % len(KINDS)]
            outputs, batch = int(rng.integers(2, 6)), int(rng.integers(1, 33))
            dim, hidden = int(rng.integers(1, 200)), int(rng.integers(1, 130))
            if name == "cluster":
                dim, hidden = (pick(780, 1000), 30) if number % 10 == 9 else (dim, pick(hidden, 20, 250))
                hidden = 500 if number == 5 else hidden  # 16 blocks
            elif name == "held":
                dim, hidden = int(rng.integers(513, 769)), pick(20, 60)
            elif name == "wide":
                dim, hidden = pick(dim, 300, 500), pick(hidden, 20, 60)
                dim = {4: 640, 9: 800}.get(number % 10, dim)  # v in registers, beside the rest
                hidden = 500 if number == 5 else hidden  # 16 blocks
            elif name == "stacked":
                dim, hidden, batch = (
                    4 * int(rng.integers(1, 40)),
                    4 * int(rng.integers(1, 40)),
                    int(rng.integers(33, 160)),
                )
                outputs = pick(outputs, 2, 9, 40)
            elif name == "plain":
                outputs, hidden = outputs + 4, hidden | 1  # more than clusters take, and what stacked products do not
            elif name == "probe":
                hidden, outputs = 0, pick(outputs, 12)
            n = min(int(batch * rng.integers(1, 4) + rng.integers(0, batch)) + 1, 30 if name == "held" else 200)
            batch = max(batch, n // 3)  # three steps or four
            if name in ("cluster", "held", "wide"):
                batch, n = min(batch, 32), min(n, 70)
            small = number == 0  # as few threads and steps as show a kernel at work
            few = {"probe": 0, "plain": 5}.get(name, 4)
            dim, hidden, n = (8, few, 2 * batch) if small and name != "held" else (dim, hidden, n)
            standardize = number % 4 == 1
            task = make_task(
                n,
                dim,
                outputs,
                n_val=pick(0, 1, 20),
                kind=kind,
                standardize=standardize,
                dtype=pick(np.float32, np.float16),
            )
            loss = "focal" if kind != "regression" and number % 5 == 2 else "nll"
            spec = HeadSpec(hidden=hidden, dropout=pick(0.0, 0.2), loss=loss, lr=1e30 if number == 7 else 1e-3)
            heads = [replace(spec, seed=seed) for seed in range(2 if number % 6 == 3 else 1)]
            compute = {"plain": "float32", "probe": "float32", "wide": "bfloat16"}.get(name, "tf32")
            yield (
                f"{name} {number}",
                task,
                heads,
                Options(batch_size=batch, epochs=2 if number % 8 == 4 else 1, compute=compute),
            )


def float_cases() -> Iterator[tuple[str, Any, list[HeadSpec], Options]]:
    """Clusters in float32: every second case of "cluster", and of "held" those between; all of "stacked" as "split"."""
    for name, task, heads, options in cases():
        kind, number = name.split()
        if kind == ("cluster", "held")[int(number) % 2]:
            yield f"float {number}", task, heads, replace(options, compute="float32")
        if kind == "stacked":
            yield f"split {number}", task, heads, replace(options, compute="float32")


def varied(number: int, n: int, dim: int, outputs: int) -> tuple[Any, str]:
    """A task and a loss: kinds, standardization, class weights, dtypes and losses by turns."""
    kind = KINDS[number % len(KINDS)]
    classes = kind != "regression"
    task = make_task(
        n,
        dim,
        outputs,
        n_val=0,
        kind=kind,
        standardize=number % 4 == 1,
        weighted=number % 3 == 1 and classes,
        dtype=(np.float32, np.float16)[number % 2],
    )
    return task, "focal" if classes and number % 5 == 2 else "nll"


def large_cases() -> Iterator[tuple[str, Any, list[HeadSpec], Options]]:
    """Large batches in bfloat16: one row tile or three, one unit tile or two, as many chunks as stages and more."""
    rng = np.random.default_rng(14)
    for number in range(SHAPES):
        dim, hidden, batch = (2 * int(rng.integers(1, high)) for high in (70, 60, 90))
        dim, hidden, batch = {1: (400, 20, 40), 2: (10, 300, 140), 3: (66, 20, 270)}.get(number, (dim, hidden, batch))
        dim, hidden, batch = (8, 4, 36) if number == 0 else (dim, hidden, max(batch, 33))
        task, loss = varied(number, batch + int(rng.integers(1, 40)), dim, int(rng.integers(2, 9)))
        spec = HeadSpec(hidden=hidden, dropout=0.2 * (number % 2), loss=loss, lr=1e30 if number == 7 else 1e-3)
        heads = [replace(spec, seed=seed) for seed in range(2 if number % 6 == 3 else 1)]
        yield f"large {number}", task, heads, Options(batch_size=batch, epochs=1, compute="bfloat16")


def linear_cases() -> Iterator[tuple[str, Any, list[HeadSpec], Options]]:
    """Probes of one seed, one to six: alone in a block and by four, with room for two batches of x or hardly one."""
    rng = np.random.default_rng(15)
    for number in range(SHAPES):
        dim = int(rng.integers(*((1, 140), (140, 600), (600, 900), (900, 1025), (1025, 1537))[number % 5]))
        outputs, batch = int(rng.integers(2, 9 if dim < 900 else 3)), int(rng.integers(1, 65 if dim < 600 else 33))
        dim, outputs, batch = (8, 2, 8) if number == 0 else (dim, outputs, batch)
        task, loss = varied(number, max(3 * batch + int(rng.integers(0, batch)), 8), dim, outputs)
        rates = [1e-3 * (1 + i) for i in range(1 + number % 6)]
        rates[-1] = 1e30 if number % 8 == 7 else rates[-1]
        heads = [HeadSpec(hidden=0, loss=loss, lr=lr, seed=3) for lr in rates]
        yield f"linear {number}", task, heads, Options(batch_size=batch, epochs=1)


def digest(outcomes: list[Outcome]) -> str:
    found = hashlib.sha256()
    for one in outcomes:
        found.update(f"{one.status} {one.best_epoch} {one.epochs_run}".encode())
        for array in (one.train_loss, one.val_loss, *(one.weights[name] for name in sorted(one.weights))):
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def train(engine: engine_native.NativeEngine, case: tuple[str, Any, list[HeadSpec], Options], lanes: bool) -> str:
    """The digest of a case; ``lanes``: with a host thread for each CUDA thread, if there are host threads."""
    _, task, heads, options = case
    if os.environ.get("EC_EMULATION_THREADS"):
        os.environ["EC_EMULATION_THREADS"] = "lanes" if lanes else "warps"
    return digest(engine.train([task], [(spec, 0) for spec in heads], options, None))


def load(library: Path) -> engine_native.NativeEngine:
    engine_native._path = lambda kind: library if kind == "cuda" else None
    return engine_native.NativeEngine("cuda", 0)


def main() -> None:
    engine, chosen = load(Path(sys.argv[1])), re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    for case in (*cases(), *float_cases(), *large_cases(), *linear_cases()):
        for suffix in ("", " by lanes") if case[0] in LANES else ("",):
            if chosen.search(case[0] + suffix):
                print(case[0] + suffix, train(engine, case, bool(suffix)), flush=True)


if __name__ == "__main__":
    main()
