"""Rows of token ids in one array."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedcache.encoder.token_rows import TokenRows, scattered

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=9)


@given(ROWS, st.data())
def test_rows_are_what_lists_would_be(lists: list[list[int]], data: st.DataObject) -> None:
    rows = TokenRows.of(lists)
    assert rows.lists() == lists == list(rows) and len(rows) == len(lists) and TokenRows.of(rows) is rows
    assert (rows.flat.dtype, rows.offsets.dtype) == (np.int32, np.int64)
    assert rows.lengths.tolist() == list(map(len, lists)) and rows.count(3).tolist() == [one.count(3) for one in lists]
    assert rows[1:4].lists() == lists[1:4] and TokenRows.joined([rows, rows]).lists() == lists + lists
    places = data.draw(st.permutations(range(len(lists))))
    cut = data.draw(st.integers(0, len(lists)))
    parts = [(np.array(some, np.int64), rows.take(np.array(some, np.int64))) for some in (places[:cut], places[cut:])]
    assert scattered(len(lists), parts).lists() == lists
    if lists:
        assert rows[len(lists) - 1] == rows[-1] == lists[-1]
