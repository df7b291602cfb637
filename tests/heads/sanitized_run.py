"""What test_sanitizers.py runs under a sanitizer: ``sanitized_run.py LIBRARY``, the CPU library built with it."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedcache.heads import engine_native
from embedcache.heads.kinds import KINDS
from embedcache.heads.spec import HeadSpec
from tests.heads.engines import Engine, make_task

ISA = ("", "avx512", "avx2", "plain")  # "": the machine's best
SHAPES = (  # n, dim, hidden, outputs, batch, n_val
    (100, 256, 128, 2, 32, 50),  # a team of several threads
    (130, 45, 37, 3, 7, 200),
    (70, 64, 0, 5, 16, 30),
    (64, 96, 96, 400, 32, 40),  # a team that shares the loss
    (40, 768, 256, 2, 32, 0),
    (5, 3, 1, 2, 1, 1),
    (90, 2000, 0, 20, 32, 140),  # probes: a team whose members own parts of one
)


def bank(kind: str, shape: tuple, dtype: type) -> tuple:
    """A task and heads that have its options between them."""
    n, dim, hidden, outputs, _, n_val = shape
    plain = kind == "regression"
    task = make_task(n, dim, outputs, n_val=n_val, dtype=dtype, standardize=True, weighted=not plain, kind=kind)
    settings = [
        {"schedule": "cosine", "warmup": 0.2, "label_smoothing": 0.0 if plain else 0.1},
        {"schedule": "linear", "class_weight": None if plain else "balanced"},
        {"dropout": 0.0},
        {} if plain else {"loss": "focal"},
        {} if plain else {"loss": "focal", "focal_gamma": 0.5, "label_smoothing": 0.1},
        {"lr": 1e30},  # diverges
    ]
    return task, [(HeadSpec(hidden=hidden, seed=seed, **chosen), 0) for seed, chosen in enumerate(settings)]


def main() -> None:
    library = Path(sys.argv[1])
    engine_native._path = lambda kind: library if kind == "cpu" else None
    for i, shape in enumerate(SHAPES):
        for kind in KINDS:
            task, heads = bank(kind, shape, (np.float16, np.float32)[i % 2])
            for isa in ISA:
                options = {"epochs": 3, "batch_size": shape[4], "early_stop": 1}
                engine = Engine("native", "cpu", isa)
                engine.train([task], heads[:1], threads=5, **options)  # one team
                engine.train([task], heads, threads=3, **options)  # a thread each, and a team of three
                engine.train([task], heads, threads=3, compute="bfloat16", **options)
                one_seed = [(replace(spec, seed=0), 0) for spec, _ in heads]  # a group, where they are probes
                engine.train([task], one_seed, threads=3, **options)


main()
print("clean")
