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
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "Not shown: none, plot (--show names columns)."
    for found in document("search", cache, "--row", 2, "-k", 2)["results"]:
        row = found["row"]
        assert found["columns"] == {"film": f"film {row}", "plot": PLOT, "none": "", "year": str(1990 + row)}
        assert f"film {row}   {1990 + row}" in result.stdout


def test_named_columns_alone(cache: Path) -> None:
    assert header(cache, "--row", 2, "--show", "plot,year") == ["rank", "score", "row", "plot", "year", "text"]
    assert header(cache, "--row", 2, "--show", "id,label") == ["rank", "score", "row", "id", "label", "text"]
    assert "Not shown" not in invoke("search", cache, "--row", 2, "--show", "year").stdout
    line = fails("search", cache, "--row", 2, "--show", "yeer")
    assert "--show yeer: no such column in the cache; choose from label, film, none, plot, year, id" in line
