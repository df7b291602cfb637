"""What is served in these tests, in this process: as an application, and on a socket."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FOUR_HEADS, document, make_reviews, write_csv
from tests.serve.page import CHROMIUM, DESKTOP
from tests.serve.serving import HOSTILE, listening, make_client, start_map


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A folder with reviews.h5 and a run; some texts, a label and an id look like HTML."""
    folder = tmp_path_factory.mktemp("shown")
    rows = [(text, label, f"id {i}") for i, (text, label) in enumerate(make_reviews(150))]
    rows += [(text, "<b>odd</b>", f"<i>{i}</i>") for i, text in enumerate(HOSTILE * 4)]
    write_csv(folder / "reviews.csv", rows, ("text", "label", "id"))
    document("extract", folder / "reviews.csv", "-o", folder / "reviews.h5", "--model", tiny_bert, "--id", "id")
    document("train-head", folder / "reviews.h5", "-o", folder / "run", *FOUR_HEADS)
    return folder


@pytest.fixture
def copy(shown: Path, tmp_path: Path) -> Path:
    """Of the served folder, to be changed; without a map, which another test may have left there."""
    return Path(shutil.copytree(shown, tmp_path / "copy", ignore=shutil.ignore_patterns("*.map.*")))


@pytest.fixture(scope="session")
def open_service() -> Iterator[Callable[..., Any]]:
    """Service.open; all are closed at the end."""
    from embedcache.serve.service import Service

    opened = []

    def open_one(*arguments: Any, **options: Any) -> Service:
        opened.append(Service.open(*arguments, **{"device": "cpu", **options}))
        return opened[-1]

    yield open_one
    for service in opened:
        service.close()


@pytest.fixture(scope="session")
def service(shown: Path, open_service: Callable[..., Any]) -> Any:
    return open_service(shown / "reviews.h5", shown / "run")


@pytest.fixture(scope="session")
def client(service: Any) -> Any:
    return make_client(service)


@pytest.fixture(scope="module")
def mapped(shown: Path, open_service: Callable[..., Any]) -> Any:
    """The service with its map."""
    return start_map(open_service(shown / "reviews.h5", shown / "run"))


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
def listen() -> Iterator[Callable[..., str]]:
    """A server of a test's own, which returns its URL. It ends after the pages: they go on asking."""
    with ExitStack() as servers:
        yield lambda service, **options: servers.enter_context(listening(service, **options))


@pytest.fixture
def open_page(chromium: Callable[..., Any], url: str, listen: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
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
