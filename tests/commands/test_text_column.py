"""Tables whose texts are not called "text": what extract was told, later commands know."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embedcache as ec
from embedcache.cache import open_cache
from tests.conftest import document, fails, invoke, make_reviews, write_csv


@pytest.fixture(scope="module")
def made(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("called")
    write_csv(folder / "old.csv", make_reviews(80), ("review", "label"))
    document("extract", folder / "old.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--text", "review")
    document("train-head", folder / "c.h5", "-o", folder / "run", "--epochs", "1")
    write_csv(folder / "new.csv", make_reviews(120)[80:], ("review", "label"))
    return folder


def test_the_cache_and_its_runs_know_it(made: Path) -> None:
    with open_cache(made / "c.h5") as cache:
        assert cache.text_column == "review" and cache.info()["text_column"] == "review"
    assert ec.load_run(made / "run").text_column == "review"


def test_tables_that_come_later_are_read_by_it(made: Path, tmp_path: Path) -> None:
    new = made / "new.csv"
    assert document("predict", made / "run", "--input", new)["text"] == "review"
    assert "are column 'review'" in invoke("predict", made / "run", "--input", new, "-o", tmp_path / "o.csv").stderr
    assert document("evaluate", made / "run", new)["rows"] == 40
    assert document("drift", made / "c.h5", new)["rows_new"] == 40
    relabelled = write_csv(tmp_path / "old.csv", [(make_reviews(1)[0][0], "positive")], ("review", "label"))
    assert document("relabel", made / "c.h5", "--with", relabelled, "--confirm")["written"] == 1
    lines = "\n".join(json.dumps({"review": text}) for text, _ in make_reviews(3))
    (tmp_path / "x.jsonl").write_text(lines, encoding="utf-8")
    assert document("predict", made / "run", "--input", tmp_path / "x.jsonl")["rows"] == 3


def test_a_table_without_that_column_is_read_as_ever(made: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "plain.csv", make_reviews(9), ("text", "label"))
    assert document("predict", made / "run", "--input", tmp_path / "plain.csv")["text"] == "text"
    write_csv(tmp_path / "other.csv", make_reviews(9), ("body", "review"))
    assert document("predict", made / "run", "--input", tmp_path / "other.csv", "--text", "body")["text"] == "body"
    write_csv(tmp_path / "none.csv", make_reviews(9), ("body", "label"))
    assert "no column 'text'" in fails("predict", made / "run", "--input", tmp_path / "none.csv")


def test_the_usual_name_leaves_the_file_as_it_was(made: Path, tmp_path: Path, tiny_bert: Path) -> None:
    write_csv(tmp_path / "plain.csv", make_reviews(9), ("text", "label"))
    document("extract", tmp_path / "plain.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert)
    with open_cache(tmp_path / "c.h5") as cache:
        assert cache.text_column is None and "text_column" not in cache.layout.attrs
