"""Shapes and options drawn by hypothesis: the native engine against the float64 reference."""

from __future__ import annotations

import numpy as np
from engines import Engine, make_task
from float64_reference import distance, train
from hypothesis import given, settings
from hypothesis import strategies as st

from embedcache.heads.spec import HeadSpec


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    isa=st.sampled_from(["avx512", "avx2", "plain"]),
    n=st.integers(9, 90),
    dim=st.integers(1, 80),
    classes=st.integers(2, 9),
    hidden=st.one_of(st.just(0), st.integers(1, 140)),
    batch_size=st.integers(1, 100),
    dropout=st.sampled_from([0.0, 0.1, 0.6]),
    n_val=st.integers(0, 140),
    half=st.booleans(),
    weighted=st.booleans(),
    standardize=st.booleans(),
    threads=st.integers(1, 4),
)
def test_any_shape(
    isa: str,
    n: int,
    dim: int,
    classes: int,
    hidden: int,
    batch_size: int,
    dropout: float,
    n_val: int,
    half: bool,
    weighted: bool,
    standardize: bool,
    threads: int,
) -> None:
    dtype = np.float16 if half else np.float32
    task = make_task(n, dim, classes, n_val=n_val, dtype=dtype, weighted=weighted, standardize=standardize)
    spec = HeadSpec(hidden=hidden, dropout=dropout, seed=n * dim)
    result = Engine("native", "cpu", isa).train([task], [(spec, 0)], batch_size=batch_size, epochs=2, threads=threads)
    reference = train(task, spec, batch_size, 2)
    np.testing.assert_allclose(result.history["train_loss"][0], reference.train_loss, rtol=2e-5)
    if n_val:
        np.testing.assert_allclose(result.history["val_loss"][0], reference.val_loss, rtol=1e-4)
    elif not standardize:  # else the weights come back folded
        assert distance(result.heads[0].weights, reference.weights, reference.initial) < 1e-3
