"""Lists of labels and numbers on the command line, from the table to the prediction; and what is no such thing."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import document, fails, invoke, make_reviews, write_csv

WORDS = ("plot", "actor", "script")


def topics_of(text: str) -> list[str]:
    return [word for word in WORDS if word in text.split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """table.jsonl, cache.h5 and runs: topics (lists), price (a number) and both (topics and label)."""
    folder = tmp_path_factory.mktemp("targets")
    rows: list[dict[str, Any]] = [
        {"text": text, "label": label, "topics": topics_of(text), "price": len(text) / 10, "film": f"film {i // 5}"}
        for i, (text, label) in enumerate(make_reviews(300))
    ]
    rows[5]["topics"] = rows[6]["price"] = rows[7]["label"] = None
    (folder / "table.jsonl").write_text("\n".join(map(json.dumps, rows)))
    extract = ["extract", folder / "table.jsonl", "-o", folder / "cache.h5", "--model", tiny_bert, "--pooling", "mean"]
    report = document(*extract, "--label", "topics,label", "--keep", "price,film")
    assert report["missing_labels"] == {"topics": 1, "label": 1}
    train = ["train-head", folder / "cache.h5", "--lr", "1e-2", "--epochs", "8"]
    document(*train, "-o", folder / "topics", "--label", "topics")
    document(*train, "-o", folder / "price", "--label", "price", "--task", "regression")
    document(*train, "-o", folder / "both", "--label", "topics,label", "--group", "film", "--folds", "3")
    return folder


def test_the_cache_says_what_it_holds(folder: Path) -> None:
    labels = document("info", folder / "cache.h5")["labels"]
    assert [labels[name]["kind"] for name in ("topics", "label")] == ["multilabel", "classification"]
    counts = {
        word: sum(word in topics_of(text) for i, (text, _) in enumerate(make_reviews(300)) if i != 5) for word in WORDS
    }
    assert labels["topics"]["classes"] == counts and labels["topics"]["missing"] == 1
    assert "topics (lists): " in invoke("info", folder / "cache.h5").stdout
    assert document("verify", folder / "cache.h5")["damaged"] == []


def test_search_finds_lists(folder: Path) -> None:
    cache = folder / "cache.h5"
    found = document("search", cache, "--row", "0", "-k", "300", "--where", "topics=plot", "--where", "topics!=actor")
    labels = [one["labels"]["topics"] for one in found["results"]]
    assert labels and all("plot" in topics and "actor" not in topics for topics in labels)
    assert "topics holds lists" in fails("search", cache, "--row", "0", "--where", 'topics=["plot"]')


def test_lists_are_predicted(folder: Path, tmp_path: Path) -> None:
    texts = [text for text, _ in make_reviews(300)]
    predicted = document("predict", folder / "topics", *texts[:20])
    for one in predicted:
        assert one["label"] == [word for word in sorted(WORDS) if one["probabilities"][word] > 0.5]
    table = write_csv(tmp_path / "in.csv", [[text] for text in texts], ["text"])
    report = document("predict", folder / "topics", "--input", table, "-o", tmp_path / "out.csv")
    rows = list(csv.DictReader((tmp_path / "out.csv").open(encoding="utf-8", newline="")))
    said = [json.loads(row["predicted"]) for row in rows]
    assert report["labels"] == {word: sum(word in labels for labels in said) for word in sorted(WORDS)}
    pairs = [(topics_of(text), labels) for text, labels in zip(texts, said, strict=True)]
    right = np.mean([(word in topics) == (word in labels) for topics, labels in pairs for word in WORDS])
    assert right > 0.75
    # What predict writes, extract reads: as lists again.
    model = document("info", folder / "cache.h5")["encoder"]["source"]
    again = document("extract", tmp_path / "out.csv", "-o", tmp_path / "c.h5", "--model", model, "--label", "predicted")
    assert again["rows"] == 300 and document("info", tmp_path / "c.h5")["labels"]["predicted"]["kind"] == "multilabel"
    shown = invoke("predict", folder / "topics", *texts[:20])
    assert shown.exit_code == 0 and "none" in shown.stdout


def test_numbers_are_predicted(folder: Path) -> None:
    texts = [text for text, _ in make_reviews(300)]
    predicted = document("predict", folder / "price", *texts)
    values = np.array([one["label"] for one in predicted])
    assert np.corrcoef(values, [len(text) / 10 for text in texts])[0, 1] > 0.7
    assert {json.dumps(one["probabilities"]) for one in predicted} == {"{}"}
    alone = document("predict", folder / "price", texts[0])[0]["label"]
    assert alone == pytest.approx(values[0], rel=1e-4)
    shown = invoke("predict", folder / "price", texts[0])
    assert shown.exit_code == 0 and f"{alone:.6g}" in shown.stdout


def test_several_columns_are_predicted(folder: Path, tmp_path: Path) -> None:
    (one,) = document("predict", folder / "both", "a great plot", "--calibrated")
    assert list(one["columns"]) == ["topics", "label"] and isinstance(one["label"], list)
    probabilities = one["columns"]["label"]["probabilities"]
    assert probabilities.keys() == {"positive", "negative"}
    assert one["columns"]["label"]["label"] == max(probabilities, key=probabilities.get)
    table = write_csv(tmp_path / "in.csv", [["a great plot"], ["dull"]], ["text"])
    document("predict", folder / "both", "--input", table, "-o", tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    names = ["topics", "topics_probability", "label", "label_probability"]
    assert header == ",".join(["text", *(f"predicted_{name}" for name in names)])
    shown = invoke("predict", folder / "both", "a great plot")
    assert "topics" in shown.stdout and "label" in shown.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('text,topics\na,"[""x""]"\nb,y\n', ["t.csv line 3", "'y', which is not a list", "--label"]),
        ('text,topics\na,x\n\nb,"[""x""]"\n', ["t.csv line 4", "single labels in earlier rows"]),
        ('text,topics\na,"[""x"", null]"\n', ["t.csv line 2", "null"]),
        ('text,topics\na,"[""x"", {}]"\n', ["t.csv line 2", "an object"]),
        ("text,topics\na,\"['x', 'y']\"\n", ["t.csv line 2", "not a JSON list"]),
    ],
    ids=["some-lists", "a-list-among-labels", "null", "object", "python"],
)
def test_cells_that_are_no_lists(extract: Any, tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "t.csv").write_text(content)
    line = fails(*extract(tmp_path / "t.csv", "--label", "topics"))
    for word in words:
        assert word in line
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_windows_long_integers_hold_what_is_asked_of_csv(
    extract: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To name the line of a bad cell, the file is read again without a limit of ours."""
    real, asked = csv.field_size_limit, []
    monkeypatch.setattr(csv, "field_size_limit", lambda most: (asked.append(most), real(most))[1])
    (tmp_path / "t.csv").write_text('text,topics\na,"[""x""]"\nb,y\n')
    assert "t.csv line 3" in fails(*extract(tmp_path / "t.csv", "--label", "topics"))
    assert asked and max(asked) < 2**31


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--label", "topics", "--task", "classification"], ["'topics'", "lists"]),
        (["--label", "topics", "--task", "regression"], ["'topics'", "lists"]),
        (["--label", "label", "--task", "multilabel"], ["'label'", "one label a row"]),
        (["--label", "label", "--task", "regression"], ["row 0", "'negative'", "not a finite number"]),
        (["--label", "film", "--task", "regression"], ["row 0", "'film 0'", "not a finite number"]),
        (["--label", "price"], ["'price'", "kept column", "--task price=regression"]),
        (["--label", "prise", "--task", "regression"], ["'prise'", "price"]),
        (["--label", "label", "--group", "topics"], ["--group topics", "lists"]),
    ],
    ids=" ".join,
)
def test_tasks_that_do_not_fit_the_column(folder: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    line = fails("train-head", folder / "cache.h5", "-o", tmp_path / "run", *arguments)
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_ten_thousand_numbers_are_a_kept_column(extract: Any, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", [(f"text {i}", f"{i / 7:.3f}") for i in range(10_000)])
    line = fails(*extract(path))
    assert "for regression use --keep label" in line and "--task regression" in line
