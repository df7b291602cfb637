"""A small run of every CUDA kernel, for compute-sanitizer.

    compute-sanitizer --tool racecheck python -m benchmarks.heads.cuda_small

No figure comes out of it: it fails if a head does not train. All ways of training are there: float32, a head per
cluster with v in registers, in shared memory and in L2, the stacked products of large batches, and those of four warps,
and linear probes by one and by some to a block.
"""

from __future__ import annotations

import numpy as np

from embedcache.heads.spec import head_grid
from embedcache.heads.train import train_heads

RUNS = (  # dim, hidden, batch size, classes
    (768, [512], 32, 2),
    (384, [40, 512], 16, 5),
    (1024, [64], 32, 3),
    (96, [132], 150, 2),
    (96, [36, 0], 40, 12),
    (768, [0], 32, 2),
    (1024, [0], 32, 5),
)


def main() -> None:
    rng = np.random.default_rng(0)
    for dim, hidden, batch_size, classes in RUNS:
        x = rng.standard_normal((4 * batch_size + 3, dim), dtype=np.float32)
        y = rng.integers(classes, size=len(x))
        grid = head_grid(hidden=hidden, dropout=0.1, lr=1e-3, seed=range(2))
        how = {"batch_size": batch_size, "epochs": 2, "validation": (x[:50], y[:50])}
        for compute in ("float32", "tf32", "bfloat16"):
            result = train_heads(x, y, grid, engine="native", device="cuda", compute=compute, **how)
            assert all(head.status == "ok" for head in result.heads), (dim, hidden, batch_size, compute)
            print(f"{compute}: {dim}-{hidden}-{classes}, batch {batch_size}: {len(grid)} heads", flush=True)


if __name__ == "__main__":
    main()
