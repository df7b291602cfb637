"""Token-budget batches: texts of similar length together, so that little of the work is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Padded tokens per forward pass, unless the user names another number.
# A batch on a CPU runs on one core: larger ones only leave cores idle at the end of a window, and torch's rows caches.
DEFAULT_BATCH_TOKENS = {"cpu": 512, "cuda": 32768}
# With more padded tokens torch computes a batch by itself, on all cores: transformers' attention may need memory with
# the square of a row's length, once for each batch computed at once.
MOST_TOKENS_AT_ONCE = 2048
# Variable-length attention on a GPU: tokens x width of a batch, and the most tokens. Python's work per batch costs the
# same for any size, and small batches that stay in L2 gain nothing: BERT-base (768 wide) on an H200 reaches 26% of the
# matrix products' rate at 4,096 tokens, 71% at 65,536; MiniLM (384) on an H100 41% at 65,536, 53% at 131,072.
PACKED_GPU_NUMBERS, PACKED_GPU_MOST = 65536 * 768, 131072


def default_batch_tokens(device: str) -> int:
    """The default budget, in padded tokens, for a device such as "cpu" or "cuda:1"."""
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


def count_alone(batches: Sequence[np.ndarray], lengths: np.ndarray, threads: int) -> int:
    """How many of the first batches torch computes one after another on all cores: those that are large, or too few."""
    sizes = [len(batch) * int(lengths[batch[0]]) for batch in batches]
    large = max((i + 1 for i, size in enumerate(sizes) if size > MOST_TOKENS_AT_ONCE), default=0)
    return large if len(batches) - large >= threads else len(batches)
