"""A batch's copies on a stream of its own, with a stand-in for CUDA that runs nothing before it must."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder import gpu_lane
from embedcache.encoder.gpu_lane import GpuLane, HostLane, Lanes

CPU = torch.device("cpu")


class Stream:
    """Does what is queued when something waits for it."""

    def __init__(self) -> None:
        self.queue: list[Callable[[], object]] = []
        self.waits: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waits.append(other)

    def drain(self) -> None:
        while self.queue:
            self.queue.pop(0)()


class Event:
    """Of the last stream that recorded it: ``synchronize`` runs what was queued there before."""

    def __init__(self, blocking: bool) -> None:
        self._stream: Stream | None = None
        self._upto = 0

    def record(self, stream: Stream) -> None:
        self._stream, self._upto = stream, len(stream.queue)

    def synchronize(self) -> None:
        if self._stream is not None:
            for _ in range(min(self._upto, len(self._stream.queue))):
                self._stream.queue.pop(0)()


class Cuda:
    """``torch.cuda`` as far as a lane uses it."""

    def __init__(self) -> None:
        self.default, self.streams, self.current = Stream(), list[Stream](), list[Stream]()
        self.Event = Event

    def Stream(self, device: torch.device) -> Stream:  # noqa: N802
        self.streams.append(Stream())
        return self.streams[-1]

    def default_stream(self, device: torch.device) -> Stream:
        return self.default

    @contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        self.current.append(stream)
        try:
            yield
        finally:
            self.current.pop()


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    there = Cuda()

    def queue_copy(target: torch.Tensor, source: torch.Tensor) -> None:
        there.current[-1].queue.append(lambda: target.copy_(source))

    monkeypatch.setattr(gpu_lane, "_queue_copy", queue_copy)
    monkeypatch.setattr(gpu_lane, "_pinned", lambda size, dtype: torch.full((size,), -1, dtype=dtype))
    return there


def test_there_and_back(cuda: Cuda) -> None:
    lane = GpuLane(CPU, cuda)
    assert cuda.streams[0].waits == [cuda.default]  # the weights came by that one
    with lane.on_stream():
        for size in (3, 1, 40, 2):  # the pinned memory grows, and is used again
            arrays = [np.arange(size, dtype=np.int32), np.full(2 * size, size, np.int32), np.zeros(0, np.int32)]
            tensors = lane.upload(arrays)
            assert [tensor.dtype for tensor in tensors] == [torch.int32] * 3
            doubled = torch.empty(2, size)
            # A kernel runs when the queue comes to it: behind the copy to the device.
            cuda.streams[0].queue.append(lambda x=tensors[0], out=doubled: out.copy_(torch.stack([x * 2.0, x * 3.0])))
            found = lane.download(doubled)
            assert np.array_equal(found, np.stack([arrays[0] * 2.0, arrays[0] * 3.0]))
            for tensor, array in zip(tensors, arrays, strict=True):
                assert np.array_equal(tensor.numpy(), array)


def test_pinned_memory_is_not_written_before_it_was_read(cuda: Cuda) -> None:
    """After a batch that failed its copy may still be queued when the next one comes."""
    lane = GpuLane(CPU, cuda)
    with lane.on_stream():
        (first,) = lane.upload([np.full(4, 7, np.int32)])
        (second,) = lane.upload([np.full(4, 9, np.int32)])
        cuda.streams[0].drain()
    assert first.tolist() == [7] * 4 and second.tolist() == [9] * 4


def test_a_lane_for_each_batch_at_a_time(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_lane, "GpuLane", lambda device: GpuLane(device, cuda))
    lanes = Lanes(torch.device("cuda"))
    with lanes.one() as a, lanes.one() as b:
        assert a is not b
    with pytest.raises(MemoryError), lanes.one() as c:
        assert c in (a, b)
        raise MemoryError
    with lanes.one() as d, lanes.one() as e:
        assert {id(d), id(e)} == {id(a), id(b)}
    assert len(cuda.streams) == 2 and not cuda.current


def test_a_cpu_copies_nothing() -> None:
    with Lanes(CPU).one() as lane:
        assert isinstance(lane, HostLane)
        array = np.arange(3, dtype=np.int32)
        (tensor,) = lane.upload([array])
        assert np.shares_memory(tensor.numpy(), array)
        vectors = torch.ones(2, 2)
        assert np.shares_memory(lane.download(vectors), vectors.numpy())


def test_on_a_real_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    lanes, array = Lanes(torch.device("cuda", 0)), np.arange(1000, dtype=np.int32)
    for _ in range(3):
        with lanes.one() as lane:
            (tensor,) = lane.upload([array])
            found: Any = lane.download(tensor.float() * 2)
            assert np.array_equal(found, array * 2.0)
