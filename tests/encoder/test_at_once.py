"""Batches side by side on a CPU: torch's threads, and models that keep something of their last batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from embedcache.encoder import Encoder
from embedcache.encoder.at_once import mapper
from embedcache.encoder.runner_plain import Copies, Plain
from tests.conftest import make_reviews

TEXTS = [text for text, _ in make_reviews(12)] + ["", "日本語のレビュー", "long " * 40]


@pytest.fixture
def two_threads() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_has_one_core_in_each_thread_and_its_own_number_afterwards(two_threads: None) -> None:
    meet = threading.Barrier(3)

    def threads(_: int) -> int:
        meet.wait(20)
        return torch.get_num_threads()

    with mapper(3, by_torch=True) as side_by_side:
        assert list(side_by_side(threads, range(3))) == [1, 1, 1]
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2  # nor in a thread to come


def test_two_pools_at_once_leave_the_number_as_it_was(two_threads: None) -> None:
    """As in a server, whose requests have threads of their own."""
    first_ended = threading.Event()

    def request(number: int) -> None:
        with mapper(2, by_torch=True) as side_by_side:
            list(side_by_side(lambda _: torch.ones(2).sum(), range(4)))
            if number:
                assert first_ended.wait(20)
        if not number:
            first_ended.set()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(request, range(2)))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2


def test_errors_come_through_and_the_number_is_set_back(two_threads: None) -> None:
    with pytest.raises(ZeroDivisionError), mapper(2, by_torch=True) as side_by_side:
        list(side_by_side(lambda i: 1 // i, range(3)))
    assert torch.get_num_threads() == 2


class Remembers(torch.nn.Module):
    """Keeps something of its batch while it computes, as rotary embeddings that depend on the length do."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))
        self.last: int | None = None

    def use(self, number: int, meanwhile: Callable[[], Any]) -> int | None:
        self.last = number
        meanwhile()
        return self.last


def test_a_model_is_never_shared_by_two_batches() -> None:
    meet, model = threading.Barrier(2), Remembers()
    copies, used = Copies(model), []

    def run(number: int) -> int | None:
        with copies.one() as one:
            used.append(one)
            return one.use(number, lambda: meet.wait(20))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [0, 1]
        assert list(pool.map(run, range(2, 4))) == [2, 3]
    assert len({id(one) for one in used}) == 2  # the copy is used again
    assert all(one.weight is model.weight for one in used)


def test_a_model_that_cannot_be_copied_computes_one_batch_at_a_time() -> None:
    model, at_once, most = Remembers(), 0, 0
    model.lock = threading.Lock()
    copies, count = Copies(model), threading.Lock()

    def run(number: int) -> int | None:
        nonlocal at_once, most
        with copies.one() as one:
            with count:
                at_once, most = at_once + 1, max(most, at_once + 1)
            found = one.use(number, lambda: threading.Event().wait(0.01))
            with count:
                at_once -= 1
            return found

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, range(6))) == list(range(6))
    assert most == 1


def test_positions_that_depend_on_the_longest_row() -> None:
    """Rows of either side of the trained length in turns, four batches at once, as one after another."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=50,
        max_position_embeddings=16, rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    )  # fmt: skip
    runner = Plain(LlamaModel(config).eval().requires_grad_(False), 0, "cpu")
    rng = np.random.default_rng(1)
    rows = [rng.integers(1, 50, 40 if i % 2 else 8).tolist() for i in range(60)]
    wanted = [runner.run([row], [("last", 2)])[0] for row in rows]
    with mapper(4, by_torch=True) as side_by_side:
        found = list(side_by_side(lambda row: runner.run([row], [("last", 2)])[0], rows))
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_copy_is_not_of_a_model_that_computes() -> None:
    """What that one keeps of its batch may be half changed."""
    model = torch.nn.Linear(2, 2)
    model.register_buffer("kept", torch.zeros(1))
    copies = Copies(model)
    with copies.one() as first:
        first.kept.fill_(7)
        with copies.one() as second:
            assert second is not first and second.weight is first.weight
            assert second.kept.item() == 0


@pytest.mark.parametrize("kernel", ["plain", "packed"])
def test_an_encoder_of_torch_computes_batches_side_by_side(tiny_bert: Path, kernel: str) -> None:
    encoder = Encoder.load(tiny_bert, device="cpu", max_length=64, dtype="float32", kernel=kernel)
    tokens, outputs = encoder.tokenize(TEXTS * 3), [("cls", -1), ("mean", 1)]
    expected = encoder.encode_tokens(tokens, outputs)
    encoder.threads, forward, seen = 2, encoder._forward, set()

    def watched(ids: Any, outputs: Any) -> list[np.ndarray]:
        seen.add((threading.get_ident() == threading.main_thread().ident, torch.get_num_threads()))
        return forward(ids, outputs)

    encoder._forward = watched  # type: ignore[assignment]
    found = encoder.encode_tokens(tokens, outputs, batch_tokens=64)
    assert seen == {(False, 1)}
    for got, want in zip(found, expected, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    seen.clear()
    encoder.encode_tokens(tokens, outputs, batch_tokens=100_000)  # one batch: all cores
    assert {main for main, _ in seen} == {True}
