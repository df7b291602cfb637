"""What an extract reads as missing, and which columns of a cache stay without being named again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import embedcache as ec
from embedcache.tables.rows import MISSING_LABELS, missing_labels
from tests.conftest import document, invoke, write_csv

TEXTS = [f"a film about {word}" for word in ("war", "love", "horror", "music", "world", "romance")]
HEADER = ("text", "label", "drug", "id", "stars")
LABELS = ["pos", "NA", "None", "-", "", "neg"]


def table(path: Path, labels: list[str], header: tuple[str, ...] = HEADER) -> Path:
    both = enumerate(zip(TEXTS, labels, strict=True))
    rows = [(text, label, f"d{i}", f"id{i}", str(i % 3)) for i, (text, label) in both]
    return write_csv(path, [row[: len(header)] for row in rows], header)


@pytest.fixture
def make(tmp_path: Path, tiny_bert: Path) -> Any:
    def run(values: list[str], header: tuple[str, ...] = HEADER, **options: Any) -> tuple[Any, Any]:
        path = table(tmp_path / "t.csv", values, header)
        report = ec.extract(path, tmp_path / "c.h5", model=tiny_bert, pooling="cls", **options)
        return report, ec.open_cache(tmp_path / "c.h5")

    return run


def test_the_documented_values_are_missing_and_none_is_a_class_with_a_note(make: Any) -> None:
    report, cache = make(LABELS)
    assert cache.labels("label")[1] == ["-", "None", "neg", "pos"] and report.missing_labels == {"label": 2}
    assert any("'-' (1 row), 'None' (1 row)" in note and "--na default,-,None" in note for note in report.notes)


def test_na_adds_to_the_usual_values_with_default_and_replaces_them_without(make: Any) -> None:
    report, cache = make(LABELS, na=["default", "None", "-"])
    assert cache.labels("label")[1] == ["neg", "pos"] and report.missing_labels == {"label": 4}
    assert report.notes == []
    report, cache = make(LABELS, na=["None"])
    assert cache.labels("label")[1] == ["-", "NA", "neg", "pos"] and report.missing_labels == {"label": 2}
    assert missing_labels(None) == missing_labels(["default"]) == MISSING_LABELS
    assert missing_labels([]) == {""}


def test_na_on_the_command_line(tmp_path: Path, tiny_bert: Path) -> None:
    path = table(tmp_path / "t.csv", LABELS)
    command = ("extract", path, "-o", tmp_path / "c.h5", "--model", tiny_bert)
    assert document(*command, "--na", "default,None,-")["missing_labels"] == {"label": 4}
    shown = invoke(*command)  # without it they are classes again, and that is said
    assert shown.exit_code == 0 and "'None' (1 row)" in shown.output.replace("\n", " ")


def test_kept_columns_the_id_and_labels_stay_as_poolings_do(make: Any) -> None:
    make(["a", "b"] * 3, labels=["label", "stars"], keep=["drug"], id="id")
    report, cache = make(["b", "a"] * 3)
    assert (cache.label_names, cache.column_names, cache.id_column) == (["label", "stars"], ["drug", "id"], "id")
    assert report.notes[0].startswith("'stars', 'drug', 'id': columns of the cache, kept")
    assert cache.labels("label")[0].tolist() == [1, 0] * 3 and cache.column("drug")[2] == "d2"


def test_a_column_that_the_input_lacks_goes_and_is_named(make: Any) -> None:
    make(["a", "b"] * 3, keep=["drug"], id="id")
    report, cache = make(["a", "b"] * 3, header=("text", "label"))
    assert cache.column_names == [] and cache.id_column is None
    assert report.notes == ["'drug', 'id': columns of the cache, dropped because the input no longer has them"]


def test_overwrite_keeps_what_is_named_alone(make: Any) -> None:
    make(["a", "b"] * 3, labels=["label", "stars"], keep=["drug"], id="id")
    report, cache = make(["a", "b"] * 3, overwrite=True)
    assert (cache.label_names, cache.column_names) == (["label"], []) and report.encoded == 0
    assert report.notes == []


def test_a_column_may_change_its_part(make: Any) -> None:
    make(["a", "b"] * 3, labels=["label", "stars"], keep=["drug"], id="id")
    report, cache = make(["a", "b"] * 3, keep=["stars", "id"], id="drug")
    assert (cache.label_names, cache.id_column) == (["label"], "drug")
    assert sorted(cache.column_names) == ["drug", "id", "stars"]
    assert report.notes == []


def test_the_same_extract_again_says_nothing(make: Any) -> None:
    make(["a", "b"] * 3, keep=["drug"])
    report, _ = make(["a", "b"] * 3, keep=["drug"])
    assert report.notes == [] and report.encoded == 0


def test_look_alikes_are_said_and_not_merged(make: Any, tmp_path: Path) -> None:
    report, cache = make(["pos", "pos ", "neg", "Neg", "pos", "neg"])
    assert len(cache.labels("label")[1]) == 4
    assert "'pos' (2) and 'pos ' (1)" in report.notes[0]
    shown = invoke("info", tmp_path / "c.h5").output
    assert "'pos ' 1" in shown and "'pos' (2) and 'pos ' (1)" in shown.replace("\n", " ")
