from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedcache.encoder.batching import MOST_TOKENS_AT_ONCE, count_alone, default_batch_tokens, plan_batches


@given(st.lists(st.integers(0, 300), max_size=200), st.integers(1, 2000))
def test_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(np.array(lengths, dtype=np.int64), budget)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest == sorted(longest, reverse=True)


def test_the_plan_is_stable_and_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(3, 251, size=4000)
    batches = plan_batches(lengths, 4096)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded < 1.02 * lengths.sum()
    assert [int(i) for i in plan_batches(np.array([5, 5, 5]), 10)[0]] == [0, 1]


def test_default_budgets() -> None:
    assert default_batch_tokens("cpu") < default_batch_tokens("cuda:1") == default_batch_tokens("cuda")


def test_large_batches_and_a_few_are_computed_alone() -> None:
    lengths = np.array([MOST_TOKENS_AT_ONCE + 1, *[200] * 20, *[3] * 40])
    batches = plan_batches(lengths, 400)
    assert count_alone(batches, lengths, 4) == 1  # the long row; then there are enough for all cores
    assert count_alone(batches, lengths, len(batches) - 1) == 1
    assert count_alone(batches, lengths, len(batches)) == len(batches)  # fewer batches than cores: all cores for each
    large = plan_batches(np.full(100, 100), MOST_TOKENS_AT_ONCE + 100)
    assert count_alone(large[:-1], np.full(100, 100), 2) == len(large) - 1
    assert count_alone([], np.zeros(0, np.int64), 2) == 0
