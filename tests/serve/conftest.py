"""What is served in these tests, in this process: as an application, and on a socket."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FOUR_HEADS, document, make_reviews, write_csv
from tests.serve.serving import HOSTILE, make_client


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
