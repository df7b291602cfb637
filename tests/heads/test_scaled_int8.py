"""Heads trained on int8 with a scale for each row, read in place: to the bit those of the same numbers in float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.common.int8_rows import Int8Rows, to_int8
from embedcache.errors import EmbedcacheError
from embedcache.heads import engine_native
from embedcache.heads.arrays import as_matrix
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Options, Task, View, check_bank, standardize_stats
from tests.conftest import make_cache
from tests.heads.engines import Engine, all_engines, make_task, parametrize, same_heads

HEADS = [(HeadSpec(hidden=hidden, seed=seed, lr=1e-2), 0) for hidden in (0, 7, 40) for seed in (0, 1)]
PROBLEMS = {
    "one block": (70, 33, "classification"), "lanes and a rest": (50, 77, "regression"), "narrow": (40, 5, "multilabel")
}  # fmt: skip


def both(task: Task) -> tuple[Task, Task]:
    """The task on int8 rows, and on the same numbers in float32."""
    rows = Int8Rows(*to_int8(task.train.x))
    exact, x = rows[:], task.train.x

    def on(to: Any) -> Task:
        views = [None if view is None else replace(view, x=to) for view in (task.train, task.val)]
        assert all(view is None or view.x is x for view in (task.train, task.val))
        return replace(task, train=views[0], val=views[1])

    return on(rows), on(exact)


@parametrize(all_engines)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_same_bits_as_float32(engine: Engine, problem: str) -> None:
    n, dim, kind = PROBLEMS[problem]
    task = make_task(n, dim, 3, n_val=20, kind=kind, standardize=problem != "narrow")
    options = {"epochs": 2, "batch_size": 16}
    a, b = (engine.train([one], HEADS, **options) for one in both(task))
    assert same_heads(a, b) and all(head.status == "ok" for head in a.heads)


@parametrize(all_engines)
def test_the_same_bits_in_bfloat16(engine: Engine) -> None:
    if engine.device == "cuda":
        pytest.skip("a GPU computes in TF32 here")
    a, b = (engine.train([one], HEADS, epochs=2, compute="bfloat16") for one in both(make_task(60, 70, 4, n_val=9)))
    assert same_heads(a, b)


def test_on_the_emulated_gpu(emulation: engine_native.NativeEngine) -> None:
    """X is widened as it is copied to the GPU, once for all tasks."""
    task = make_task(60, 37, 3, n_val=10, standardize=True)
    options = Options(epochs=2, batch_size=16)
    found = []
    for one in both(task):
        tasks = check_bank([one, replace(one, val=None)], HEADS)
        heads = [*HEADS, (HeadSpec(hidden=0, seed=5), 1)]
        found.append(emulation.train(tasks, heads, options, None))
    for a, b in zip(*found, strict=True):
        assert a.status == b.status == "ok" and a.val_loss.tobytes() == b.val_loss.tobytes()
        assert all(a.weights[name].tobytes() == b.weights[name].tobytes() for name in a.weights)


def test_of_a_cache_they_are_read_in_place(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 24), dtype=np.float32)
    labels = ["a" if value > 0 else "b" for value in x[:, 0]]
    make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(300)], Int8Rows(*to_int8(x)), {"label": labels})
    with ec.open_cache(tmp_path / "c.h5") as cache:
        rows = cache.embeddings()
        assert as_matrix(rows) is rows
        options: dict[str, Any] = {"epochs": 5, "standardize": True, "validation": (rows, cache.labels("label"))}
        a = ec.train_heads(rows, cache.labels("label"), HeadSpec(hidden=9, lr=1e-2), **options)
        options["validation"] = (rows[:], cache.labels("label"))
        b = ec.train_heads(rows[:], cache.labels("label"), HeadSpec(hidden=9, lr=1e-2), **options)
        assert same_heads(a, b)
        assert (a.best.predict_proba(rows) == b.best.predict_proba(rows[:])).all()
        assert a.best.val_accuracy > 0.8


def test_rows_that_no_engine_reads_are_decoded() -> None:
    rows = Int8Rows(*to_int8(make_task(40, 12, 2).train.x))
    part = rows.part(slice(None, None, 2))
    assert not part.readable_in_place, "its scales are not next to each other"
    found = as_matrix(part)
    assert isinstance(found, np.ndarray) and (found == rows[::2]).all()
    with pytest.raises(EmbedcacheError, match="must be a matrix"):
        as_matrix(Int8Rows(np.zeros((3, 0), np.int8), np.zeros(3, np.float32)))


@pytest.mark.parametrize("scale", [np.nan, np.inf, 3e38])
def test_a_scale_that_is_not_finite_is_named(scale: float) -> None:
    task = make_task(30, 6, 2)
    values, scales = to_int8(task.train.x)
    row = int(task.train.rows[3])
    scales[row] = scale
    rows = Int8Rows(values, scales)
    with pytest.raises(EmbedcacheError, match=f"X holds NaN or infinity, first in row {row}"):
        check_bank([replace(task, train=View(rows, task.train.y, task.train.rows))], [(HeadSpec(), 0)])
    with pytest.raises(EmbedcacheError, match=f"first in row {row}"), np.errstate(over="ignore"):
        standardize_stats(rows, task.train.rows)
