"""Carry a batch to a GPU and back: a stream, and pinned memory for the upload and the download.

A copy from or to pinned memory is queued like a kernel; a copy from ordinary memory blocks the thread. And a thread
that waits for its vectors on the one default stream waits for the kernels of all threads. So each batch that is
computed at the same time as others has its own lane. One thread uses a lane at a time; an event tells when its pinned
memory is free for the next batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Lane(Protocol):
    """How the arrays of a batch become tensors on the device, and its vectors an array again."""

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        """int32 tensors of int32 arrays [n], on the device by the time the kernels queued after this call run."""

    def download(self, vectors: Tensor) -> np.ndarray:
        """The tensor as an array that is valid until the lane's next download."""


class HostLane:
    """The lane of a CPU, which copies nothing."""

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        return [torch.from_numpy(array) for array in arrays]

    def download(self, vectors: Tensor) -> np.ndarray:
        array: np.ndarray = vectors.numpy()
        return array


class GpuLane:
    """The lane of a GPU."""

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        """``cuda`` is ``torch.cuda``, or a stand-in for it in tests."""
        self._device, self._cuda, self._stream = device, cuda, cuda.Stream(device)
        # The weights were copied on the default stream. This stream must wait for them once, here.
        self._stream.wait_stream(cuda.default_stream(device))
        self._sent, self._came = cuda.Event(blocking=True), cuda.Event(blocking=True)
        self._up, self._down = torch.empty(0, dtype=torch.int32), torch.empty(0)

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        """Queue the work of the with block on this lane's stream and device."""
        with self._cuda.stream(self._stream):
            yield

    def upload(self, arrays: Sequence[np.ndarray]) -> list[Tensor]:
        sizes = [len(array) for array in arrays]
        self._sent.synchronize()  # the copy of a failed batch may still be queued
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
    """The lanes of a device, one for each batch computed at once."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._free = device, list[GpuLane]()

    @contextmanager
    def one(self) -> Iterator[Lane]:
        """Lend a lane for one batch."""
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
    """Pinned memory for ``size`` numbers: the buffer itself, or a new one with some to spare."""
    if len(buffer) >= size:
        return buffer
    return _pinned(size + size // 4, buffer.dtype)


def _pinned(size: int, dtype: torch.dtype) -> Tensor:
    return torch.empty(size, dtype=dtype, pin_memory=True)


def _queue_copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source, non_blocking=True)
