"""What search shows beside the texts: kept columns as far as they fit, or those that are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import document, fails, invoke, make_cache

PLOT = "a plot of many words that goes on and on " * 3


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    n = 6
    columns = {
        "film": [f"film {i}" for i in range(n)],
        "plot": [PLOT] * n,
        "none": [""] * n,
        "year": [str(1990 + i) for i in range(n)],
        "key": [f"k{i}" for i in range(n)],
    }
    texts = [f"text {chr(97 + i) * 5} " + "and so on " * 8 for i in range(n)]
    path = tmp_path_factory.mktemp("shown") / "c.h5"
    return make_cache(path, texts, np.eye(n, dtype=np.float32), {"label": list("ababab")}, columns=columns, id="key")


def header(*options: object) -> list[str]:
    result = invoke("search", *options)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[1].split()


def test_what_fits_is_shown_and_what_is_left_out_is_said(cache: Path) -> None:
    result = invoke("search", cache, "--row", 2, "-k", 2)
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["rank", "score", "row", "id", "label", "film", "year", "text"]
    assert max(map(len, lines)) <= 100 and "1990" in result.stdout and "film 0" in result.stdout
    assert lines[-1] == "Not shown: none, plot (--show names columns)."
    found = document("search", cache, "--row", 2, "-k", 2)["results"][0]["columns"]
    assert found == {
        "film": "film 0",
        "plot": "a plot of many words that goes on and on " * 3,
        "none": "",
        "year": "1990",
    }


def test_named_columns_alone(cache: Path) -> None:
    assert header(cache, "--row", 2, "--show", "plot,year") == ["rank", "score", "row", "plot", "year", "text"]
    assert header(cache, "--row", 2, "--show", "id,label") == ["rank", "score", "row", "id", "label", "text"]
    assert "Not shown" not in invoke("search", cache, "--row", 2, "--show", "year").stdout
    line = fails("search", cache, "--row", 2, "--show", "yeer")
    assert "--show yeer: the cache has no such column; it has: label, film, none, plot, year, id" in line
