"""The native engine of last layers: what it refuses, and the memory that it takes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.finetune import engine_native
from embedcache.finetune.blocks import Block, Ragged, Shape
from embedcache.heads.engine import NativeUnavailableError
from embedcache.heads.spec import HeadSpec
from embedcache.heads.task import Task, View
from tests.finetune.sample import RELATIVE, make_weights, problem

try:
    engine_native.library()
except NativeUnavailableError as missing:
    pytest.skip(str(missing), allow_module_level=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, b: (s, replace(b, start={**b.start, "0.up": b.start["head2"]})), "'0.up' must have shape"),
        (lambda s, b: (s, replace(b, start={**b.start, "0.key": b.start["0.key"] * np.nan})), "'0.key' holds NaN"),
        (
            lambda s, b: (s, replace(b, start={n: a for n, a in b.start.items() if n != "0.value"})),
            "without its tensor",
        ),
        (lambda s, b: (s, replace(b, task=1)), "names task 1"),
        (lambda s, b: (replace(s, values=s.values[:, :60]), b), r"the layer reads \[tokens, 64\]"),
        (lambda s, b: (replace(s, values=s.values[:-9]), b), "row 11 lies outside the tokens"),
        (lambda s, b: (replace(s, begins=s.begins - 1), b), "row 0 lies outside the tokens"),
        (lambda s, b: (replace(s, lengths=-s.lengths), b), "row 0 lies outside the tokens"),
        (lambda s, b: (replace(s, lengths=s.lengths[:-1]), b), "one begin and one length"),
        (lambda s, b: (Ragged(s.values, s.begins[:-1], s.lengths[:-1]), b), "must have shape"),
        (lambda s, b: (replace(s, values=s.values.astype(np.float64)), b), "float16 or float32"),
        (lambda s, b: (s, replace(b, batch_size=0)), "a size below 0"),
        (lambda s, b: (s, replace(b, clip=math.nan)), "clip below 0"),
        (lambda s, b: (s, replace(b, attention_dropout=1.0)), "dropout"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_a_line(change: Any, message: str) -> None:
    states, shape, task, block = problem(Shape(64, 64, 2, 1e-12))
    states, block = change(states, block)
    with pytest.raises(EmbedcacheError, match=message) as error:
        engine_native.train(states, shape, [task], [block])
    assert "\n" not in str(error.value)


def test_odd_heads_in_bfloat16_and_long_rows_are_refused() -> None:
    states, shape, task, block = problem(Shape(60, 64, 4, 1e-12))
    with pytest.raises(EmbedcacheError, match="even size"):
        engine_native.train(states, shape, [task], [block], compute="bfloat16")
    short = replace(shape, relative=RELATIVE[:, 20:-20])
    with pytest.raises(EmbedcacheError, match="longer than the bias"):
        engine_native.train(states, short, [task], [block])


def memory(name: str) -> int:
    """Bytes, of /proc/self/status."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts the peak")
def test_memory_is_the_states_the_bank_and_little_more(tmp_path: Path) -> None:
    rows, length, shape = 640, 128, Shape(384, 1536, 12, 1e-12)
    values = np.memmap(tmp_path / "states", np.float16, "w+", shape=(rows * length, shape.dim))
    states = Ragged(values, np.arange(rows) * length, np.full(rows, length))
    task = Task(View(values, np.arange(rows, dtype=np.int32) % 2, np.arange(rows)), None, 2)
    start = make_weights(shape, 0, 2, np.random.default_rng(0))
    bank = [Block(HeadSpec(hidden=0, seed=seed), 0, start, epochs=1) for seed in range(3)]
    weights = sum(array.size for array in start.values())
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    outcomes = engine_native.train(states, shape, [task], bank, threads=2)
    assert all(outcome.status == "ok" for outcome in outcomes)
    in_training, best, states_bytes = 2 * 16 * weights, 3 * 4 * weights, values.size * 2
    assert memory("VmHWM") - before < states_bytes + in_training + best + (64 << 20)
