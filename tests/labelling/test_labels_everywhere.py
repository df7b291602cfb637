"""Every command that reads labels reads those of the journal beside the cache, and says so once."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest

from embedcache.encoder.poolings import POOLINGS
from embedcache.labelling import LabelJournal
from tests.conftest import FOUR_HEADS, document, fails, invoke, write_csv
from tests.labelling.conftest import said

LINE = "20 labels from reviews.h5.labels.jsonl"


@pytest.fixture(scope="module")
def corrected(made: Path, tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """A cache with a journal that flips 20 labels; and corrected.h5, extracted from the corrected table."""
    folder = tmp_path_factory.mktemp("corrected")
    shutil.copy(made / "reviews.h5", folder / "reviews.h5")
    with (made / "reviews.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    other = {"positive": "negative", "negative": "positive"}
    for row in rows[:20]:
        row["label"] = other[row["label"]]
    journal = LabelJournal.beside(folder / "reviews.h5")
    journal.append([said(row["text"], row["label"], before=other[row["label"]]) for row in rows[:20]])
    write_csv(folder / "corrected.csv", [row.values() for row in rows], rows[0].keys())
    document(
        "extract", folder / "corrected.csv", "-o", folder / "corrected.h5", "--model", tiny_bert,
        "--keep", "film", "--pooling", ",".join(POOLINGS),
    )  # fmt: skip
    return folder


@pytest.fixture
def skewed(made: Path, tmp_path: Path) -> Path:
    """A cache with a journal that gives its first 20 rows one label."""
    shutil.copy(made / "reviews.h5", tmp_path / "reviews.h5")
    with (made / "reviews.csv").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    LabelJournal.beside(tmp_path / "reviews.h5").append([said(text, "positive") for text in texts[:20]])
    return tmp_path / "reviews.h5"


def notes(about: dict) -> list[str]:
    return [line for line in about["notes"] if "labels from" in line]


def test_train_head_learns_what_the_corrected_table_says(corrected, made, tmp_path):
    """To the bit: a head's identity is a digest of what it learned from."""
    found = document("train-head", corrected / "reviews.h5", "-o", tmp_path / "a", *FOUR_HEADS)
    again = document("train-head", corrected / "corrected.h5", "-o", tmp_path / "b", *FOUR_HEADS)
    without = document(
        "train-head", corrected / "reviews.h5", "-o", tmp_path / "c", "--labels", "none", *FOUR_HEADS
    )  # fmt: skip
    runs = {name: json.loads((tmp_path / name / "run.json").read_text("utf-8")) for name in "abc"}
    assert runs["a"]["identities"] == runs["b"]["identities"]
    assert runs["c"]["identities"] == json.loads((made / "run" / "run.json").read_text("utf-8"))["identities"]
    assert notes(found) == [LINE] and notes(again) == notes(without) == []
    assert (
        found["labels_from"] == runs["a"]["labels_from"] and without["labels_from"] is runs["b"]["labels_from"] is None
    )
    journal = LabelJournal.beside(corrected / "reviews.h5")
    assert (found["labels_from"]["entries"], found["labels_from"]["digest"]) == (20, journal.digest())
    assert LINE in (tmp_path / "a" / "report.html").read_text("utf-8")


def test_it_is_said_once(corrected, tmp_path):
    result = invoke("train-head", corrected / "reviews.h5", "-o", tmp_path / "run", *FOUR_HEADS)
    assert result.output.count("labels from") == 1 and f"Note: {LINE}" in result.output


def test_a_run_can_be_repeated_after_the_journal_has_grown(corrected, tmp_path):
    """And --resume keeps no head that learned from other labels."""
    for name in ("reviews.h5", "reviews.h5.labels.jsonl"):
        shutil.copy(corrected / name, tmp_path / name)
    cache, run = tmp_path / "reviews.h5", tmp_path / "run"
    document("train-head", cache, "-o", run, *FOUR_HEADS)
    journal = LabelJournal.beside(cache)
    from embedcache.cache import open_cache

    with open_cache(cache) as opened:
        journal.append([said(opened.texts[100], "positive"), said(opened.texts[101], "negative")])
    assert (
        document("train-head", cache, "-o", run, "--resume", "--labels", f"{journal.path}@20", *FOUR_HEADS)["kept"] == 4
    )
    result = invoke("train-head", cache, "-o", run, "--resume", *FOUR_HEADS)
    said_so = "with 20 entries of reviews.h5.labels.jsonl then, with 22 entries of reviews.h5.labels.jsonl now"
    assert result.stderr.count(said_so) == 1 and f"--labels {journal.path}@20 takes those of then" in result.stderr
    assert "needed no training" not in result.stdout
    again = invoke("train-head", cache, "-o", run, "--resume", *FOUR_HEADS)
    assert "4 of 4 heads are there already" in again.stderr and "trained again" not in again.stderr


def test_audit(corrected):
    found = document("audit", corrected / "reviews.h5", "--folds", 2)
    table = document("audit", corrected / "corrected.h5", "--folds", 2)
    assert found["labels"] == table["labels"] != [] and notes(found) == [LINE]
    assert document("audit", corrected / "reviews.h5", "--folds", 2, "--labels", "none")["labels_from"] is None


def test_search(corrected, tmp_path):
    """What is shown, and what --where sees."""
    found = document("search", corrected / "reviews.h5", "--row", 30, "-k", 300, "--where", "label=positive")
    table = document("search", corrected / "corrected.h5", "--row", 30, "-k", 300, "--where", "label=positive")
    without = document("search", corrected / "reviews.h5", "--row", 30, "-k", 300, "--labels", "none")
    assert [one["row"] for one in found["results"]] == [one["row"] for one in table["results"]]
    assert {one["labels"]["label"] for one in found["results"]} == {"positive"}
    assert {one["row"] for one in without["results"] if one["labels"]["label"] == "positive"} != {
        one["row"] for one in found["results"]
    }
    assert found["labels_from"]["labels"] == 20 and without["labels_from"] is None
    (tmp_path / "asked.txt").write_text("a fine film\n")
    written = document(
        "search", corrected / "reviews.h5", "--file", tmp_path / "asked.txt", "-o", tmp_path / "found.csv"
    )  # fmt: skip
    assert notes(written) == [LINE]


def test_evaluate(corrected, made):
    """Against the labels that people gave; the run's own baselines learn from what the run learned from."""
    found = document("evaluate", made / "run", corrected / "reviews.h5")
    table = document("evaluate", made / "run", corrected / "corrected.h5")
    assert found["scores"] == table["scores"] and found["confusion"] == table["confusion"]
    assert found["baselines"] == table["baselines"] and notes(found) == [LINE]
    assert fails("evaluate", made / "run", made / "reviews.csv", "--labels", "none").endswith("by its own labels")


def test_baselines_of_a_run_learn_from_its_labels(corrected, tmp_path):
    """Also when the journal has grown since; and where its lines have changed that is said."""
    for name in ("reviews.h5", "reviews.h5.labels.jsonl"):
        shutil.copy(corrected / name, tmp_path / name)
    cache = tmp_path / "reviews.h5"
    document("train-head", cache, "-o", tmp_path / "run", *FOUR_HEADS)
    before = document("evaluate", tmp_path / "run", corrected / "corrected.h5")
    journal = LabelJournal.beside(cache)
    lines = journal.path.read_bytes()
    journal.append([said("a text of no row", "odd")])
    assert document("evaluate", tmp_path / "run", corrected / "corrected.h5")["baselines"] == before["baselines"]
    journal.path.write_bytes(lines.replace(b"positive", b"negative", 1))
    (note,) = {
        one["note"] for one in document("evaluate", tmp_path / "run", corrected / "corrected.h5")["baselines"].values()
    }
    assert "does not hold the 20 labels that the run was trained with" in note


def test_info(corrected, tmp_path):
    about = document("info", corrected / "reviews.h5")
    assert about["labels_from"]["people"] == 1 and about["labels_from"]["disagreements"] == 0
    assert about["labels"] == document("info", corrected / "corrected.h5")["labels"]
    line = next(line for line in invoke("info", corrected / "reviews.h5").output.splitlines() if "journal" in line)
    assert line == f"journal   {LINE}; 20 entries"
    assert "journal" not in invoke("info", corrected / "reviews.h5", "--labels", "none").output


def test_a_journal_that_cannot_be_used(corrected, tmp_path):
    cache = Path(shutil.copy(corrected / "reviews.h5", tmp_path / "reviews.h5"))
    journal = LabelJournal.beside(cache)
    journal.path.write_text("not a journal\n")
    for command in (["info", cache], ["audit", cache], ["search", cache, "--row", 1]):
        assert "is not a labels journal, or its first line is damaged" in fails(*command)
        assert "no such labels journal" in fails(*command, "--labels", tmp_path / "nowhere.jsonl")
    assert document("info", cache, "--labels", "none")["labels_from"] is None


def test_a_damaged_line_is_named_by_every_command(corrected, tmp_path):
    for name in ("reviews.h5", "reviews.h5.labels.jsonl"):
        shutil.copy(corrected / name, tmp_path / name)
    journal = LabelJournal.beside(tmp_path / "reviews.h5")
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"who":"ada"', b'"who":"eve"', 1))
    for command in (["info"], ["audit", "--folds", 2], ["search", "--row", 1], ["labels"]):
        output = invoke(command[0], tmp_path / "reviews.h5", *command[1:]).output
        assert output.count("line 2 of reviews.h5.labels.jsonl is damaged and skipped: its checksum") == 1, output
        assert "19 labels from reviews.h5.labels.jsonl" in output


def test_the_journal_of_another_cache(corrected, tiny_bert, tmp_path):
    """Labels go by content: what fits is used, and how much does not is said."""
    with (corrected / "corrected.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    write_csv(tmp_path / "some.csv", [row.values() for row in rows[15:120]], rows[0].keys())
    document("extract", tmp_path / "some.csv", "-o", tmp_path / "some.h5", "--model", tiny_bert)
    about = document("info", tmp_path / "some.h5", "--labels", corrected / "reviews.h5.labels.jsonl")["labels_from"]
    assert (about["labels"], about["elsewhere"]) == (5, 15)
    result = invoke("info", tmp_path / "some.h5", "--labels", corrected / "reviews.h5.labels.jsonl")
    assert "5 labels from reviews.h5.labels.jsonl; 15 of the journal's labels are of texts that" in result.output


def test_serve(corrected):
    """Rows, filters and the map's colours; /info says where labels come from."""
    from fastapi.testclient import TestClient

    from embedcache.serve.app import create_app
    from embedcache.serve.service import Service

    for labels, first in ((None, "positive"), ("none", "negative")):
        service = Service.open(corrected / "reviews.h5", labels=labels)
        try:
            with TestClient(create_app(service), base_url="http://localhost") as client:
                assert client.get("/rows/0").json()["labels"]["label"] == first
                assert (LINE in client.get("/info").json()["notes"]) == (labels is None)
                asked = {"row": 30, "k": 200, "where": ["label=positive"]}
                rows = [one["row"] for one in client.post("/search", json=asked).json()["results"]]
                assert (0 in rows) == (first == "positive")
        finally:
            service.close()


@pytest.mark.slow
def test_a_ladder_keeps_to_the_labels_it_was_begun_with(corrected, tmp_path):
    for name in ("reviews.h5", "reviews.h5.labels.jsonl"):
        shutil.copy(corrected / name, tmp_path / name)
    arguments = ["ladder", tmp_path / "reviews.h5", "-o", tmp_path / "ladder", "--rungs", "tfidf"]
    found = document(*arguments)
    again = document("ladder", corrected / "corrected.h5", "-o", tmp_path / "other", "--rungs", "tfidf")
    scores = [[one["test_accuracy"] for one in ladder["rungs"]] for ladder in (found, again)]
    assert scores[0] == scores[1]
    document(*arguments, "--resume")
    LabelJournal.beside(tmp_path / "reviews.h5").append([said("a text of no row", "positive")])
    assert "was begun with another journal" in fails(*arguments, "--resume")


def test_predict(corrected, made, tmp_path):
    """The labels beside the predictions, and --where; predictions themselves do not depend on them."""
    asked = ["predict", made / "run", corrected / "reviews.h5", "--where", "label=positive", "-o", tmp_path / "out.csv"]
    found = document(*asked)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    table = document("predict", made / "run", corrected / "corrected.h5", *asked[3:])
    assert (found["rows"], found["labels"]) == (table["rows"], table["labels"]) and rows[0]["row"] == "0"
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row["label"] for row in rows]
    assert notes(found) == [LINE] and found["labels_from"]["entries"] == 20 and table["labels_from"] is None
    without = document(*asked, "--labels", "none")
    assert notes(without) == [] and without["labels_from"] is None and without["labels"] != found["labels"]
    line = fails("predict", made / "run", "--input", made / "reviews.csv", "--labels", "none")
    assert "is not a cache: a journal of labels (none)" in line
    assert fails("predict", made / "run", "a text", "--labels", "none", code=2).endswith("--labels goes with a CACHE")


def test_drift(corrected, made, skewed):
    """The shares of classes on both sides."""
    found = document("drift", corrected / "reviews.h5", made / "reviews.h5")
    table = document("drift", corrected / "corrected.h5", made / "reviews.h5")
    (mine,), (theirs,) = found["labels"], table["labels"]
    assert [one["old"] for one in mine["classes"]] == [one["old"] for one in theirs["classes"]]
    assert notes(found) == [LINE] and notes(table) == [] and found["new_labels_from"] is None
    turned = document("drift", made / "reviews.h5", skewed)
    assert notes(turned) == [LINE] and turned["labels_from"] is None and turned["new_labels_from"]["labels"] == 20
    without = document("drift", made / "reviews.h5", skewed, "--labels", "none")
    assert notes(without) == []
    known = [{one["label"]: one["new"] for one in report["labels"][0]["classes"]} for report in (turned, without)]
    assert known[0] != known[1]


def test_zero_shot(corrected, skewed):
    """The scores; --labels there are the names of the classes."""
    named = ["--labels", "positive: good; negative: bad"]
    found = document("zero-shot", corrected / "reviews.h5", *named)
    table = document("zero-shot", corrected / "corrected.h5", *named)
    assert found["scores"] == table["scores"] and notes(found) == [LINE]
    given = document("zero-shot", skewed, *named)
    without = document("zero-shot", skewed, *named, "--labels-from", "none")
    assert without["scores"] != given["scores"] and without["labels_from"] is None and notes(without) == []


def test_vectors(corrected, tmp_path):
    """A table has the labels that count; a file of vectors alone has none."""
    import pyarrow.parquet as pq

    labels = {}
    for name, more in (("reviews", ()), ("corrected", ()), ("none", ("--labels", "none"))):
        cache = corrected / ("reviews.h5" if name == "none" else f"{name}.h5")
        found = document("vectors", cache, "-o", tmp_path / "out.parquet", *more)
        labels[name] = pq.read_table(tmp_path / "out.parquet").column("label").to_pylist()
        assert notes(found) == ([LINE] if name == "reviews" else [])
    assert labels["reviews"] == labels["corrected"] != labels["none"]
    assert notes(document("vectors", corrected / "reviews.h5", "-o", tmp_path / "out.npy")) == []
    line = fails("vectors", corrected / "reviews.h5", "-o", tmp_path / "out.npy", "--labels", "none")
    assert line.endswith("holds vectors alone: --labels is for a table, which has labels beside them")


def test_merge_takes_no_labels_over_and_says_so(made, tiny_bert, tmp_path):
    parts = [tmp_path / f"part-{i}.h5" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        document("extract", made / "reviews.csv", "-o", part, "--model", tiny_bert, "--shard", f"{i}/2")
    assert document("merge", *parts, "-o", tmp_path / "all.h5")["notes"] == []
    LabelJournal.beside(parts[1]).append([said("a text of no row", "positive")])
    (note,) = document("merge", *parts, "-o", tmp_path / "all.h5")["notes"]
    assert note.startswith("the labels that people gave in part-2.h5.labels.jsonl are not taken over: embedcache lab")
    assert f"Note: {note}" in invoke("merge", *parts, "-o", tmp_path / "all.h5").output


def test_report_marks_the_mistakes_whose_label_has_changed_since(made, tmp_path):
    """Each as the journal has it, on the page, on the screen and as data; the scores stay those of the training."""
    shutil.copytree(made / "run", tmp_path / "run")
    shutil.copy(made / "reviews.h5", tmp_path / "reviews.h5")
    about = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))
    asked = ["report", tmp_path / "run", "--cache", tmp_path / "reviews.h5"]
    before = document(*asked)
    first, second = before["columns"]["label"]["mistakes"]["test"][:2]
    assert before["notes"] == [] and "label_now" not in first
    journal = LabelJournal.beside(tmp_path / "reviews.h5")
    journal.append(
        [
            said(first["text"], first["predicted"], before=first["label"]),
            said(second["text"], second["label"], before=second["label"]),  # confirmed: it is as it was
        ]
    )
    found = document(*asked)
    mine, other = found["columns"]["label"]["mistakes"]["test"][:2]
    assert mine["label_now"] == first["predicted"] and mine["label_now_predicted"] and "label_now" not in other
    assert found["columns"]["label"]["best"] == before["columns"]["label"]["best"]
    total = sum(map(len, about["mistakes"].values()))
    line = f"1 of the {total} mistakes have another label by now, 1 of them the predicted one"
    assert found["notes"][0] == "2 labels from reviews.h5.labels.jsonl" and found["notes"][1].startswith(line)
    assert found["labels_from"]["entries"] == 2
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert line in page and f"row {first['row']}, {first['predicted']} since" in page
    screen = invoke(*asked).output
    assert line in " ".join(screen.split()) and f"{first['label']}, {first['predicted']} since" in screen
    without = document(*asked, "--labels", "none")
    assert without["notes"] == [] and without["labels_from"] is None
    assert "no such labels journal" in fails(*asked, "--labels", tmp_path / "nowhere.jsonl")
    journal.append([said(first["text"], None)])
    document(*asked)
    assert "its label taken away since" in (tmp_path / "run" / "report.html").read_text("utf-8")
