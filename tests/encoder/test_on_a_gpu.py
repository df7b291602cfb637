"""The packed runner on a real GPU, with nothing that stands in; without one these tests are skipped."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from embedcache.encoder.batching import packed_gpu_tokens
from embedcache.encoder.families import FAMILIES
from embedcache.encoder.runner import choose_runner
from embedcache.encoder.runner_packed import Packed
from embedcache.encoder.runner_plain import Plain
from tests.encoder.conftest import VOCABULARY
from tests.encoder.test_runner import ALL, LAST, M, some_ids

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
GPU = "cuda"
PACKED = [name for name, family in FAMILIES.items() if not family.distances]


def packed(model: Any) -> Packed:
    dtype = str(model.dtype).removeprefix("torch.")
    runner, _ = choose_runner(model, Plain(model, model.config.pad_token_id, GPU), M, GPU, "packed", dtype)
    assert isinstance(runner, Packed)
    return runner


def exact(model: Any, outputs: list[tuple[str, int]]) -> list[np.ndarray]:
    """By plain transformers in float32 on the CPU."""
    return Plain(model.cpu().float(), model.config.pad_token_id, "cpu").run(some_ids(), outputs)


@pytest.mark.parametrize("family", PACKED)
def test_float32(make_model: Callable[..., Any], family: str) -> None:
    for outputs in (ALL, LAST):
        wanted = exact(make_model(family), outputs)
        for got, want in zip(packed(make_model(family).to(GPU)).run(some_ids(), outputs), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("family", PACKED)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_model: Callable[..., Any], family: str, dtype: torch.dtype) -> None:
    """Not farther from float32 than transformers in the same dtype, with some room for luck."""
    for outputs in (ALL, LAST):
        wanted, model = exact(make_model(family), outputs), make_model(family).to(GPU, dtype)
        theirs = Plain(model, model.config.pad_token_id, GPU).run(some_ids(), outputs)
        for got, other, want in zip(packed(model).run(some_ids(), outputs), theirs, wanted, strict=True):
            assert np.abs(got - want).max() <= 1.5 * np.abs(other - want).max() + 1e-6


def test_its_parts(make_model: Callable[..., Any]) -> None:
    """Where torch and Triton have them, both parts pass their trial."""
    pytest.importorskip("triton")
    model = make_model("bert").to(GPU, torch.bfloat16)
    runner = packed(model)
    new = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 10) and torch.cuda.get_device_capability() >= (8, 0)
    assert runner.parts == {"attention": "varlen" if new else "groups", "between": "triton"}
    assert runner.batch_tokens == (packed_gpu_tokens(model.config.hidden_size) if new else None)


def test_many_threads(make_model: Callable[..., Any]) -> None:
    """Each batch on its own stream: what four threads get at once is what one gets after the other, but for rounding
    (cuBLAS may sum in another order while several streams are active)."""
    runner, rng = packed(make_model("bert").to(GPU, torch.bfloat16)), np.random.default_rng(1)
    batches = [
        [rng.integers(2, VOCABULARY, size=int(length)).tolist() for length in rng.integers(1, M, size=200)]
        for _ in range(40)
    ]
    alone = [runner.run(batch, [("mean", 3), *LAST]) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda batch: runner.run(batch, [("mean", 3), *LAST]), batches))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=0.02 * np.abs(a).max())
