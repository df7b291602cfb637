"""Micro-batches: what comes meanwhile is done together, in order, and one job's fault is its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from embedcache.serve.micro_batches import Batcher, QueueFullError


class Gate:
    """Work that waits until it may go on, and remembers its batches."""

    def __init__(self) -> None:
        self.free, self.begun = threading.Event(), threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, jobs: list[int]) -> list[int]:
        self.batches.append(jobs)
        self.begun.set()
        assert self.free.wait(20)
        if 13 in jobs:
            raise ValueError("thirteen")
        return [job * job for job in jobs]


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.free.set()


def batcher(work: Callable[[list[int]], list[int]], **options: Any) -> Batcher[int, int]:
    return Batcher("test", work, **{"budget": 4, "most_waiting": 100, **options})


async def begun(gate: Gate) -> None:
    while not gate.begun.is_set():
        await asyncio.sleep(0.001)


async def settled() -> None:
    """What was started in this loop has come as far as it can alone."""
    for _ in range(50):
        await asyncio.sleep(0)


async def ask(one: Batcher[int, int], gate: Gate, jobs: list[int]) -> list[Any]:
    """The first job blocks; the others come meanwhile."""
    tasks = [asyncio.create_task(one.do(jobs[0]))]
    await begun(gate)
    tasks += [asyncio.create_task(one.do(job)) for job in jobs[1:]]
    await settled()
    gate.free.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_waits_is_done_together_up_to_the_budget(gate: Gate) -> None:
    one = batcher(gate)
    assert asyncio.run(ask(one, gate, [1, 2, 3, 4, 5, 6, 7])) == [1, 4, 9, 16, 25, 36, 49]
    assert gate.batches == [[1], [2, 3, 4, 5], [6, 7]]
    one.close()


def test_a_job_above_the_budget_goes_alone(gate: Gate) -> None:
    one = batcher(gate, cost=lambda job: job)
    asyncio.run(ask(one, gate, [1, 2, 9, 2, 2]))
    assert gate.batches == [[1], [2], [9], [2, 2]]
    one.close()


def test_one_jobs_fault_is_its_own(gate: Gate) -> None:
    one = batcher(gate)
    found = asyncio.run(ask(one, gate, [1, 2, 13, 4]))
    assert [found[0], found[1], found[3]] == [1, 4, 16] and isinstance(found[2], ValueError)
    assert gate.batches == [[1], [2, 13, 4], [2], [13], [4]]
    one.close()


def test_more_than_may_wait_is_refused_and_the_rest_is_done(gate: Gate) -> None:
    one = batcher(gate, most_waiting=3)
    found = asyncio.run(ask(one, gate, [1, 2, 3, 4, 5, 6]))
    assert found[:4] == [1, 4, 9, 16] and all(isinstance(error, QueueFullError) for error in found[4:])
    assert asyncio.run(one.do(7)) == 49, "there is room again"
    one.close()


def test_who_has_gone_away_costs_nothing(gate: Gate) -> None:
    async def leave(one: Batcher[int, int]) -> None:
        first = asyncio.create_task(one.do(1))
        await begun(gate)
        gone = asyncio.create_task(one.do(2))
        stays = asyncio.create_task(one.do(3))
        await settled()
        gone.cancel()
        await settled()
        gate.free.set()
        assert await first == 1 and await stays == 9

    one = batcher(gate)
    asyncio.run(leave(one))
    assert gate.batches == [[1], [3]]
    one.close()


def test_closing_finishes_what_waits(gate: Gate) -> None:
    one = batcher(gate)

    async def close() -> list[int]:
        tasks = [asyncio.create_task(one.do(job)) for job in (1, 2)]
        await begun(gate)
        await settled()
        closing = asyncio.get_running_loop().run_in_executor(None, one.close)
        gate.free.set()
        await closing
        with pytest.raises(QueueFullError):
            await one.do(3)
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(close()) == [1, 4]


def test_texts_of_many_requests_are_encoded_in_one_pass(service: Any) -> None:
    passes: list[int] = []
    encode, free, started = service.encoder.encode_tokens, threading.Event(), threading.Event()

    def watched(tokens: Any, outputs: Any) -> Any:
        passes.append(len(tokens.ids))
        started.set()
        assert free.wait(20)
        return encode(tokens, outputs)

    async def many() -> list[Any]:
        tasks = [asyncio.create_task(service.predict(["the first"]))]
        while not started.is_set():
            assert not tasks[0].done(), tasks[0].exception()  # it would never start
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(service.predict([f"good film {i}", "the same"])) for i in range(20)]
        await settled()
        free.set()
        return list(await asyncio.gather(*tasks))

    service.encoder.encode_tokens = watched
    try:
        found = asyncio.run(many())
    finally:
        del service.encoder.encode_tokens
    assert passes == [1, 21]
    assert [one["run"][0].text for one in found[1:]] == [f"good film {i}" for i in range(20)]
