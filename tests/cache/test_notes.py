"""What is cut off, what the encoder does not know and odd labels: said by every command that has to do with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import embedcache as ec
from tests.conftest import document, invoke, make_reviews, write_csv

CUT, UNKNOWN, ALIKE = "texts are longer than 20 tokens; ", "are unknown to this model", "look alike and are not one"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """t.csv, cache.h5 and a run: long texts, Japanese ones, and two classes that look alike."""
    folder = tmp_path_factory.mktemp("odd")
    rows = [(text, f"{label} " if i % 9 == 0 else label) for i, (text, label) in enumerate(make_reviews(150))]
    rows += [("映 画 は 素 晴 ら し か っ た " + str(i), "positive") for i in range(30)]
    write_csv(folder / "t.csv", rows)
    document("extract", folder / "t.csv", "-o", folder / "cache.h5", "--model", tiny_bert, "--max-length", 20)
    document("train-head", folder / "cache.h5", "-o", folder / "run", "--hidden", 0, "--epochs", 2)
    return folder


def said(*arguments: Any) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_the_screen_of_each_command(place: Path, tmp_path: Path, tiny_bert: Path) -> None:
    texts = ("--input", place / "t.csv", "-o", tmp_path / "p.csv")
    for words in (
        said("extract", place / "t.csv", "-o", tmp_path / "c.h5", "--model", tiny_bert, "--max-length", 20),
        said("info", place / "cache.h5"),
        said("train-head", place / "cache.h5", "-o", tmp_path / "run", "--hidden", 0, "--epochs", 1),
    ):
        assert CUT in words and "--max-length" in words and UNKNOWN in words and ALIKE in words
    for words in (
        said("predict", place / "run", *texts),
        said("predict", place / "run", "映画 great", "film " * 50),
        said("search", place / "cache.h5", "映画 " + "film " * 50),
        said("evaluate", place / "run", place / "t.csv", "--label", "label"),
    ):
        assert "are longer than 20 tokens; " in words and UNKNOWN in words
    assert "Note" not in said("predict", place / "run", "a great film")


def test_the_share_is_one_of_tokens(place: Path) -> None:
    about = document("info", place / "cache.h5")["reading"]
    assert about["lost_share"] == pytest.approx(about["lost"] / about["tokens"]) and about["lost"] > 0
    assert about["lost_share"] != pytest.approx(about["truncated"] / about["texts"], abs=0.02)
    assert (about["unknown"] >= 30 * 8 and about["scripts"][0] == "Hiragana") or "Han" in about["scripts"][0]
    assert json.loads((place / "run" / "run.json").read_text("utf-8"))["reading"] == about


def test_the_report_and_the_model_card(place: Path) -> None:
    page = (place / "run" / "report.html").read_text("utf-8")
    card = (place / "run" / "README.md").read_text("utf-8")
    assert "of all tokens not read" in page and "Tokens unknown to the encoder" in page
    assert "which lost" in card and "% of all tokens" in card and UNKNOWN in card


def test_what_is_served(place: Path) -> None:
    pytest.importorskip("fastapi")
    from embedcache.serve.app import _info
    from embedcache.serve.service import Service

    service = Service.open(place / "cache.h5", place / "run")
    try:
        notes = " ".join(_info(service).notes)
    finally:
        service.close()
    assert CUT in notes and UNKNOWN in notes and ALIKE in notes


def test_predicting_from_a_cache_encodes_nothing_and_counts_nothing(place: Path, tmp_path: Path) -> None:
    report = ec.predict_file(place / "run", place / "cache.h5", tmp_path / "p.csv")
    assert report.reading == {} and report.notes == [] and report.truncated == 0
