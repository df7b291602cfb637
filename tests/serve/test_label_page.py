"""The queue page in a real browser: keys, undo, new classes, lists, numbers, a server that fails, a phone; axe-core."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedcache.cache import open_cache
from embedcache.labelling import LabelJournal, Overlay
from embedcache.serve.label_column import open_session
from embedcache.serve.service import Service
from tests.conftest import document, make_reviews
from tests.labelling.conftest import said
from tests.serve.page import CONTRAST, PHONE, needs_chromium, ready, texts
from tests.serve.serving import listening, start_map

pytestmark = needs_chromium
MARKS = """(place) => [...document.querySelectorAll(`${place} .dot`)].map(
    (one) => [one.style.background, one.dataset.shape])"""
AXE_ALL = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def labelled(copy: Path) -> Iterator[tuple[Service, LabelJournal]]:
    service = Service.open(copy / "reviews.h5", copy / "run", device="cpu")
    open_session(service).begin()
    yield service, LabelJournal.beside(copy / "reviews.h5")
    service.close()


@pytest.fixture
def url(labelled: tuple[Service, LabelJournal]) -> Iterator[str]:
    with listening(labelled[0]) as at:
        yield at


def text_of(page: Any) -> str:
    page.wait_for_selector("#label-card[data-row]:not([data-row=''])")
    return str(page.text_content("#label-text"))


def saved(page: Any, said: str) -> None:
    page.wait_for_function("(said) => document.getElementById('label-saved').textContent === said", arg=said)


def test_a_key_a_label_and_the_next_row_at_once(open_page: Callable[..., Any], labelled: Any) -> None:
    service, journal = labelled
    page = open_page()
    page.wait_for_function("() => location.hash.includes('view=label')")
    first = text_of(page)
    page.fill("#who", "ada")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id !== 'who'")
    page.wait_for_selector("#label-card[data-row]:not([data-row=''])")
    first = text_of(page)
    reason = page.text_content("#label-reason")
    assert reason and page.locator("#label-buttons .label-button").count() == 3
    # In one turn of the browser: the next row is there before any answer can be.
    assert page.evaluate("""() => {
        const before = document.getElementById("label-text").textContent;
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "2", bubbles: true }));
        return before !== document.getElementById("label-text").textContent;
    }""")
    saved(page, "Saved: negative")
    (entry,) = journal.read()
    with open_cache(service.cache.path) as cache:
        row = next(row for row in range(cache.rows) if cache.texts[row] == first)
        assert entry.row_hash == cache.hashes[row].tobytes().hex()
    assert (entry.after, entry.who) == ("negative", "ada") and entry.queue
    page.keyboard.press("u")
    saved(page, "Undone")
    assert text_of(page) == first and Overlay.of(journal).labels("label") == {}
    page.keyboard.press("s")
    saved(page, "Skipped")
    assert text_of(page) != first
    page.keyboard.press("c")
    page.keyboard.type("an odd one 1 2 s")
    page.keyboard.press("Enter")
    page.keyboard.press("3")
    saved(page, "Saved: positive")
    assert journal.read()[-1].comment == "an odd one 1 2 s", "keys that are typed into a field label nothing"
    assert [entry.action for entry in journal.read()] == ["label", "undo", "skip", "label"]


def test_twenty_keys_in_a_row_are_all_saved_in_order(open_page: Callable[..., Any], labelled: Any) -> None:
    _, journal = labelled
    page = open_page()
    rows = []
    for i in range(20):
        text_of(page)
        rows.append(page.get_attribute("#label-card", "data-row"))
        page.keyboard.press(str(2 + i % 2))
    page.wait_for_function("() => /^Saved: positive$/.test(document.getElementById('label-saved').textContent)")
    entries = journal.read()
    assert [entry.after for entry in entries] == ["negative", "positive"] * 10
    assert len(set(rows)) == 20 and len({entry.row_hash for entry in entries}) >= 18


def test_a_new_class_and_what_looks_like_html(open_page: Callable[..., Any], labelled: Any) -> None:
    _, journal = labelled
    page = open_page()
    text_of(page)
    page.keyboard.press("n")
    page.keyboard.type("<b>great</b>")
    page.keyboard.press("Enter")
    saved(page, "Saved: <b>great</b>")
    assert journal.read()[0].after == "<b>great</b>"
    assert page.locator("#label-buttons .label-button").count() == 4
    page.keyboard.press("4")
    page.wait_for_function("() => document.getElementById('label-saved').textContent.startsWith('Saved')")
    assert page.locator("main b, main i, main img, main script").count() == 0
    assert page.locator(".label-name").all_text_contents()[0] == "<b>odd</b>"


def test_the_guess_can_be_hidden(open_page: Callable[..., Any], labelled: Any) -> None:
    page = open_page()
    text_of(page)
    page.wait_for_selector("#label-neighbours li")
    page.keyboard.press("h")
    assert not page.is_visible("#label-near") and page.locator("#label-now strong").count() == 0
    page.keyboard.press("h")
    assert page.is_visible("#label-near")


def test_a_server_that_does_not_answer_loses_nothing(open_page: Callable[..., Any], labelled: Any, url: str) -> None:
    _, journal = labelled
    page = open_page(expects="503")
    text_of(page)
    broken = {"times": 2}

    def fail(route: Any) -> None:
        if broken["times"]:
            broken["times"] -= 1
            route.fulfill(status=503, body=json.dumps({"detail": "not there yet"}), content_type="application/json")
        else:
            route.continue_()

    page.route("**/labelling/labels", fail)
    page.keyboard.press("2")
    page.wait_for_selector("#label-problem:not([hidden])")
    assert "not saved yet" in page.text_content("#label-problem")
    page.keyboard.press("3")
    saved(page, "Saved: positive")
    assert [entry.after for entry in journal.read()] == ["negative", "positive"]
    assert not page.is_visible("#label-problem")


def test_a_label_that_is_refused_comes_back(open_page: Callable[..., Any], labelled: Any) -> None:
    _, journal = labelled
    page = open_page(expects="422")
    first = text_of(page)
    page.keyboard.press("n")
    page.keyboard.type("NA")
    page.keyboard.press("Enter")
    page.wait_for_selector("#label-problem:not([hidden])")
    assert "not a label" in page.text_content("#label-problem") and text_of(page) == first
    assert journal.read() == []


def test_progress_is_shown(open_page: Callable[..., Any], labelled: Any) -> None:
    page = open_page()
    page.wait_for_function("() => document.getElementById('label-figures').innerText.includes('Test accuracy')")
    assert page.text_content("#label-figures .advice").startswith("Too early to tell")
    for _ in range(3):
        text_of(page)
        page.keyboard.press("2")
    page.wait_for_function("() => document.querySelector('#label-figures dd').innerText.startsWith('3')")
    page.wait_for_function("() => document.getElementById('label-figures').innerText.includes('before')")
    assert "NaN" not in page.inner_text("#label-figures") and "null" not in page.inner_text("#label-figures")


def test_several_labels_by_keys(
    open_page: Callable[..., Any], listen: Any, open_service: Callable[..., Any], made: Path, tmp_path: Path
) -> None:
    rows = [{"text": text, "topics": [["a"], ["a", "b"], []][i % 3]} for i, (text, _) in enumerate(make_reviews(40))]
    source, path = tmp_path / "rows.jsonl", tmp_path / "rows.h5"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with open_cache(made / "reviews.h5") as cache:
        document("extract", source, "-o", path, "--model", cache.encoder["source"], "--label", "topics")
    service = open_service(path)
    open_session(service).begin()
    page = open_page(at=listen(service))
    text_of(page)
    for button in page.locator("#label-buttons [aria-pressed=true]").all():
        button.click()
    page.keyboard.press("2")
    assert page.get_attribute("#label-buttons [data-class=b]", "aria-pressed") == "true"
    page.click("#label-text")
    page.keyboard.press("Enter")
    saved(page, "Saved: b")
    assert LabelJournal.beside(path).read()[0].after == ("b",)


def test_a_person_whose_token_may_only_label(open_page: Callable[..., Any], listen: Any, labelled: Any) -> None:
    service, journal = labelled
    page = open_page("token=labels-alone", at=listen(service, token="all-of-it", label_token="labels-alone"))
    text_of(page)
    assert page.locator("nav a:visible").all_text_contents() == ["Label"]
    page.keyboard.press("2")
    saved(page, "Saved: negative")
    assert len(journal.read()) == 1


@pytest.mark.parametrize("context", [{}, {"color_scheme": "dark"}, {"viewport": PHONE}], ids=["light", "dark", "phone"])
def test_axe_finds_nothing(open_page: Callable[..., Any], labelled: Any, context: dict[str, Any]) -> None:
    from axe_playwright_python.sync_playwright import Axe

    start_map(labelled[0])
    page = open_page(**context)
    text_of(page)
    page.wait_for_selector("#label-neighbours li")
    page.wait_for_function("() => document.getElementById('label-figures').innerText.includes('Test accuracy')")
    found = {"label": Axe().run(page, options=AXE_ALL)}
    assert min(page.evaluate(CONTRAST, "p, label, button, .note, dt, dd, kbd, h3, li span")) >= 4.5
    for view, sign in (("search", "#query"), ("map", "#stage[data-ready=true]"), ("board", "table.heads")):
        page.click(f"nav a[data-view={view}]")
        page.wait_for_selector(sign)
        found[view] = Axe().run(page, options=AXE_ALL)
    page.evaluate("location.hash = '#row=3'")
    page.wait_for_selector("#results li")
    found["row"] = Axe().run(page, options=AXE_ALL)
    problems = {
        f"{view}: {one['id']}": [node["html"][:150] for node in one["nodes"]]
        for view, result in found.items()
        for one in result.response["violations"]
    }
    assert problems == {}
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_map_has_the_colors_of_new_labels(open_page: Callable[..., Any], labelled: Any) -> None:
    """And new classes: from the ninth on a shape tells them apart, the same on buttons, legend and points."""
    service, journal = labelled
    start_map(service)
    page = open_page("view=map")
    ready(page)
    legend = "() => [...document.querySelectorAll('#legend button')].map((one) => one.innerText.replace(/\\s+/g, ' '))"
    before = page.evaluate(legend)
    assert before[1:] == ["negative 75", "positive 75"]
    page.click("#legend button:nth-child(2)")
    page.click("nav a[data-view=label]")
    for i in range(7):
        text_of(page)
        page.fill("#new-class", f"class {i}")
        page.press("#new-class", "Enter")
        saved(page, f"Saved: class {i}")
    classes = len(journal.read())
    marks = page.evaluate(MARKS, "#label-buttons")
    assert classes == 7 and len({tuple(one) for one in marks}) == len(marks) == 10
    assert [shape for _, shape in marks] == ["circle"] * 8 + ["square"] * 2 and marks[8][0] == marks[0][0]
    page.click("nav a[data-view=map]")
    page.wait_for_function("() => document.getElementById('legend').innerText.includes('others')")
    after = page.evaluate(legend)
    assert sum(int(one.split()[-1]) for one in after) == 162 and after[1:] != before[1:]
    pressed = page.locator("#legend button[aria-pressed=false]").all_inner_texts()
    assert [one.split()[0] for one in pressed] == ["negative"], "what was hidden stays hidden"
    drawn = page.evaluate(MARKS, "#legend")
    names = [one.rsplit(" ", 1)[0] for one in after if "other" not in one]
    buttons = page.evaluate(
        "() => [...document.querySelectorAll('#label-buttons .label-name')].map((one) => one.textContent)"
    )
    for name, mark in zip(names, drawn, strict=False):
        assert marks[buttons.index(name)] == mark, name


def test_an_open_map_shows_what_others_label(open_page: Callable[..., Any], labelled: Any) -> None:
    """By another process, while nobody touches the page; what was hidden and what has the focus stay."""
    service, journal = labelled
    start_map(service)
    page = open_page("view=map")
    ready(page)
    count = "() => [...document.querySelectorAll('#legend button')].map((one) => one.innerText.split(/\\s+/)[1])"
    assert page.evaluate(count)[1:] == ["75", "75"]
    page.click("#legend button:nth-child(2)")  # hidden from now on, and in focus
    codes, names = service.cache.labels("label")
    rows = [row for row, code in enumerate(codes) if names[code] == "negative"][:20]
    journal.append([said(service.cache.texts[row], "positive", "ben") for row in rows])
    page.wait_for_function("() => document.getElementById('legend').innerText.includes('95')")
    assert page.evaluate(count)[1:] == ["55", "95"]
    focus = "() => [document.activeElement.dataset.group, document.activeElement.getAttribute('aria-pressed')]"
    assert page.evaluate(focus) == ["negative", "false"]


def test_what_is_selected_on_the_map_is_labelled(open_page: Callable[..., Any], labelled: Any) -> None:
    service, journal = labelled
    start_map(service)
    page = open_page("view=map")
    ready(page)
    page.click("#lasso")
    box = page.locator("#points").bounding_box()
    corners = [(0.02, 0.02), (0.98, 0.02), (0.98, 0.98), (0.02, 0.98)]
    places = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in corners]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    page.wait_for_selector("#selection:not([hidden])")
    said = page.inner_text("#selection")
    assert "162 texts" in said and "negative" in said and "75" in said
    page.click("#label-selection")
    text_of(page)
    assert page.text_content("#label-reason") == "you chose it" and "162 texts" in page.text_content("#label-chosen")
    page.keyboard.press("3")
    saved(page, "Saved: positive")
    assert journal.read()[0].queue == "chosen"
    page.click("#label-chosen button")
    page.wait_for_function("() => document.getElementById('label-reason').textContent !== 'you chose it'")


def test_a_search_inside_what_is_selected(open_page: Callable[..., Any], labelled: Any) -> None:
    service, _ = labelled
    start_map(service)
    page = open_page("view=map")
    ready(page)
    page.focus("#points")
    page.keyboard.press("s")  # what is seen
    page.wait_for_selector("#selection:not([hidden])")
    page.evaluate("document.getElementById('clear-selection').click()")
    assert not page.is_visible("#selection")
    page.click("#legend button:nth-child(2)")  # negative ones are hidden, and not selected
    page.focus("#points")
    page.keyboard.press("s")
    page.click("#search-selection")
    page.fill("#query", "a dull film")
    page.keyboard.press("Enter")
    texts(page)
    assert "negative" not in page.locator("#results .chip").all_text_contents()
    page.click("#inside button")
    page.wait_for_function("() => document.querySelector('#results').innerText.includes('negative')")
