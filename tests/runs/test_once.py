"""What was done twice is done once: the calls are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.heads import task
from embedcache.heads.head import TrainedHead
from embedcache.runs import data, folder
from embedcache.search import file
from tests.conftest import make_cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """400 rows with two label columns."""
    generator = np.random.default_rng(3)
    x = generator.normal(0, 1, (400, 8)).astype(np.float16)
    labels = {
        name: ["yes" if value > 0 else "no" for value in x[:, i].astype(np.float32)] for i, name in enumerate("ab")
    }
    return make_cache(tmp_path / "c.h5", [f"text {i}" for i in range(400)], x, labels)


def train(cache: Path, **options: Any) -> Any:
    settings = {"hidden": [0, 4], "lr": 1e-2, "epochs": 2, "device": "cpu", "threads": 1, "val": 0.2, "test": 0.2}
    return ec.train_run(cache, cache.with_name("run"), **{**settings, **options})


def test_the_documents_read_the_run_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Path] = []
    load = folder._load
    monkeypatch.setattr(folder, "_load", lambda path: loads.append(path) or load(path))
    report = train(cache, label="a")
    assert len(report.documents) == 2 and loads == [Path(report.run)]


def test_every_head_sees_a_judged_row_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    logits = TrainedHead.logits
    monkeypatch.setattr(
        TrainedHead, "logits", lambda head, x, *more: seen.append((head.spec.hidden, len(x))) or logits(head, x, *more)
    )
    report = train(cache, label="a")
    best, split = report.best["hyperparameters"]["hidden"], report.split
    assert sorted(seen) == sorted([(0, split["val"]), (4, split["val"]), (best, split["test"])])


def test_a_matrix_is_checked_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both columns and by the engine, in whole blocks; the statistics of a column look where they read anyway."""
    monkeypatch.setattr(data, "CHUNK_ROWS", 128)
    blocks: list[int] = []
    finite = data.finite
    monkeypatch.setattr(data, "finite", lambda x: blocks.append(len(x)) or finite(x))
    monkeypatch.setattr(task, "finite", lambda x: pytest.fail("the engine looks again"))
    train(cache, label=["a", "b"], standardize=False)
    assert blocks == [128, 128, 128, 16]


def test_a_vector_that_is_not_finite_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "CHUNK_ROWS", 128)
    with ec.open_cache(cache) as opened:
        found = data.load_data(opened, "a", None, -1, None)
        found.x = np.array(found.x)
        found.x[[130, 131], 2] = np.inf
        data.check_vectors(opened, found, np.arange(130))
        data.check_vectors(opened, found, np.arange(200, 400))
        assert found.known_finite(np.arange(130)) and not found.known_finite(np.arange(131))
        with pytest.raises(ec.EmbedcacheError, match=r"row 131 of .*c.h5, counted from 0, has a vector .cls. with NaN"):
            data.check_vectors(opened, found, np.array([390, 131]))


def test_a_file_of_queries_is_read_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = tmp_path / "q.csv"
    queries.write_text("text\ntext 1\n\n" + "".join(f"text {i}\n" for i in range(2, 9)), encoding="utf-8")
    reads: list[str] = []
    read = file.query_texts
    monkeypatch.setattr(file, "query_texts", lambda table, text, **how: reads.append(text) or read(table, text, **how))
    monkeypatch.setattr(file.Searcher, "find", lambda self, asked, k, **_: [([0], [1.0]) for _ in asked])
    report = ec.search_file(cache, queries, tmp_path / "o.csv", k=1)
    assert reads == ["text"] and report.found == report.queries - report.blank == 8
