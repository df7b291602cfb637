"""Token-budget batches: texts of similar length together, so that little of the work is padding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

# Padded tokens per forward pass, unless the user names another number.
# A native batch runs on one core: larger ones only leave cores idle at the end of a window.
DEFAULT_BATCH_TOKENS = {"native": 512, "cpu": 2048, "cuda": 32768}
# Variable-length attention on a GPU: tokens x width of a batch, and the most tokens. Python's work per batch costs the
# same for any size, and small batches that stay in L2 gain nothing: BERT-base (768 wide) on an H200 reaches 26% of the
# matrix products' rate at 4,096 tokens, 71% at 65,536; MiniLM (384) on an H100 41% at 65,536, 53% at 131,072.
PACKED_GPU_NUMBERS, PACKED_GPU_MOST = 65536 * 768, 131072


def default_batch_tokens(device: str) -> int:
    """The default budget, in padded tokens, for a device such as "cpu" or "cuda:1", or for the "native" runner."""
    return DEFAULT_BATCH_TOKENS[device.split(":")[0]]


def packed_gpu_tokens(width: int) -> int:
    """The default budget of a batch with variable-length attention on a GPU, for an encoder so many columns wide."""
    return min(PACKED_GPU_NUMBERS // width, PACKED_GPU_MOST)


def plan_batches(lengths: np.ndarray, batch_tokens: int) -> list[np.ndarray]:
    """Cut rows into batches of similar length whose padded size stays within a budget.

    Args:
        lengths: integers [n], tokens of each row.
        batch_tokens: the most tokens of one batch, padding included; a longer row is a batch of its own.

    Returns:
        int64 arrays of row indices that together hold every row once. The longest rows come first, so that a batch
        too large for the memory fails at the start and not after hours. Rows of equal length keep their order.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches


@contextmanager
def mapper(threads: int) -> Iterator[Callable[..., Any]]:
    """A ``map`` over that many threads, results in order. Calls not yet started are dropped on an error or Ctrl-C."""
    if threads == 1:
        yield map
        return
    pool = ThreadPoolExecutor(threads)
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
