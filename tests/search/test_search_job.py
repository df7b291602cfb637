"""Files of queries into tables, the command's options, and what they refuse."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import document, fails, invoke, make_reviews, write_csv

TEXTS = [text for text, _ in make_reviews(200)]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    queries = [TEXTS[3], " ", TEXTS[5], 'a "quote",\nand a line']
    return write_csv(tmp_path / "questions.csv", [(text,) for text in queries], ("text",))


def test_a_file_into_csv_and_jsonl_holds_what_is_printed(made: Path, tmp_path: Path, questions: Path) -> None:
    cache = made / "reviews.h5"
    more = ["--where", "label=positive and not film=world", "--dedupe", "-k", "4", "--device", "cpu"]
    printed = document("search", cache, "--file", questions, *more)["queries"]
    report = document("search", cache, "--file", questions, "-o", tmp_path / "out.jsonl", *more)
    assert {name: report[name] for name in ("queries", "blank", "found", "k", "candidates")} == {
        "queries": 4, "blank": 1, "found": 12, "k": 4, "candidates": 100,
    }  # fmt: skip
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == printed and [len(one["results"]) for one in lines] == [4, 0, 4, 4]
    shown = invoke("search", cache, "--file", questions, "-o", tmp_path / "out.csv", *more)
    assert shown.exit_code == 0 and "12 rows found for 4 queries" in shown.stdout and "1 blank" in shown.stdout
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    flat = [(i, query, found) for i, query in enumerate(lines) for found in query["results"]]
    for row, (i, query, found) in zip(rows, flat, strict=True):
        assert row["query_row"] == str(i) and row["query"] == query["query"]
        assert (row["rank"], row["row"], row["text"]) == (str(found["rank"]), str(found["row"]), found["text"])
        assert row["label"] == found["labels"]["label"] and abs(float(row["score"]) - found["score"]) < 1e-6


def test_many_queries_come_in_parts(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, questions: Path
) -> None:
    monkeypatch.setattr("embedcache.search.file.FILE_QUERIES", 3)
    (tmp_path / "q.txt").write_text("\n".join(TEXTS[:8]), encoding="utf-8")
    document("search", made / "reviews.h5", "--file", tmp_path / "q.txt", "-k", "2", "-o", tmp_path / "o.csv")
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["query_row"] for row in rows] == [str(i // 2) for i in range(16)]
    assert [row["row"] for row in rows if row["rank"] == "1"] == [str(i) for i in range(8)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "out.csv", "great"], "-o OUT goes with --file"),
        (["--file", "q.csv", "--like", "a"], "--file F cannot be combined"),
        (["--file", "q.csv", "great"], "give one of"),
        (["--unlike", "a"], "give one of"),
        (["--unlike-row", "3"], "give one of"),
        (["--row", "x"], "integer"),
    ],
)
def test_wrong_usage(made: Path, options: list[Any], message: str) -> None:
    assert message in fails("search", made / "reviews.h5", *options, code=2)


def test_outputs_that_cannot_be(made: Path, tmp_path: Path, questions: Path) -> None:
    cache, before = made / "reviews.h5", questions.read_bytes()
    for output, message in (
        (tmp_path / "out.xlsx", "tables are not written as '.xlsx'"),
        (questions, "is the input"),
        (tmp_path / "no" / "out.csv", "cannot write"),
    ):
        assert message in fails("search", cache, "--file", questions, "-o", output)
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in fails("search", cache, "--file", questions, "-o", tmp_path / "folder.csv")
    assert "no such file" in fails("search", cache, "--file", tmp_path / "none.csv", "-o", tmp_path / "out.csv").lower()
    assert questions.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.csv", "questions.csv"]


def test_examples_on_the_command_line(made: Path) -> None:
    cache = made / "reviews.h5"
    found = document("search", cache, "--row", "3", "--row", "5", "--unlike-row", "4", "-k", "300")
    assert found["query"] == "row 3, row 5; unlike row 4"
    assert len(found["results"]) == 205 - 3
    found = document("search", cache, "--like", TEXTS[3], "--unlike", "dull", "-k", "3", "--device", "cpu")
    assert len(found["results"]) == 3
    shown = invoke("search", cache, "--row", "3", "--row", "5", "-k", "2")
    assert shown.stdout.startswith("row 3, row 5")
