"""The engines' random streams in NumPy; csrc/heads/numerics.h specifies them, the native engine draws the same."""

from __future__ import annotations

import numpy as np

INIT, SHUFFLE, DROPOUT = 0, 1, 2  # domains: the counter's last word
ATTENTION, FEED_FORWARD, SHARES = 3, 4, 5  # of dropout in a last layer, see finetune/
DOMAINS = 16  # more for each layer below it
TENSORS = {"w1": 0, "b1": 1, "w2": 2, "b2": 3}
MASK = np.uint64(0xFFFFFFFF)


def philox(seed: int, c0: np.ndarray, c1: np.ndarray | int, c2: np.ndarray | int, domain: int) -> np.ndarray:
    """Philox4x32-10: uint32 [4, ...], the four words of each counter (the counters broadcast)."""
    c0, c1, c2, c3 = np.broadcast_arrays(*(np.asarray(c, np.uint64) for c in (c0, c1, c2, domain)))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c2 = (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0), (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1)
        c1, c3 = p1 & MASK, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3]).astype(np.uint32)


def initial_weights(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """float32 arrays of the given shapes (task.weight_shapes), U(-1, 1) / sqrt(fan_in) as torch.nn.Linear.

    Those of a linear probe (without w1) are zeros: what it has not learned should say nothing (task.start_bias).
    """
    if "w1" not in shapes:
        return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    weights = {}
    for name, shape in shapes.items():
        fan_in = shapes["w" + name[1]][1]
        size = int(np.prod(shape))
        block = np.arange((size + 3) // 4, dtype=np.uint64)
        words = philox(seed, block & MASK, block >> np.uint64(32), TENSORS[name], INIT).T.ravel()[:size]
        unit = (words >> 8).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
        weights[name] = (unit * np.float32(1.0 / np.sqrt(fan_in))).reshape(shape)
    return weights


def shuffle(seed: int, epoch: int, n: int) -> np.ndarray:
    """int64 [n]: the order in which an epoch visits the positions 0..n-1, by (random key, position)."""
    words = philox(seed, np.arange((n + 3) // 4), 0, epoch, SHUFFLE).T.ravel()[:n]
    keyed = words.astype(np.uint64) << np.uint64(32) | np.arange(n, dtype=np.uint64)
    keyed.sort()
    return (keyed & MASK).astype(np.int64)


def dropout_kept(seed: int, step: int, rows: int, hidden: int, dropout: float, domain: int = DROPOUT) -> np.ndarray:
    """bool [rows, hidden]: the units that a batch's rows keep in a step (counted from 0 over all epochs)."""
    blocks = (hidden + 63) // 64
    counters = np.arange(blocks * 16)
    words = philox(seed, counters[None, :], np.arange(rows)[:, None], step, domain)  # [4, rows, blocks * 16]
    by_unit = words.reshape(4, rows, blocks, 16).transpose(1, 2, 0, 3).reshape(rows, blocks * 64)[:, :hidden]
    return np.asarray(by_unit >= np.uint32(int(dropout * 2.0**32)))
