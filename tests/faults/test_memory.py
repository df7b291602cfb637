"""Work that needs more memory than its control group has: done in parts, or refused with the figure; never killed."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from embedcache.errors import EmbedcacheError
from embedcache.search.searcher import Query, Searcher
from tests.conftest import document, make_cache, make_reviews
from tests.faults.conftest import Command, control_group

MB, GB = 10**6, 10**9


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """600 rows x 384."""
    rows = make_reviews(600)
    x = np.random.default_rng(0).standard_normal((len(rows), 384), dtype=np.float32).astype(np.float16)
    texts, labels = zip(*rows, strict=True)
    path = tmp_path_factory.mktemp("memory") / "cache.h5"
    return Path(make_cache(path, texts, x, {"label": list(labels)}))


def heads_in_a_group(cache: Path, run: Path, heads: int, limit: int) -> str:
    """stderr of a train-head of so many heads of 4,096 units (6.3 MB each) in a group."""
    seeds = ",".join(map(str, range(heads)))
    arguments = ["train-head", cache, "-o", run, "--hidden", "4096", "--seed", seeds, "--epochs", "1"]
    arguments += ["--lr", "1e-3", "--batch-size", "512", "--device", "cpu"]
    with control_group(limit) as within:
        code, stdout, stderr = Command(*arguments, within=within).finish(1700)
    assert code == 0, stderr[-2000:]
    assert (run / "heads.safetensors").stat().st_size > heads * 6.3 * MB
    return stdout + stderr


def test_more_heads_than_memory(cache: Path, tmp_path: Path) -> None:
    said = heads_in_a_group(cache, tmp_path / "run", 60, 450 * MB)
    assert "60 heads take 380 MB, and" in " ".join(said.split())


@pytest.mark.slow
def test_more_kept_heads_than_memory(cache: Path, tmp_path: Path) -> None:
    """--resume of a finished run: the heads that it keeps are put into a file, and written again as they are."""
    arguments = [
        "train-head",
        cache,
        "-o",
        tmp_path / "run",
        "--hidden",
        "4096",
        "--seed",
        ",".join(map(str, range(60))),
    ]
    arguments += ["--epochs", "1", "--lr", "1e-3", "--batch-size", "512", "--device", "cpu"]
    document(*arguments)
    before = (tmp_path / "run" / "heads.safetensors").read_bytes()
    with control_group(450 * MB) as within:
        code, _, stderr = Command(*arguments, "--resume", within=within).finish(280)
    assert code == 0, stderr[-2000:]
    assert "--resume: 60 heads take 380 MB, and" in " ".join(stderr.split())
    assert "60 of 60 heads are there already" in stderr
    assert (tmp_path / "run" / "heads.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_2000_heads_of_4096_units(cache: Path, tmp_path: Path) -> None:
    """12.6 GB of weights in a group of 1 GB."""
    heads_in_a_group(cache, tmp_path / "run", 2000, GB)


def test_many_hits_of_many_queries(made: Path, tmp_path: Path) -> None:
    """-k of all rows for many queries: a few queries at a time, the same answers."""
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"great film {i}\n" for i in range(40)), encoding="utf-8")
    with Searcher.open(made / "reviews.h5") as searcher:
        expected = searcher.search([f"great film {i}" for i in range(40)], 205)
    for together in (1, 7, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("embedcache.search.searcher.MANY_HITS", together * 205)
            with Searcher.open(made / "reviews.h5") as searcher:
                hits = searcher.find([Query((f"great film {i}",)) for i in range(40)], 205)
        for (rows, scores), answer in zip(hits, expected, strict=True):
            assert scores == [one.score for one in answer.results]
            assert sorted(rows) == sorted(one.row for one in answer.results)  # equal ones may change places
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("embedcache.search.file.HITS_TOGETHER", 205 * 3)
        document("search", made / "reviews.h5", "--file", questions, "-k", "205", "-o", tmp_path / "parts.csv")
    document("search", made / "reviews.h5", "--file", questions, "-k", "205", "-o", tmp_path / "whole.csv")
    assert found_in(tmp_path / "parts.csv") == found_in(tmp_path / "whole.csv")


def found_in(path: Path) -> dict[tuple[str, str], str]:
    """(query, row) -> score"""
    with path.open(newline="", encoding="utf-8") as file:
        return {(line["query_row"], line["row"]): line["score"] for line in csv.DictReader(file)}


def test_answers_that_do_not_fit_are_refused(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.search.searcher.MANY_HITS", 1000)
    monkeypatch.setattr("embedcache.common.machine.memory_free", lambda: 1 * MB)
    message = r"40 answers of 100 rows need about 4 MB of memory, 1 MB are free: ask for fewer with -k"
    with Searcher.open(made / "reviews.h5") as searcher, pytest.raises(EmbedcacheError, match=message):
        searcher.search([f"great film {i}" for i in range(40)], 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_60000_hits_of_1024_queries(tmp_path: Path, tiny_bert: Path) -> None:
    """In a group of 1 GB: 61 million results as JSON are refused with the figure, 6 million go into a file."""
    from tests.conftest import write_csv

    table = write_csv(tmp_path / "table.csv", make_reviews(60_000))
    document("extract", table, "-o", tmp_path / "c.h5", "--model", tiny_bert)
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"great film {i}\n" for i in range(1024)), encoding="utf-8")
    arguments = ["search", tmp_path / "c.h5", "--file", questions, "-k", "60000"]
    with control_group(GB) as within:
        code, _, stderr = Command(*arguments, "--json", within=within).finish(1700)
        assert code == 1 and "1,024 answers of 60,000 rows need about 61.4 GB of memory" in stderr, stderr
        code, _, stderr = Command(*arguments[:-1], "6000", "-o", tmp_path / "out.parquet", within=within).finish(1700)
        assert code == 0, stderr
