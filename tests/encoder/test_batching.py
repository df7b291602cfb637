from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedcache.encoder.batching import default_batch_tokens, plan_batches


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
