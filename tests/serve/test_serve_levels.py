"""A run with a hierarchy: the API says its levels, and the page draws the path, no deeper than it is sure if asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import document, make_reviews, write_csv
from tests.serve.page import CONTRAST, needs_chromium
from tests.serve.serving import make_client

QUERY = "a wonderful film with a superb story"
DRAWN = """() => [...document.querySelectorAll('.levels li')].map(
    (one) => [...one.children].map((part) => part.firstChild.textContent))"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path, open_service: Callable[..., Any]) -> Any:
    """Two classes on top; below each two of chance, of which no head can be sure."""
    folder = tmp_path_factory.mktemp("levels")
    film = [(text, "film") for text, _ in make_reviews(120)]
    sport = [(f"match {i}: the home team won by a late goal, two to {i % 3}", "sport") for i in range(120)]
    rows = [(text, top, f"{top} {i % 2}") for part in (film, sport) for i, (text, top) in enumerate(part)]
    write_csv(folder / "reviews.csv", rows, ("text", "top", "kind"))
    document("extract", folder / "reviews.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--label", "top,kind")
    document(
        "train-head", folder / "c.h5", "-o", folder / "run", "--hierarchy", "top>kind", "--hidden", "0", "--lr", "1e-2",
        "--epochs", "10", "--seed", "0",
    )  # fmt: skip
    return open_service(folder / "c.h5", folder / "run")


def asked(service: Any, **how: Any) -> dict[str, Any]:
    (found,) = make_client(service).post("/predict", json={"texts": [QUERY], **how}).json()
    return dict(found)


def test_the_api_names_the_levels(service: Any) -> None:
    (run,) = make_client(service).get("/info").json()["runs"]
    assert run["levels"] == ["top", "kind"]
    whole, sure = asked(service), asked(service, sure=0.8)
    assert [one["level"] for one in whole["levels"]] == ["top", "kind"]
    assert whole["levels"][1]["label"] == whole["label"]
    assert [one["level"] for one in sure["levels"]] == ["top"] and sure["label"] == sure["levels"][0]["label"]


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_draws_them(open_page: Callable[..., Any], service: Any, scheme: str) -> None:
    page = open_page(f"q={QUERY.replace(' ', '+')}", color_scheme=scheme)
    page.wait_for_selector(".levels")

    def drawn(**how: Any) -> list[list[str]]:
        levels = asked(service, **how)["levels"]
        return [[one["level"], one["label"], f"{100 * one['probability']:.1f} %"] for one in levels]

    assert page.evaluate(DRAWN) == drawn()
    assert "sure down to here" not in page.text_content("#asked")
    page.check("#reject")
    page.check("#sure")
    assert not page.is_checked("#reject"), "both answer the same doubt"
    page.wait_for_function("() => document.getElementById('asked').innerText.includes('sure down to here')")
    assert page.evaluate(DRAWN) == drawn(sure=0.8) and len(drawn(sure=0.8)) == 1
    assert page.text_content(".prediction .label") == asked(service, sure=0.8)["label"]
    assert min(page.evaluate(CONTRAST, "#asked :is(.note, .level-name, .bar-value, .bar-name)")) >= 4.5


@needs_chromium
def test_a_run_without_levels_is_not_asked_for_them(open_page: Callable[..., Any], listen: Any, mapped: Any) -> None:
    page = open_page(f"q={QUERY.replace(' ', '+')}", at=listen(mapped))
    page.wait_for_selector(".bars")
    assert page.is_visible("#reject") and not page.is_visible("#sure") and page.locator(".levels").count() == 0
