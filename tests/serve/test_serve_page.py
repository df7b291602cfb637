"""The page in a real browser: Debian's Chromium, headless."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.serve.projection import default_map_path, make_map, save_map
from tests.serve.page import CONTRAST, drawn, lonely, ready, screen_places, texts
from tests.serve.serving import HOSTILE, listening, make_client

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path: apt-get install chromium")
QUERY = "a wonderful film with a superb story"
EVERY_CHIP = "(label) => [...document.querySelectorAll('#results .chip')].every((one) => one.innerText === label)"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def service(shown: Path, open_service: Callable[..., Any]) -> Any:
    """With its map."""
    service = open_service(shown / "reviews.h5", shown / "run")
    path = default_map_path(shown / "reviews.h5")
    save_map(path, make_map(service.cache), service.cache)
    service.map.start(print)
    return service


@pytest.fixture(scope="module")
def url(service: Any) -> Iterator[str]:
    with listening(service) as url:
        yield url


@pytest.fixture(scope="module")
def chromium() -> Iterator[Callable[..., Any]]:
    """A browser with these arguments; all are closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browsers: dict[tuple[str, ...], Any] = {}

        def launch(*arguments: str) -> Any:
            if arguments not in browsers:
                sandbox = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
                browsers[arguments] = playwright.chromium.launch(
                    executable_path=CHROMIUM, args=[*sandbox, *(arguments or ["--enable-unsafe-swiftshader"])]
                )
            return browsers[arguments]

        yield launch
        for browser in browsers.values():
            browser.close()


@pytest.fixture
def open_page(chromium: Callable[..., Any], url: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """A page at the server's URL and a fragment. Whatever it complains of, or asks of others, fails the test."""
    problems: list[str] = []
    pages: list[Any] = []

    def heard(said: Any, expects: str) -> None:
        # A browser itself reports an answer that is an error; only that may be expected.
        if said.type == "error" and not re.search(rf"server responded with a status of ({expects})\b", said.text):
            problems.append(said.text)

    def open_one(
        fragment: str = "", *, at: str = url, arguments: tuple[str, ...] = (), expects: str = " ", **context: Any
    ) -> Any:
        page = chromium(*arguments).new_context(**{"viewport": DESKTOP, **context}).new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: heard(said, expects))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(at) else problems.append(f"asked {asked.url}"))
        page.on("dialog", lambda dialog: problems.append("a dialog"))
        page.goto(f"{at}#{fragment}")
        if "401" not in expects:
            page.wait_for_selector("#about:not(:empty)")
        pages.append(page)
        return page

    yield open_one
    for number, page in enumerate(pages):
        if not page.is_closed():
            page.screenshot(path=tmp_path / f"{number}.png")  # kept by pytest for a while, to be looked at
            page.context.close()
    assert problems == []


def test_a_sentence_gets_its_label_and_its_neighbours(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page()
    page.fill("#query", QUERY)
    page.keyboard.press("Enter")
    client = make_client(service)
    expected = client.post("/search", json={"query": QUERY}).json()["results"]
    assert texts(page) == [one["text"] for one in expected]
    (predicted,) = client.post("/predict", json={"texts": [QUERY]}).json()
    assert page.text_content(".prediction .label") == predicted["label"]
    bars = dict(zip(*(page.locator(one).all_text_contents() for one in (".bar-name", ".bar-value")), strict=True))
    assert bars == {name: f"{100 * value:.1f} %" for name, value in predicted["probabilities"].items()}
    assert f"q={QUERY.replace(' ', '+')}" in page.url
    assert page.text_content("#status") == "10 similar texts found."


def test_why_and_no_label(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page()
    page.check("#explain")
    page.check("#reject")
    page.fill("#query", f"{HOSTILE[1]} 😀 {QUERY}")
    page.keyboard.press("Enter")
    page.wait_for_selector(".explanation")
    body = {"texts": [f"{HOSTILE[1]} 😀 {QUERY}"], "explain": True, "reject": "auto"}
    (asked,) = make_client(service).post("/predict", json=body).json()
    why = asked["explanation"]
    marked = {word["word"] for word in why["words"]}
    assert set(page.locator(".word").all_text_contents()) == marked, "places are characters, also behind an emoji"
    assert page.text_content(".words-why") == body["texts"][0]
    assert page.locator(".why li").count() == len(why["supporting"]) + len(why["opposing"]) > 0
    assert (page.locator(".reason").count() == 1) == (asked["label"] is None)
    page.uncheck("#explain")
    page.wait_for_function("() => !document.querySelector('.explanation')")


def test_what_is_being_typed_stays(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.fill("#query", QUERY)
    page.check("#reject")
    page.check("#dedupe")
    assert page.input_value("#query") == QUERY
    page.keyboard.press("Tab")
    page.click("#send")
    texts(page)
    page.fill("#query", "another")
    page.uncheck("#reject")
    page.wait_for_load_state("networkidle")
    assert page.input_value("#query") == "another"
    page.go_back()  # to before the question
    page.wait_for_function("() => document.querySelector('#query').value === ''")


def test_filter_by_label(open_page: Callable[..., Any]) -> None:
    page = open_page("row=1")
    texts(page)
    page.select_option("#filters select", label="negative")
    page.wait_for_function(EVERY_CHIP, arg="negative")
    assert len(texts(page)) == 10 and "is.label=negative" in page.url
    page.reload()
    texts(page)
    assert page.locator("#filters select").input_value() == "=negative", "the URL has it"
    page.select_option("#filters select", label="any")
    page.wait_for_function(f"() => !({EVERY_CHIP})('negative')")


def test_walk_on_and_back(open_page: Callable[..., Any]) -> None:
    page = open_page()
    page.fill("#query", QUERY)
    page.click("#send")
    first = texts(page)
    page.click("#results li:nth-child(3) a")
    page.wait_for_function("() => location.hash.includes('row=')")
    page.wait_for_selector(".asked .meta")
    assert page.text_content(".asked .text") == first[2]
    second = texts(page)
    assert second != first
    page.click("#results li:nth-child(1) a")
    page.wait_for_function("(text) => document.querySelector('.asked .text').textContent === text", arg=second[0])
    page.go_back()
    page.wait_for_function("(text) => document.querySelector('.asked .text').textContent === text", arg=first[2])
    page.go_back()
    page.wait_for_function("(text) => document.querySelector('.asked .text').textContent === text", arg=QUERY)
    assert texts(page) == first and page.input_value("#query") == QUERY
    page.go_forward()
    page.wait_for_selector(".asked .meta")


def test_more_and_near_identical_texts(open_page: Callable[..., Any]) -> None:
    page = open_page("row=150")
    assert texts(page).count(HOSTILE[0]) == 3, "the same text in other rows"
    page.check("#dedupe")
    page.wait_for_function("(text) => !document.querySelector('#results').innerText.includes(text)", arg=HOSTILE[0])
    page.click("#more")
    page.wait_for_function("() => document.querySelectorAll('#results li').length > 10")
    assert "dedupe=1" in page.url and "k=30" in page.url


def test_with_the_keyboard_alone(open_page: Callable[..., Any]) -> None:
    page = open_page()
    ready(page)
    press = page.keyboard.press

    def focus() -> str:
        return str(page.evaluate("document.activeElement.id || document.activeElement.className"))

    for _ in range(10):
        press("Tab")
        if focus() == "query":
            break
    assert focus() == "query"
    page.keyboard.type(QUERY)
    press("Enter")
    first = texts(page)
    for _ in range(12):
        press("Tab")
        if focus() == "found":
            break
    press("ArrowDown")
    assert page.evaluate("document.activeElement.querySelector('.text').textContent") == first[1]
    press("Enter")
    page.wait_for_selector(".asked .meta")
    assert page.text_content(".asked .text") == first[1]
    texts(page)
    assert focus() == "results-title", "the keyboard continues from the new list"
    press("Tab")
    assert focus() == "found"
    page.focus("#points")
    press("+")
    press("ArrowLeft")
    page.wait_for_selector("#tip:not([hidden])")
    meant = page.text_content("#tip .text")
    press("Enter")
    page.wait_for_function("(text) => document.querySelector('.asked .text').textContent === text", arg=meant)


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


def test_on_a_phone(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page(f"q={QUERY}", viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    texts(page)
    narrow = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(narrow) and not page.is_visible("#map")
    page.tap("nav a[data-view=map]")
    ready(page)
    assert page.evaluate(narrow) and not page.is_visible("#search")
    places = screen_places(page, service)
    row = lonely(places)
    page.touchscreen.tap(*places[row])
    page.wait_for_selector("#tip:not([hidden])")
    assert page.text_content("#tip .text") == service.cache.texts[row] and "row=" not in page.url
    page.touchscreen.tap(*places[row])
    page.wait_for_selector(".asked .meta", state="attached")
    assert page.is_visible("#search") and page.text_content(".asked .text") == service.cache.texts[row]
    page.tap("nav a[data-view=board]")
    page.wait_for_selector("#boards table.heads")
    assert page.evaluate(narrow)
    small = page.evaluate("""[...document.querySelectorAll('button, nav a, select')].filter((one) =>
        one.checkVisibility() && one.getBoundingClientRect().height < 24).length""")
    assert small == 0, "a finger is not a needle"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(open_page: Callable[..., Any], scheme: str) -> None:
    page = open_page("row=3", color_scheme=scheme)
    texts(page)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) < 150) == (scheme == "dark")
    seen = page.evaluate(CONTRAST, "p, label, a, button, select, textarea, .score, .chip span, .bar-value, h1, h3")
    page.click("nav a[data-view=board]")
    page.wait_for_selector("#boards table.heads")
    seen += page.evaluate(CONTRAST, "th, td, label, select, button, .note, li, a")
    assert len(seen) > 60 and min(seen) >= 4.5, "WCAG AA"


def test_what_looks_like_html_is_text(open_page: Callable[..., Any]) -> None:
    page = open_page("row=150")
    found = texts(page)
    assert set(HOSTILE) & set(found)
    assert page.text_content(".asked .text") == HOSTILE[0]
    assert "<b>odd</b>" in page.locator(".chip").all_text_contents()
    assert page.locator("#filters option").all_text_contents() == ["any", "<b>odd</b>", "negative", "positive"]
    ready(page)
    assert "<b>odd</b>" in page.text_content("#legend")
    page.fill("#query", HOSTILE[0])
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('q=')")
    page.wait_for_function("() => document.querySelector('.asked .says') && !document.querySelector('.asked .meta')")
    assert page.text_content(".asked .text") == HOSTILE[0]
    page.select_option("#filters select", label="<b>odd</b>")
    page.wait_for_function(EVERY_CHIP, arg="<b>odd</b>")
    page.click("nav a[data-view=board]")
    page.wait_for_selector("#boards table.heads")
    assert page.evaluate("window.stolen") is None
    assert page.locator("main img, main script, main b, main i").count() == 0


def test_the_leaderboard_and_its_curves(open_page: Callable[..., Any]) -> None:
    page = open_page("view=board")
    page.wait_for_selector(".chart svg")
    assert page.locator("table.heads tbody tr").count() == 4
    assert page.locator(".chart .picked path").count() == 3
    page.check("table.heads tbody tr:nth-child(4) input")
    assert page.locator(".chart .picked path").count() == 4
    page.select_option("#board select", label="validation accuracy")
    assert page.get_attribute(".chart svg", "aria-label").startswith("validation accuracy")
    assert "NaN" not in page.inner_html(".chart")


def test_a_problem_is_said(open_page: Callable[..., Any]) -> None:
    page = open_page("row=1", expects="404|422")
    texts(page)
    page.evaluate("location.hash = '#row=99999'")
    page.wait_for_selector("#problem:not([hidden])")
    assert "99999" in page.text_content("#problem") and page.locator("#results li").count() == 0


def test_a_token_is_asked_for(open_page: Callable[..., Any], service: Any) -> None:
    with listening(service, token="open-sesame") as at:
        page = open_page("row=3", at=at, expects="401")
        page.wait_for_selector("#token:visible")
        assert not page.is_visible("#search")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#token-note:not(:empty)")
        page.fill("#token", "open-sesame")
        page.keyboard.press("Enter")
        assert len(texts(page)) == 10
        page.reload()
        assert len(texts(page)) == 10, "this tab knows it"
        other = open_page("token=open-sesame&row=3", at=at)
        assert len(texts(other)) == 10 and "sesame" not in other.url


def test_while_the_map_is_computed_the_page_says_so(
    open_page: Callable[..., Any], shown: Path, open_service: Callable[..., Any]
) -> None:
    service = open_service(shown / "reviews.h5")
    with listening(service) as at:
        page = open_page("view=map", at=at)
        page.wait_for_function("() => document.getElementById('map-note').innerText.includes('being computed')")
        assert not page.is_visible("nav a[data-view=board]"), "no run, no leaderboard"
        service.map.start(print)
        ready(page)
        assert page.text_content("#map-note") == ""


def test_the_api_page(open_page: Callable[..., Any], url: str) -> None:
    page = open_page()
    page.goto(f"{url}docs")
    page.wait_for_selector("#operations section")
    assert "POST /search" in page.locator("h2").all_text_contents()
    assert page.locator("pre").count() >= 10
