"""The map of the page in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.serve.page import drawn, lonely, needs_chromium, ready, screen_places

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def service(mapped: Any) -> Any:
    return mapped


def test_a_click_on_the_map(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page()
    ready(page)
    places = screen_places(page, service)
    row = lonely(places)
    text = service.cache.texts[row]
    page.mouse.move(*places[row])
    page.wait_for_selector("#tip:not([hidden])")
    assert page.text_content("#tip .text") == text
    page.mouse.click(*places[row])
    page.wait_for_selector(".asked .meta")
    assert page.text_content(".asked .text") == text and f"row={row}" in page.url


@pytest.mark.parametrize("arguments", [(), ("--disable-3d-apis",)], ids=["WebGL", "2-D canvas"])
def test_the_map_is_drawn_and_its_colors_can_be_hidden(
    open_page: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    page = open_page("view=map", arguments=arguments)
    ready(page)
    kind = page.evaluate("document.getElementById('points').getContext('webgl') ? 'webgl' : '2d'")
    assert kind == ("2d" if arguments else "webgl")

    def has(color: list[int]) -> bool:
        return any(np.abs(np.subtract(one, color)).max() < 60 for one in drawn(page))

    blue, orange = [0x00, 0x67, 0xA5], [0xC9, 0x4F, 0x00]  # <b>odd</b> and negative
    page.mouse.move(1, 1)
    assert has(blue) and has(orange)
    before = page.get_attribute("#stage", "data-drawn")
    page.click("#legend button:nth-child(2)")
    page.wait_for_function("(before) => document.getElementById('stage').dataset.drawn !== before", arg=before)
    page.mouse.move(1, 1)
    assert has(blue) and not has(orange)
    assert page.get_attribute("#legend button:nth-child(2)", "aria-pressed") == "false"


def test_pan_and_zoom(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page("view=map")
    ready(page)
    places = screen_places(page, service)
    row = lonely(places)
    page.mouse.move(*places[row])
    page.mouse.wheel(0, -600)  # the point stays under the pointer
    page.mouse.down()
    page.mouse.move(places[row][0] - 80, places[row][1] + 40, steps=4)
    page.mouse.up()
    assert "row=" not in page.url, "to drag is not to click"
    page.mouse.move(1, 1)
    page.mouse.click(places[row][0] - 80, places[row][1] + 40)
    page.wait_for_function(f"() => location.hash.includes('row={row}')")
    page.click("#zoom-all")
    page.click("#zoom-in")


def test_the_keyboard_moves_the_map_and_opens_a_text(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page("view=map")
    ready(page)
    page.focus("#points")
    for key in ("+", "ArrowLeft", "ArrowUp"):
        before = page.get_attribute("#stage", "data-drawn")
        page.keyboard.press(key)
        page.wait_for_function("(before) => document.getElementById('stage').dataset.drawn !== before", arg=before)
    page.wait_for_selector("#tip:not([hidden])")  # of the point next to the middle
    page.keyboard.press("Escape")
    page.wait_for_selector("#tip", state="hidden")
    page.keyboard.press("0")
    page.wait_for_selector("#tip:not([hidden])")
    text = page.text_content("#tip .text")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('row=')")
    page.wait_for_selector(".asked .text", state="attached")
    assert page.text_content(".asked .text") == text


def test_while_the_map_is_computed_the_page_says_so(
    open_page: Callable[..., Any], listen: Any, shown: Path, open_service: Callable[..., Any]
) -> None:
    service = open_service(shown / "reviews.h5")
    page = open_page("view=map", at=listen(service))
    page.wait_for_function("() => document.getElementById('map-note').innerText.includes('being computed')")
    assert not page.is_visible("nav a[data-view=board]"), "no run, no leaderboard"
    service.map.start(print)
    ready(page)
    assert page.text_content("#map-note") == ""
