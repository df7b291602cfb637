"""A label column of amounts: the first screen shows the bins of the map, in its colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import document, invoke, make_reviews, write_csv
from tests.serve.page import needs_chromium
from tests.serve.serving import start_map

BARS = """() => [...document.querySelectorAll('#welcome .bar')].map((one) => [
    one.querySelector('.bar-name').innerText, one.querySelector('.bar-value').innerText,
    one.querySelector('.dot').style.background])"""
LEGEND = """() => [...document.querySelectorAll('#legend button')].map((one) =>
    [one.children[1].innerText, one.children[2].innerText, one.querySelector('.dot').style.background])"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Prices with decimal commas, as a German spreadsheet has them."""
    folder = tmp_path_factory.mktemp("amounts")
    rows = [(text, f"{i % 40},{i % 7}5") for i, (text, _) in enumerate(make_reviews(120))]
    write_csv(folder / "t.csv", rows, ("text", "price"))
    document("extract", folder / "t.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--label", "price")
    return folder / "c.h5"


@needs_chromium
def test_the_first_screen_shows_the_bins(
    open_page: Callable[..., Any], listen: Any, cache: Path, open_service: Any
) -> None:
    page = open_page(at=listen(start_map(open_service(cache))))
    page.wait_for_selector("#legend button")
    page.wait_for_function("() => document.querySelector('#welcome .bar-name').innerText.includes(' to ')")
    bars = page.evaluate(BARS)
    assert bars == page.evaluate(LEGEND) and len(bars) == 7
    page.evaluate("() => { location.hash = '#row=5&k=5'; }")
    page.wait_for_selector("#results .chip .dot")
    shown = page.evaluate(
        "() => [...document.querySelectorAll('#results .chip .dot')].map((one) => one.style.background)"
    )
    assert set(shown) <= {color for _, _, color in bars}, "a price with a comma has the colour of its bin"


def test_info_says_where_they_lie(cache: Path) -> None:
    said = invoke("info", cache).output
    assert "price: 120 different numbers from 0.05 to 39.45, half of the rows from " in " ".join(said.split())
