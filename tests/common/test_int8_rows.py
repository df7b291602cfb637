"""int8 with a scale for each row: what the rounding loses, and how the rows are read."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache.common.int8_rows import Int8Rows, as_stored, kept_cosines, part_of, stored_type, to_int8

RNG = np.random.default_rng(0)
X = (RNG.standard_normal((50, 33)) * RNG.lognormal(0, 3, (50, 1))).astype(np.float32)


def stored(x: np.ndarray) -> Int8Rows:
    return Int8Rows(*to_int8(x))


def test_what_the_rounding_loses() -> None:
    rows = stored(X)
    assert rows.values.dtype == np.int8 and rows.scales.dtype == np.float32
    assert (np.abs(rows.values).max(axis=1) == 127).all()
    assert (np.abs(rows[:] - X) <= rows.scales[:, None] * 0.5000001).all()
    np.testing.assert_allclose(rows.scales, np.abs(X).max(axis=1) / 127, rtol=2**-16)


def test_products_are_exact_and_a_second_rounding_changes_nothing() -> None:
    rows = stored(X)
    assert (rows[:] == rows.values.astype(np.float64) * rows.scales[:, None].astype(np.float64)).all()
    again = stored(rows[:])
    assert (again.values == rows.values).all() and (again.scales == rows.scales).all()


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-40, 1e-38, 1e38, float(np.finfo(np.float32).max)])
def test_rows_of_any_size(size: float) -> None:
    x = np.array([[size, -size / 2, 0.0]], np.float32)
    rows = stored(x)
    assert np.isfinite(rows[:]).all() and rows.values[0, 2] == 0
    assert (np.abs(rows[:].astype(np.float64) - x) <= max(size / 250, 5e-43)).all()


def test_they_are_read_by_rows() -> None:
    rows, exact = stored(X), stored(X)[:]
    assert (len(rows), rows.shape, rows.ndim, rows.dtype) == (50, (50, 33), 2, np.float32)
    for key in (3, -1, slice(4, 9), [7, 0, 7], np.array([1, 2]), np.arange(50) % 3 == 0):
        found = rows[key]
        assert type(found) is np.ndarray and found.dtype == np.float32 and (found == exact[key]).all()
    assert (np.asarray(rows) == exact).all() and np.asarray(rows, np.float64).dtype == np.float64
    assert (np.stack(list(rows)) == exact).all()
    with pytest.raises(IndexError, match="by rows alone"):
        rows[:, 0]
    part = part_of(rows, slice(10, 20))
    assert isinstance(part, Int8Rows) and np.shares_memory(part.values, rows.values) and (part[:] == exact[10:20]).all()


def test_the_cosine_that_is_kept_is_known_from_the_rows_alone() -> None:
    x = RNG.standard_normal((200, 384)).astype(np.float32)
    x[100:, 7] += 60  # one number that is far larger than the others, as some encoders have
    x[5] = 0
    there, rows = np.arange(200) != 5, stored(x)
    a, b = x[there].astype(np.float64), rows[there].astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(1 - kept_cosines(rows), 1 - cosines, rtol=0.35)
    assert cosines[100:].max() < 0.9997 < 0.9999 < cosines[:99].min()


def test_as_they_are_stored() -> None:
    assert [stored_type(one) for one in (X, X.astype(np.float16), stored(X))] == ["float32", "float16", "int8"]
    assert as_stored(X, "float32") is X and as_stored(X, "float16").dtype == np.float16
    assert (as_stored(X, "int8") == stored(X)[:]).all()
