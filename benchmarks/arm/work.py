"""What count.py runs under QEMU: a head's training or an encoder's layer, so much of it."""

from __future__ import annotations

import sys

import numpy as np

DIM, HIDDEN, BATCH, MOST, TOKENS = 384, 512, 128, 9, 32


def heads(compute: str, batches: int) -> int:
    """Rows of one head, as the default has it; one epoch."""
    from embedcache.heads.spec import HeadSpec
    from embedcache.heads.train import Task, View, train_bank

    rng = np.random.default_rng(0)
    rows = batches * BATCH
    x = rng.standard_normal((MOST * BATCH, DIM), dtype=np.float32)
    y = rng.integers(0, 2, len(x)).astype(np.int32)
    task = Task(View(x, y, np.arange(rows)), None, 2)
    options = {"epochs": 1, "batch_size": BATCH, "compute": compute, "threads": 1}
    train_bank([task], [(HeadSpec(hidden=HIDDEN), 0)], engine="native", device="cpu", **options)
    return rows


def encoder(dtype: str, rows: int) -> int:
    """Tokens of one layer of MiniLM's shape, random weights; rows of 32."""
    from embedcache.encoder.blueprint import Blueprint, Layer
    from embedcache.encoder.runner_native import NativeEncoder

    rng = np.random.default_rng(0)

    def affine(outputs: int, inputs: int) -> tuple[np.ndarray, np.ndarray]:
        weight = rng.standard_normal((outputs, inputs), dtype=np.float32) / np.float32(np.sqrt(inputs))
        return weight, np.zeros(outputs, np.float32)

    norm = np.ones(DIM, np.float32), np.zeros(DIM, np.float32)
    attention = [affine(DIM, DIM) for _ in range(4)]
    layer = Layer(*attention, norm, affine(4 * DIM, DIM), affine(DIM, 4 * DIM), norm)
    word, position = affine(100, DIM)[0], affine(TOKENS, DIM)[0]
    blueprint = Blueprint(word, position, None, norm, None, [layer], 12, 1e-12, "gelu", None, None)
    ids = [[(31 * row + 7 * i) % 100 for i in range(TOKENS)] for row in range(rows)]
    NativeEncoder(blueprint, TOKENS, dtype).run(ids, [("tokens", 1)])
    return rows * TOKENS


if __name__ == "__main__":
    what, kind, amount = sys.argv[1:]
    print({"heads": heads, "encoder": encoder}[what](kind, int(amount)))
