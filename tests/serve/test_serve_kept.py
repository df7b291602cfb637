"""Kept columns on the page and behind it: they filter and colour list and map; sides of the split are marked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import document, make_reviews, write_csv
from tests.serve.page import PHONE, needs_chromium, ready, texts
from tests.serve.serving import make_client, start_map

N = 120
SOURCES = ["web", "paper", "radio", ""]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, open_service: Callable[..., Any]) -> Any:
    folder = tmp_path_factory.mktemp("kept")
    rows = [
        (text, label, f"r{i}", SOURCES[i % 4], str(i / 2), f"http://x/{i}/" + "long" * 20, f"no {i}")
        for i, (text, label) in enumerate(make_reviews(N))
    ]
    write_csv(folder / "c.csv", rows, ("text", "label", "id", "source", "stars", "link", "name"))
    document(
        "extract", folder / "c.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--id", "id",
        "--keep", "source,stars,link,name",
    )  # fmt: skip
    document("train-head", folder / "c.h5", "-o", folder / "run", "--lr", "1e-2", "--hidden", "0,8", "--epochs", "2")
    return start_map(open_service(folder / "c.h5", folder / "run"))


@pytest.fixture(scope="module")
def client(service: Any) -> Any:
    return make_client(service)


def test_what_the_columns_hold(client: Any) -> None:
    kept = client.get("/info").json()["kept"]
    assert kept["source"] == {
        "kind": "classes",
        "values": {"web": 30, "paper": 30, "radio": 30},
        "low": None,
        "high": None,
    }
    assert kept["stars"] == {"kind": "number", "values": {}, "low": 0.0, "high": (N - 1) / 2}
    assert kept["link"]["kind"] == "text" and "id" not in kept


def test_colors_of_the_map(client: Any, service: Any) -> None:
    groups = client.get("/map").json()["groups"]
    assert set(groups) == {"label", "source", "stars"}, "links and names tell every row from every other"
    assert [(one["name"], one["rows"], one["role"]) for one in groups["source"]] == [
        ("web", 30, "class"), ("paper", 30, "class"), ("radio", 30, "class"), ("blank", 30, "none")
    ]  # fmt: skip
    assert {one["role"] for one in groups["stars"]} == {"bin"} and sum(one["rows"] for one in groups["stars"]) == N
    places = np.frombuffer(client.get("/map/groups/source").content, np.uint8)
    assert places.tolist() == [i % 4 for i in range(N)]
    assert client.get("/map/groups/link").status_code == 404


def test_which_rows_meet_conditions(client: Any) -> None:
    def among(*where: str) -> list[int]:
        answer = client.post("/map/among", json={"where": list(where)})
        assert answer.status_code == 200, answer.text
        return np.flatnonzero(np.frombuffer(answer.content, np.uint8)).tolist()

    assert among() == list(range(N))
    assert among('source="paper"', "stars>=50") == [i for i in range(N) if i % 4 == 1 and i >= 100]
    assert among('link contains "/7/"') == [7]
    assert client.post("/map/among", json={"where": ["source=tv"]}).status_code == 422
    assert client.post("/map/among", json={"where": ["x"], "k": 1}).status_code == 422


def test_sides_of_what_is_predicted(client: Any, service: Any) -> None:
    sides = [client.get(f"/rows/{row}").json()["prediction"]["side"] for row in range(N)]
    split = service.first.run.info["split"]
    assert [sides.count(side) for side in ("train", "val", "test")] == [split[s] for s in ("train", "val", "test")]
    known = [service.cache.texts[row] for row in (sides.index("train"), sides.index("test"))]
    answers = client.post("/predict", json={"texts": [*known, "nobody wrote this before"]}).json()
    assert [answer.get("side") for answer in answers] == ["train", "test", None]


@needs_chromium
def test_filters_narrow_the_list_and_the_map(open_page: Callable[..., Any], service: Any) -> None:
    page = open_page("row=1")
    texts(page)
    ready(page)
    assert "source: " in page.text_content("#results") and "stars: " in page.text_content("#results")
    page.click("#more-filters summary")
    page.select_option("[data-filter='is.source']", label="radio")
    every = (
        "() => [...document.querySelectorAll('#results li')].every((one) => one.innerText.includes('source: radio'))"
    )
    page.wait_for_function(every)
    page.wait_for_function(f"() => document.getElementById('map-count').textContent === '30 of {N} texts'")
    page.fill("[data-filter='from.stars']", "40")
    page.press("[data-filter='from.stars']", "Enter")
    page.wait_for_function(f"() => document.getElementById('map-count').textContent === '10 of {N} texts'")
    assert "is.source=radio" in page.url and "from.stars=40" in page.url
    page.reload()
    page.wait_for_function(f"() => document.getElementById('map-count').textContent === '10 of {N} texts'")
    texts(page)
    rows = [int(row) for row in page.eval_on_selector_all("#results li", "all => all.map((one) => one.dataset.row)")]
    assert rows and all(row % 4 == 2 and row >= 80 for row in rows)
    assert page.input_value("[data-filter='from.stars']") == "40" and page.is_visible("[data-filter='from.stars']")


@needs_chromium
def test_a_filter_that_has_no_control_can_be_taken_away(open_page: Callable[..., Any]) -> None:
    page = open_page("row=1&has.source=web")
    texts(page)
    page.click("#other-filters button")
    page.wait_for_function("() => !location.hash.includes('has.source')")
    assert page.locator("#other-filters button").count() == 0


@needs_chromium
def test_the_column_that_colors_the_map_colors_the_list(open_page: Callable[..., Any]) -> None:
    page = open_page("row=1")
    texts(page)
    ready(page)
    dots = "#results .kept .dot:not([hidden])"
    assert page.locator(dots).count() == 0
    page.select_option("#color", "source")
    page.wait_for_function("() => document.getElementById('legend').innerText.includes('paper')")
    page.wait_for_selector(dots)
    chips = page.locator("#results .kept[data-column=source]").count()
    assert chips and page.locator(dots).count() == chips
    assert page.locator("#results .kept[data-column=stars] .dot:not([hidden])").count() == 0


@needs_chromium
def test_a_training_row_is_marked(open_page: Callable[..., Any], client: Any) -> None:
    sides = [client.get(f"/rows/{row}").json()["prediction"]["side"] for row in range(N)]
    for side, words in (("train", "The head was trained on this text"), ("test", "in the run's test set")):
        page = open_page(f"row={sides.index(side)}")
        texts(page)
        assert words in page.text_content(f".asked .side-{side}")
    page = open_page("q=nobody+wrote+this+before")
    texts(page)
    assert page.locator(".asked .side").count() == 0


@needs_chromium
def test_a_wide_table_on_a_phone_says_that_there_is_more(open_page: Callable[..., Any]) -> None:
    page = open_page("view=board", viewport=PHONE)
    page.wait_for_selector("#boards table.heads")
    assert page.is_visible(".scroll-hint")
    assert page.evaluate(
        "() => { const one = document.querySelector('.scroll'); return one.scrollWidth > one.clientWidth; }"
    )
    assert "gradient" in page.evaluate("() => getComputedStyle(document.querySelector('.scroll')).backgroundImage")
    wide = open_page("view=board")
    wide.wait_for_selector("#boards table.heads")
    assert not wide.is_visible(".scroll-hint")
