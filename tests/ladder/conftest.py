"""The table that the ladders of the tests climb."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import make_reviews, write_csv

SCRIPT, FILM = "<script>alert(1)</script>", "<b>film</b>"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 reviews of 30 films, with a number; labels and films hold HTML."""
    rows = [(f"{text} {SCRIPT}", label, f"{SCRIPT} {i // 4}", str(len(text))) for i, (text, label) in
            enumerate(make_reviews(120))]  # fmt: skip
    return write_csv(tmp_path_factory.mktemp("table") / f"{SCRIPT[1:7]}.csv", rows, ("text", "label", FILM, "long"))
