"""Cells that are numbers: with points, with commas, and those that nobody can tell from thousands."""

from __future__ import annotations

import pytest

from embedcache.tables.decimals import as_numbers


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "2.5", "-3e2"], [1.0, 2.5, -300.0]),
        (["1,5", "2", " 0,25", "1.234,5"], [1.5, 2.0, 0.25, 1234.5]),
        (["2,508", "0,778"], [2.508, 0.778]),  # no thousand begins with 0
        (["1,234", "5,678"], None),  # these may be thousands
        (["1_000", "2"], None),
        (["1", "nan"], None),
        (["1", "inf"], None),
        (["1,5", "good"], None),
        ([], None),
    ],
)
def test_cells_as_numbers(cells: list[str], numbers: list[float] | None) -> None:
    found = as_numbers(cells)
    assert (None if found is None else found.tolist()) == numbers
