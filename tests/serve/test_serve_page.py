"""The page in a real browser: Debian's Chromium, headless."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve.page import CONTRAST, PHONE, lonely, needs_chromium, ready, screen_places, texts
from tests.serve.serving import HOSTILE, make_client

pytestmark = needs_chromium
QUERY = "a wonderful film with a superb story"
EVERY_CHIP = "(label) => [...document.querySelectorAll('#results .chip')].every((one) => one.innerText === label)"


@pytest.fixture(scope="module")
def service(mapped: Any) -> Any:
    return mapped


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_label_has_one_color_everywhere(open_page: Callable[..., Any], scheme: str) -> None:
    """Bars, chips and the map's legend."""
    page = open_page(f"q={QUERY.replace(' ', '+')}", color_scheme=scheme)
    ready(page)
    page.wait_for_function("() => document.querySelectorAll('#results .chip .dot').length === 10")
    bars, fills, chips, legend = (
        dict(page.evaluate(f"() => [...document.querySelectorAll('{place}')].map((one) => {pair})"))
        for place, pair in (
            (".bar", "[one.querySelector('.bar-name').innerText, one.querySelector('.dot').style.background]"),
            (".bar", "[one.querySelector('.bar-name').innerText, one.querySelector('.bar-fill').style.background]"),
            ("#results .chip", "[one.innerText, one.querySelector('.dot').style.background]"),
            ("#legend button", "[one.children[1].innerText, one.querySelector('.dot').style.background]"),
        )
    )
    assert bars == fills == legend and len(set(bars.values())) == 3
    assert chips and chips.items() <= bars.items()


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


def test_a_token_is_asked_for(open_page: Callable[..., Any], listen: Any, service: Any) -> None:
    at = listen(service, token="open-sesame")
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


def test_the_api_page(open_page: Callable[..., Any], url: str) -> None:
    page = open_page()
    page.goto(f"{url}docs")
    page.wait_for_selector("#operations section")
    assert "POST /search" in page.locator("h2").all_text_contents()
    assert page.locator("pre").count() >= 10
