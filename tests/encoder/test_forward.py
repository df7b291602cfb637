"""Every row goes the way that its kind needs; order and values do not depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder.forward import Forward
from embedcache.errors import EmbedcacheError

OUTPUTS = [("mean", 1), ("last", 0)]
ROWS = [[2, 5, 3], [2, 1, 3], [], [2, 3], [2, 9, 9, 3], [1]]
PAD = 1


class FakeRunner:
    """Sums and last ids; notes the rows of every call; ``most``: how many tokens fit into its memory."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.most, self.calls = most, list[list[list[int]]]()

    def run(self, ids: Any, outputs: Sequence[tuple[str, int]]) -> list[np.ndarray]:
        rows = [list(row) for row in ids]
        if sum(map(len, rows)) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.calls.append(rows)
        return [
            np.array([[sum(row) if name == "mean" else row[-1]] for row in rows], np.float32) for name, _ in outputs
        ]


def expected() -> list[np.ndarray]:
    return [np.array([[sum(row)] for row in ROWS]), np.array([[row[-1] if row else 0] for row in ROWS])]


def forward(runner: FakeRunner, plain: FakeRunner, **options: Any) -> Forward:
    usual = {"device": "cpu", "widths": [1, 1], "uncounted": None, "sees_padding": False}
    return Forward(runner, lambda: plain, **(usual | options))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("options", "calls", "plain_calls"),
    [
        ({}, [[ROWS[i] for i in (0, 1, 3, 4, 5)]], []),
        ({"uncounted": PAD}, [[ROWS[i] for i in (0, 3, 4)]], [[ROWS[1]], [ROWS[5]]]),
        ({"sees_padding": True}, [[ROWS[5]], [ROWS[3]], [ROWS[0], ROWS[1]], [ROWS[4]]], []),
    ],
    ids=["all together", "a literal pad", "padding is seen"],
)
def test_each_row_goes_its_way(options: dict[str, Any], calls: Any, plain_calls: Any) -> None:
    runner, plain = FakeRunner(), FakeRunner()
    found = forward(runner, plain, **options)(ROWS, OUTPUTS)
    for got, want in zip(found, expected(), strict=True):
        np.testing.assert_array_equal(got, want)
    assert (runner.calls, plain.calls) == (calls, plain_calls)


def test_a_batch_that_does_not_fit_is_halved() -> None:
    runner = FakeRunner(most=5)
    for got, want in zip(forward(runner, FakeRunner(), device="cuda")(ROWS, OUTPUTS), expected(), strict=True):
        np.testing.assert_array_equal(got, want)
    assert runner.calls == [[ROWS[0]], [ROWS[1]], [ROWS[3]], [ROWS[4], ROWS[5]]]
    with pytest.raises(EmbedcacheError, match="one row of 4 tokens does not fit into the memory of cuda:1"):
        forward(FakeRunner(most=3), FakeRunner(), device="cuda:1")(ROWS, OUTPUTS)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        forward(FakeRunner(most=3), FakeRunner())(ROWS, OUTPUTS)
