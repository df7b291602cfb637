"""One batch's way to a GPU and back: a stream, and pinned memory for what goes there and what comes from it.

A copy from or to pinned memory is queued like a kernel; from ordinary memory it stops the thread, and a thread that
waits for its vectors on the one default stream waits for everybody's kernels. So each batch that is computed at the
same time as others has a lane of its own. A lane is used by one thread at a time and can be used again: an event tells
when its pinned memory is free.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Lane(Protocol):
    """What a batch needs between its arrays and its tensors."""

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """int32 tensors of int32 arrays [n], on the device once the kernels after this call run."""

    def download(self, vectors: Tensor) -> np.ndarray:
        """The tensor as an array, which is valid until the lane's next download."""


class HostLane:
    """The CPU's: nothing is copied."""

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [torch.from_numpy(array) for array in arrays]

    def download(self, vectors: Tensor) -> np.ndarray:
        array: np.ndarray = vectors.numpy()
        return array


class GpuLane:
    """A GPU's."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        """cuda: ``torch.cuda``, or what stands in for it."""
        self._device, self._cuda, self._stream = device, cuda, cuda.Stream(device)
        # The weights came by the default stream; for one that began later this is the only time to wait for it.
        self._stream.wait_stream(cuda.default_stream(device))
        self._sent, self._came = cuda.Event(blocking=True), cuda.Event(blocking=True)
        self._up, self._down = torch.empty(0, dtype=torch.int32), torch.empty(0)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Whatever is queued within goes to this lane's stream, and to its device."""
        with self._cuda.stream(self._stream):
            yield

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        sizes = [len(array) for array in arrays]
        self._sent.synchronize()  # a batch that failed may have left its copy in the queue
        self._up = _room(self._up, sum(sizes))
        pinned = self._up[: sum(sizes)]
        np.concatenate(arrays, out=pinned.numpy(), casting="same_kind")
        there = torch.empty(len(pinned), dtype=torch.int32, device=self._device)
        _queue_copy(there, pinned)
        self._sent.record(self._stream)
        return list(there.split(sizes))

    def download(self, vectors: Tensor) -> np.ndarray:
        self._down = _room(self._down, vectors.numel())
        pinned = self._down[: vectors.numel()].view(vectors.shape)
        _queue_copy(pinned, vectors)
        self._came.record(self._stream)
        self._came.synchronize()
        array: np.ndarray = pinned.numpy()
        return array


class Lanes:
    """The lanes of a device, as many as batches are computed at once."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._free = device, list[GpuLane]()

    @contextmanager
    def one(self) -> Iterator[Lane]:
        """A lane for one batch."""
        if self._device.type != "cuda":
            yield HostLane()
            return
        try:
            lane = self._free.pop()
        except IndexError:
            lane = GpuLane(self._device)
        try:
            with lane.on_stream():
                yield lane
        finally:
            self._free.append(lane)


def _room(buffer: Tensor, size: int) -> Tensor:
    """Pinned memory for so many numbers: the same, or a larger one with some to spare."""
    if len(buffer) >= size:
        return buffer
    return _pinned(size + size // 4, buffer.dtype)


def _pinned(size: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)


def _queue_copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source, non_blocking=True)
