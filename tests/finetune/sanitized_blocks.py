"""What test_block_sanitizers.py runs under a sanitizer: ``sanitized_blocks.py LIBRARY``, built with it."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from embedcache.finetune import engine_native
from embedcache.finetune.blocks import Block, Shape
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from tests.finetune.sample import make_states, make_task, make_weights

ISA = ("", "avx512", "avx2", "plain")  # "": the machine's best
RELATIVE = np.ones((2, 2 * 40 - 1), np.float32)
SHAPES = (  # of the layer, hidden units of the head, classes, rows, batch
    (Shape(256, 512, 4, 1e-12), 0, 2, 70, 32),  # a team of several threads
    (Shape(36, 52, 2, 1e-12, relative=RELATIVE), 19, 3, 40, 7),
    (Shape(40, 66, 2, 1e-5, "gelu_tanh", "last"), 0, 40, 9, 9),
    (Shape(4, 2, 1, 1e-5, "relu"), 3, 2, 5, 1),
    (Shape(80, 96, 2, 1e-12, relative=RELATIVE, layers=2), 7, 3, 40, 9),
    (Shape(40, 66, 2, 1e-5, "gelu_tanh", "mean", None, 3, True), 0, 2, 12, 5),
)


def bank(kind: str, shape: Shape, hidden: int, classes: int, rows: int, batch: int) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    states = make_states(
        rng, [int(n) for n in rng.integers(0, 38, rows)], shape.dim, (np.float16, np.float32)[rows % 2]
    )
    task = make_task(rng, rows, classes, kind, rows // 3)
    start = make_weights(shape, hidden, classes, rng)
    plain = {} if kind == "regression" else {"label_smoothing": 0.1, "class_weight": "balanced"}
    block = Block(HeadSpec(hidden=hidden, **plain), 0, start, batch_size=batch, epochs=2, early_stop=1)
    loose = {"hidden_dropout": 0.0, "attention_dropout": 0.0, "clip": 0.0}
    return states, [task], [block, replace(block, **loose), replace(block, spec=HeadSpec(hidden=hidden, lr=1e30))]


def main() -> None:
    library = Path(sys.argv[1])
    engine_native.find_library = lambda *_: library
    for sizes in SHAPES:
        for kind in KINDS:
            states, tasks, blocks = bank(kind, *sizes)
            for isa in ISA:
                os.environ["EMBEDCACHE_ISA"] = isa
                for compute in ("float32", "bfloat16"):
                    engine_native.train(states, sizes[0], tasks, blocks[:1], compute=compute, threads=3)  # one team
                    engine_native.train(states, sizes[0], tasks, blocks, compute=compute, threads=2)


main()
print("clean")
