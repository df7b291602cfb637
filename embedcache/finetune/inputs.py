"""What a step reads: padded batches of cached token states, or of token ids; rows of like length together."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from embedcache.encoder.batching import plan_batches
from embedcache.encoder.token_rows import TokenRows
from embedcache.finetune.blocks import Ragged

POOL = 50  # batches whose rows are sorted by length: little padding, and the order stays a shuffled one
VAL_TOKENS = 4096  # padded tokens of a batch without gradients


class Inputs(Protocol):
    """The rows of a cache. lengths: int64 [N], tokens of each."""

    lengths: np.ndarray

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """(x, mask bool [n, L], False at padding) of these rows, int64 [n]."""


class States:
    """Cached states: x is float32 [n, L, D]."""

    def __init__(self, stored: Any, lengths: np.ndarray) -> None:
        """stored: ``take(rows)`` gives (values float16 or float32 [t, D], offsets int64 [n + 1])."""
        self._stored, self.lengths = stored, lengths

    def in_place(self) -> Ragged:
        """Where all of them lie, for an engine that reads them there."""
        return Ragged(self._stored.values, self._stored.begins, self.lengths)

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        values, offsets = self._stored.take(rows)
        lengths = np.diff(offsets)
        longest = max(1, int(lengths.max()))
        if (lengths == longest).all():
            x = torch.from_numpy(np.ascontiguousarray(values)).float().view(len(rows), longest, -1)
            return x, torch.ones((len(rows), longest), dtype=torch.bool)
        there = np.arange(longest) < lengths[:, None]
        padded = np.zeros((len(rows), longest, values.shape[1]), np.float32)
        padded[there] = values
        return torch.from_numpy(padded), _seen(there)


class TokenIds:
    """Token ids: x is int64 [n, L]."""

    def __init__(self, rows: TokenRows, pad_id: int) -> None:
        self._rows, self._pad_id, self.lengths = rows, pad_id, rows.lengths

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        some = self._rows.take(rows)
        there = np.arange(max(1, int(some.lengths.max()))) < some.lengths[:, None]
        padded = np.full(there.shape, self._pad_id, np.int64)
        padded[there] = some.flat
        return torch.from_numpy(padded), _seen(there)


def _seen(there: np.ndarray) -> Tensor:
    """A row without any token sees one of padding: a softmax over nothing is NaN, and its gradient, too."""
    there[:, 0] = True
    return torch.from_numpy(there)


def epoch_batches(lengths: np.ndarray, rows: np.ndarray, size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The batches of an epoch, int64 row numbers: shuffled, then sorted by length within some batches' rows at a time.

    It depends on the arguments alone, so that a training that is continued sees what it would have seen.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(rows)
    batches: list[np.ndarray] = []
    for start in range(0, len(order), POOL * size):
        pool = order[start : start + POOL * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + size] for i in range(0, len(pool), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def even_batches(lengths: np.ndarray, rows: np.ndarray) -> list[np.ndarray]:
    """Places in ``rows``, int64, of batches without gradients: rows of like length together."""
    return plan_batches(lengths[rows], VAL_TOKENS)
