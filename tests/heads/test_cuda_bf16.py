"""The CUDA engine in bfloat16 on the host: a head per cluster, x copied to all of its blocks at once.

Measured against the float64 reference with the operands of the first layer's products rounded to bfloat16, as the CPU
engine's compute bfloat16 rounds them; whatever no cluster takes is trained in float32, and that is told.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from embedcache.heads.engine import EngineWarning
from embedcache.heads.engine_native import NativeEngine
from embedcache.heads.task import Options
from tests.heads.cuda_emulation import (
    SPEC,
    alone_and_backwards,
    check,
    make_task,
    mixed_bank,
    standardized,
    stopped_diverged_and_slow,
)
from tests.heads.test_cuda_tf32 import CASES

BF16 = Options(batch_size=16, epochs=3, compute="bfloat16")
CHOSEN = [
    *("one block", "two blocks, ragged", "sixteen blocks", "batch of one", "batch of 32", "five classes"),
    *("several chunks", "one input, one unit", "all of v in registers", "v beside shared memory", "float16, dropout"),
    *(
        "weighted rows",
        "started",
        "focal, smoothing, weights",
        "labels",
        "values",
        "cosine schedule, warm-up",
        "long validation",
    ),
]
OWN = {
    "three chunks of 128, v in registers": (make_task(dim=380, n=40), replace(SPEC, hidden=40, lr=1e-3), 16),
    "four blocks, rows of a batch missing": (make_task(n=75, dim=130), replace(SPEC, hidden=100, dropout=0.3), 32),
    "standardised float16, eight blocks": (
        standardized(make_task(dim=257, n=40, dtype=np.float16)),
        replace(SPEC, hidden=250),
        8,
    ),
}


@pytest.mark.parametrize("name", [*CHOSEN, *OWN])
def test_a_head_per_cluster(cuda: NativeEngine, name: str) -> None:
    task, spec, batch_size = (CASES | OWN)[name]
    (outcome,) = cuda.train([task], [(spec, 0)], replace(BF16, batch_size=batch_size), None)
    check(outcome, task, spec, batch_size, 3, "bfloat16")


def test_what_no_cluster_takes_is_trained_in_float32(cuda: NativeEngine) -> None:
    """More outputs or rows a batch than a cluster has room for; linear probes are float32 by design."""
    tasks, heads = mixed_bank()
    tasks.append(make_task(classes=6))
    heads = [*heads, (replace(SPEC, hidden=20), len(tasks) - 1)]
    with pytest.warns(EngineWarning, match="^1 of the .* in float32, which is slower: bfloat16 takes, in clusters"):
        outcomes = cuda.train(tasks, heads, BF16, None)
    for outcome, (spec, task) in zip(outcomes, heads, strict=True):
        plain = tasks[task].classes == 6 or not spec.hidden
        check(outcome, tasks[task], spec, 16, 3, "float32" if plain else "bfloat16")
    with pytest.warns(EngineWarning, match="^1 of the 1 heads were trained in float32"):
        (outcome,) = cuda.train(tasks, [heads[2]], replace(BF16, batch_size=50), None)
    check(outcome, tasks[heads[2][1]], heads[2][0], 50, 3)


def test_order_of_threads_and_of_groups_changes_nothing(
    emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, heads = mixed_bank()
    alone_and_backwards(emulation, monkeypatch, tasks, heads, BF16, [4])


def test_heads_that_stop_early_or_diverge(cuda: NativeEngine) -> None:
    """One that diverges leaves copies of x under way."""
    options = Options(batch_size=8, epochs=20, early_stop=2, compute="bfloat16")
    stopped_diverged_and_slow(cuda, make_task(n=48, dim=300), replace(SPEC, hidden=40), options)


def test_no_room_for_x(emulation: NativeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(n=400, dim=10, val=0)
    monkeypatch.setenv("EC_EMULATION_MEMORY", "200000")
    with pytest.warns(EngineWarning, match="no room for X in bfloat16"):
        (outcome,) = emulation.train([task], [(SPEC, 0)], BF16, None)
    check(outcome, task, SPEC, 16, 3)
