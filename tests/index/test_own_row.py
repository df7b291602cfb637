"""Neighbours without the row itself."""

from __future__ import annotations

import numpy as np

from embedcache.index.own_row import without_own


def test_the_own_row_goes_wherever_it_was_found() -> None:
    found = np.array([[5, 1, 2], [1, 6, 2], [1, 2, 7]])
    scores = np.array([[9, 8, 7], [9, 8, 7], [9, 8, 7]], np.float32)
    rows, kept = without_own(np.array([5, 6, 7]), found, scores)
    assert rows.tolist() == [[1, 2], [1, 2], [1, 2]]
    assert kept.tolist() == [[8, 7], [9, 7], [9, 8]] and kept.dtype == np.float32


def test_the_last_goes_where_it_was_not_found() -> None:
    assert without_own(np.array([9]), np.array([[1, 2, 3]]))[0].tolist() == [[1, 2]]


def test_one_neighbour_is_none() -> None:
    assert without_own(np.array([4, 5]), np.array([[4], [1]]))[0].shape == (2, 0)
