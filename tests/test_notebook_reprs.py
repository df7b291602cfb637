"""What a notebook shows: short plain reprs, and small tables in which nothing of the data's is obeyed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.common.display import html_table, one_line, shorten
from embedcache.extraction.job import ExtractReport
from embedcache.runs.folder import load_run
from embedcache.search.job import search_cache
from embedcache.search.searcher import Searcher
from tests.conftest import document, make_cache

NAMES = ["<b>bold</b>", 'a & "b"', "\u202egnol"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    x[:, 0] += np.arange(60) % 3
    texts = [f"<script>alert({i})</script> text {i}" for i in range(60)]
    labels: dict[str, list[Any]] = {
        "kind": [NAMES[i % 3] for i in range(60)],
        "tags": [["a", "<i>"]] * 30 + [["a"]] * 30,
    }
    return make_cache(tmp_path_factory.mktemp("notebook") / "cache.h5", texts, x, labels, columns={"movie": ["m"] * 60})


def rows_of(html: str) -> int:
    assert not re.search(r"<(script|b>bold|i>)", html) and not re.search("[\u202a-\u202e]", html)
    assert html.count("<tr>") == html.count("</tr>") and html.count("<td") == html.count("</td>")
    return html.count("<tr>") - html.count("<thead>")


def test_a_cache(cache: Path) -> None:
    with ec.open_cache(cache) as opened:
        assert repr(opened) == f"Cache({str(cache)!r}, 60 rows x 8, cls, labels 'kind', 'tags')"
        html = opened._repr_html_()
        assert rows_of(html) == 10 and "&lt;i&gt;, a" in html and "the first 10 rows" in html and "movie" in html
    assert repr(opened).endswith("closed)") and rows_of(opened._repr_html_()) == 0


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_heads_and_banks(kind: str) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 6)).astype(np.float32)
    y = X[:, 0].round(3) if kind == "regression" else np.where(X[:, 0] > 0, *NAMES[:2])
    grid = ec.head_grid(hidden=[0, 4], lr=[1e-3, 1e-2], seed=range(3))
    result = ec.train_heads(X[50:], y[50:], grid, epochs=3, validation=(X[:50], y[:50]), task=kind)
    assert re.match(r"BankResult\(12 heads, 12 ok, [\w-]+, \d+\.\d\d s, best val_loss \d\.\d{4}\)$", repr(result))
    html = result._repr_html_()
    assert rows_of(html) == 10 and ("val_r2" in html) == (kind == "regression")
    first = re.findall(r"<tr><td[^>]*>(\d+)<", html)[0]
    assert result.heads[int(first)] is result.best
    head = result.best
    assert (
        repr(head).startswith(f"TrainedHead({kind}, 6-")
        and len(repr(head)) < 250
        and f"{head.val_loss:.4f}" in repr(head)
    )
    assert rows_of(head._repr_html_()) >= 5
    assert "-> " not in repr(result) and rows_of(ec.train_heads(X, y, grid[:1], epochs=1, task=kind)._repr_html_()) == 1


def test_runs_and_classifiers(cache: Path, made: Path, tmp_path: Path) -> None:
    document("train-head", cache, "-o", tmp_path / "run", "--label", "kind,tags", "--epochs", "2")
    run = load_run(tmp_path / "run")
    assert "'kind': classification, 'tags': multilabel" in repr(run) and len(repr(run)) < 300
    assert rows_of(run._repr_html_()) == 2
    classifier = ec.Classifier.load(made / "run")
    assert repr(classifier).startswith("Classifier(Run(") and rows_of(classifier._repr_html_()) == 1


def test_an_extract() -> None:
    report = ExtractReport("<b>bold</b>.h5", 5, 4, 0, 1, 0, 0, {}, 0, 0, 40, 1.5, 2.5, {})
    assert rows_of(report._repr_html_()) == 1 and "&lt;b&gt;bold" in report._repr_html_()


def test_search_results(cache: Path) -> None:
    index = ec.SearchIndex.build(cache)
    assert repr(index) == "SearchIndex(exact, 60 rows x 8, cls)"
    with ec.open_cache(cache) as opened:
        found = index.search(opened.embeddings()[:4], 3)
    assert rows_of(found._repr_html_()) == 10 and "4 queries" in found._repr_html_()
    report = search_cache(cache, row=1, k=4)
    (answer,) = report.answers
    assert rows_of(answer._repr_html_()) == rows_of(report._repr_html_()) == 4
    frame = answer.to_pandas()
    assert list(frame["row"]) == [one.row for one in answer.results] and "kind" in frame
    with Searcher.open(cache) as searcher:
        assert searcher.cache.rows == 60


def test_tables_are_bounded_and_escaped() -> None:
    html = html_table("<t>", ("a<", "b"), [[f"<{i}>", i * 1000] for i in range(50)], "more")
    assert rows_of(html) == 10 and "&lt;t&gt;" in html and "9,000" in html and "more; the first 10 rows" in html
    assert html_table("t", (), [[None, 0.123456, True]]).count("-</td>") == 1
    assert one_line("a\nb\x1b[31m\u202e") == "a b\ufffd[31m\ufffd" and shorten("x" * 300, 10) == "x" * 9 + "…"
