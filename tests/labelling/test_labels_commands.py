"""labels takes the corrected table out of the journal, relabel puts labels that were given elsewhere into it."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.labelling import LabelJournal
from tests.conftest import document, fails, invoke, write_csv
from tests.labelling.conftest import LABELS, STARS, TEXTS, said


def read(path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def labelled(small_cache):
    """ada and bob differ on the second row; the third is as it was; stars and topics corrected, too."""
    LabelJournal.beside(small_cache).append(
        [
            said("good one", "rotten", before="fresh", comment="odd"),
            said("bad one", "fresh", before="rotten"),
            said("bad one", "odd", "bob", before="fresh"),
            said("so so", "rotten", before="rotten"),
            said("so so", ["cast", "plot"], column="topics", before=[]),
            said("", 2.5, column="stars", before=4),
            said("of no row", "fresh"),
        ]
    )
    return small_cache


def test_the_corrected_table(labelled, tmp_path):
    before = labelled.read_bytes()
    report = document("labels", labelled, "-o", tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert list(rows[0]) == ["n", "text", "label", "topics", "stars"]
    assert [row["text"] for row in rows] == TEXTS and [row["n"] for row in rows] == [f"r{i}" for i in range(6)]
    assert [row["label"] or None for row in rows] == ["rotten", "odd", "rotten", "rotten", None, "fresh"]
    topics = [json.loads(row["topics"]) if row["topics"] else None for row in rows]
    assert topics == [["plot"], ["plot", "sound"], ["cast", "plot"], ["plot"], None, ["sound"]]
    assert [row["stars"] for row in rows] == [*STARS[:5], "2.5"]
    assert (report["rows"], report["changed"]) == (6, {"label": 3, "topics": 1, "stars": 1})
    assert report["people"] == {"ada": 5, "bob": 1} and report["disagreements"] == {"label": 1, "topics": 0, "stars": 0}
    assert report["changes"]["label"] == [["fresh", "rotten", 2], ["rotten", "odd", 1]]
    assert report["labels_from"]["elsewhere"] == 1 and labelled.read_bytes() == before


def test_extracting_the_corrected_table_says_the_same(labelled, tmp_path, tiny_bert):
    """The way back into a cache: nothing is lost on it."""
    document("labels", labelled, "-o", tmp_path / "out.parquet")
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["text"]), "utf-8")
    document(
        "extract", tmp_path / "out.jsonl", "-o", tmp_path / "new.h5", "--model", tiny_bert,
        "--label", "label,topics", "--keep", "stars", "--id", "n",
    )  # fmt: skip
    with ec.open_cache(tmp_path / "new.h5") as new, ec.open_cache(labelled, labels=ec.Overlay.beside(labelled)) as old:
        assert new.labels("label").names == old.labels("label").names[:5]
        assert new.labels("topics").names == old.labels("topics").names[:5]


def test_only_changed_rows_and_what_stands_beside(labelled, tmp_path):
    document(
        "labels", labelled, "-o", tmp_path / "out.csv", "--label", "label", "--only-changed",
        "--also", "before,who,when,disagreement,comment",
    )  # fmt: skip
    rows = read(tmp_path / "out.csv")
    assert [row["n"] for row in rows] == ["r0", "r1", "r3"]
    assert [row["label_before"] for row in rows] == ["fresh", "rotten", "fresh"]
    assert [row["label_who"] for row in rows] == ["ada", "bob", "ada"]
    assert [row["label_disagreement"] for row in rows] == ["", "ada: fresh; bob: odd", ""]
    assert [row["label_comment"] for row in rows] == ["odd", "", "odd"]
    assert all(row["label_when"].startswith("20") for row in rows)
    assert [row["topics"] for row in rows] == ['["plot"]', '["plot", "sound"]', '["plot"]']  # not asked for: the file's


def test_the_rows_of_the_journal(labelled, tmp_path):
    journal = LabelJournal.beside(labelled)
    journal.append([journal.read()[0].undo("ada")])
    document("labels", labelled, "-o", tmp_path / "out.csv", "--entries")
    rows = read(tmp_path / "out.csv")
    assert [int(row["number"]) for row in rows] == list(range(1, 9))
    assert [row["counts"] for row in rows] == ["false", "false", "true", "true", "true", "true", "true", "false"]
    assert [row["row"] for row in rows] == ["0", "1", "1", "2", "2", "5", "", "0"]
    assert rows[7]["undoes"] == rows[0]["id"] and rows[4]["after"] == "cast, plot"


def test_what_it_says_on_the_screen(labelled):
    output = invoke("labels", labelled).output
    assert "Rows with another label than in the file: 3 in label, 1 in topics, 1 in stars" in output
    assert "Labels by ada 5, bob 1" in output and "Texts on which people differ: 1 in label" in output
    assert output.count("labels from small.h5.labels.jsonl") == 1


def test_without_a_journal(small_cache, tmp_path):
    report = document("labels", small_cache, "-o", tmp_path / "out.csv")
    assert report["labels_from"] is None and report["changed"] == {"label": 0, "topics": 0}
    assert [row["label"] or None for row in read(tmp_path / "out.csv")] == LABELS
    assert "nobody has labelled rows of small.h5 yet" in report["notes"][0]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--also", "mood"], "use before, who, when, disagreement, comment"),
        (["--entries", "--only-changed"], "leave --only-changed and --also out"),
        (["--label", "genre"], "has no label column genre; it has label, topics"),
        (["-o", "out.xyz"], "tables are not written as '.xyz'"),
        (["-o", "nowhere/out.csv"], "nowhere"),
    ],
)
def test_labels_that_cannot_be_written(labelled, more, why, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert why in fails("labels", labelled, *(more if "-o" in more else ["-o", "out.csv", *more]))
    assert not (tmp_path / "out.csv").exists()


# ---- relabel ----


def entries(cache) -> list[tuple[str, object, object, str]]:
    return [(one.column, one.before, one.after, one.who) for one in LabelJournal.beside(cache).read()]


def test_a_table_comes_back_by_id(small_cache, tmp_path):
    table = write_csv(
        tmp_path / "t.csv",
        [("r1", "fresh"), ("r2", "rotten"), ("r4", "fresh"), ("r9", "fresh"), ("r0", "")],
        ("n", "label"),
    )
    report = document("relabel", small_cache, "--with", table, "--who", "ada")
    assert entries(small_cache) == [("label", "rotten", "fresh", "ada"), ("label", None, "fresh", "ada")]
    assert (report["by"], report["rows"], report["labelled"], report["written"]) == ("id", 5, 4, 2)
    assert (report["unchanged"], report["unknown"], report["conflicts"]) == (1, 1, 0)
    assert report["notes"] == ["rows that small.h5 does not have, by their id: 1 ('r9')"]
    again = document("relabel", small_cache, "--with", table, "--who", "bob")
    assert (again["written"], again["unchanged"]) == (0, 3) and len(entries(small_cache)) == 2


def test_by_text_and_every_row_of_the_text(small_cache, tmp_path):
    table = write_csv(tmp_path / "t.csv", [("good one", "rotten"), ("unheard of", "fresh")])
    report = document("relabel", small_cache, "--with", table)
    assert (report["by"], report["written"], report["unknown"]) == ("text", 1, 1)
    with ec.open_cache(small_cache, labels=ec.Overlay.beside(small_cache)) as cache:
        assert cache.labels("label").names[:4] == ["rotten", "rotten", "rotten", "rotten"]


def test_confirming_is_written_once(small_cache, tmp_path):
    table = write_csv(tmp_path / "t.csv", [("bad one", "rotten"), ("so so", "fresh")])
    assert document("relabel", small_cache, "--with", table, "--who", "ada", "--confirm")["written"] == 2
    assert document("relabel", small_cache, "--with", table, "--who", "ada", "--confirm")["written"] == 0
    assert document("relabel", small_cache, "--with", table, "--who", "bob", "--confirm")["written"] == 2


def test_two_labels_of_one_text_are_left_out_and_said(small_cache, tmp_path):
    table = write_csv(tmp_path / "t.csv", [("good one", "rotten"), ("good one", "fresh"), ("bad one", "fresh")])
    report = document("relabel", small_cache, "--with", table)
    assert (report["written"], report["conflicts"]) == (1, 1)
    assert report["notes"] == ["texts with two different labels in the table, left out: 1"]


def test_new_classes_are_asked_for(small_cache, tmp_path):
    table = write_csv(tmp_path / "t.csv", [("bad one", "roten"), ("so so", "fresh")])
    line = fails("relabel", small_cache, "--with", table)
    assert "has no class 'roten' (did you mean 'rotten'?); nothing was written" in line
    assert not LabelJournal.beside(small_cache).exists
    report = document("relabel", small_cache, "--with", table, "--new-classes")
    assert (report["written"], report["new_classes"]) == (2, ["roten"]) and "new classes in 'label'" in report["notes"][
        0
    ]


def test_lists_numbers_and_a_new_column(small_cache, tmp_path):
    table = tmp_path / "t.jsonl"
    rows = [
        {"n": "r1", "topics": ["sound", "plot"], "stars": 5, "genre": "war"},
        {"n": "r2", "topics": ["sound"], "stars": 2},
    ]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    written = {
        name: document("relabel", small_cache, "--with", table, "--who", "ada", "--label", name)["written"]
        for name in ("topics", "stars", "genre")
    }
    assert written == {"topics": 1, "stars": 1, "genre": 1}  # an order of labels and a number as it was are no change
    assert entries(small_cache) == [
        ("topics", (), ("sound",), "ada"), ("stars", 1.5, 5, "ada"), ("genre", None, "war", "ada"),
    ]  # fmt: skip


def test_rows_that_next_listed_come_back_with_the_reason(small_cache, tmp_path):
    """Only of rows that were drawn by chance it is known how many labels are wrong."""
    table = write_csv(
        tmp_path / "t.csv", [("bad one", "fresh", "random"), ("so so", "fresh", "")], ("text", "label", "queue")
    )
    document("relabel", small_cache, "--with", table)
    assert [one.queue for one in LabelJournal.beside(small_cache).read()] == ["random", "relabel"]


def test_the_shell_completes_a_journal():
    from embedcache.commands.types import JournalName

    offered = [(one.type, one.value) for one in JournalName().shell_complete(None, None, "no")]
    assert offered == [("plain", "none")]
    assert [one.type for one in JournalName().shell_complete(None, None, "rev")] == ["file"]


def test_a_data_frame_from_python(small_cache):
    frame = pd.DataFrame({"text": ["bad one"], "label": ["fresh"]})
    report = ec.relabel(small_cache, frame, who="ada")
    assert isinstance(report, ec.RelabelReport) and report.written == 1
    assert ec.labels(small_cache).changed == {"label": 1, "topics": 0}


@pytest.mark.parametrize(
    ("rows", "header", "more", "why"),
    [
        ([("x", "fresh")], ("text", "label"), [], "no row of"),
        ([("bad one", "fresh")], ("words", "label"), [], "has neither the ids nor the texts of small.h5"),
        ([("bad one", "fresh")], ("text", "mood"), [], "has no column 'label' of labels"),
        ([("bad one", "fresh")], ("text", "label"), ["--id", "key"], "has no such column"),
        ([("bad one", "r7")], ("text", "n"), ["--label", "n"], "is the id column"),
        ([("bad one", '["a"]')], ("text", "label"), [], "holds one label a row"),
        ([("bad one", "plot")], ("text", "topics"), ["--label", "topics"], "holds lists"),
        ([("bad one", "many")], ("text", "stars"), ["--label", "stars"], "in which people can correct numbers"),
    ],
)
def test_tables_that_cannot_come_back(small_cache, tmp_path, rows, header, more, why):
    assert why in fails("relabel", small_cache, "--with", write_csv(tmp_path / "t.csv", rows, header), *more)
    assert not LabelJournal.beside(small_cache).exists


def test_out_and_in_again_changes_nothing(labelled, tmp_path):
    """The corrected table is what counts: to take it in again writes no label."""
    document("labels", labelled, "-o", tmp_path / "out.csv")
    before = LabelJournal.beside(labelled).digest()
    for column in ("label", "topics", "stars"):
        assert document("relabel", labelled, "--with", tmp_path / "out.csv", "--label", column)["written"] == 0
    assert LabelJournal.beside(labelled).digest() == before


def test_extract_carries_the_labels_over(tmp_path, tiny_bert):
    """The table changes, the journal stays: labels of texts that are still there count, and it is said."""
    table = write_csv(tmp_path / "t.csv", [("good film", "fresh"), ("bad film", "rotten"), ("so so", "fresh")])
    arguments = ["extract", table, "-o", tmp_path / "c.h5", "--model", tiny_bert, "--pooling", "cls"]
    assert document(*arguments)["notes"] == []
    journal = LabelJournal.beside(tmp_path / "c.h5")
    journal.append([said("bad film", "fresh"), said("so so", "rotten")])
    write_csv(table, [("a new film", "rotten"), ("so so", "fresh"), ("good film", "fresh")])
    (note,) = document(*arguments)["notes"]
    assert note == (
        "1 label from c.h5.labels.jsonl; 1 of the journal's labels are of texts that this cache does not have"
    )
    with ec.open_cache(tmp_path / "c.h5", labels=ec.Overlay.beside(tmp_path / "c.h5")) as cache:
        assert cache.labels("label").names == ["rotten", "rotten", "fresh"]
    journal.path.write_text("damaged")
    (note,) = document(*arguments)["notes"]
    assert "do not count until this is mended" in note and "is not a labels journal" in note


def test_import_carries_the_labels_over(tmp_path):
    np.save(tmp_path / "v.npy", np.eye(3, 8, dtype=np.float32))
    table = write_csv(tmp_path / "t.csv", [("good film", "fresh"), ("bad film", "rotten"), ("so so", "fresh")])
    arguments = ["import", tmp_path / "v.npy", "--table", table, "-o", tmp_path / "c.h5", "--encoder", "made-up"]
    document(*arguments)
    LabelJournal.beside(tmp_path / "c.h5").append([said("bad film", "fresh")])
    assert "1 label from c.h5.labels.jsonl" in document(*arguments)["notes"]


def test_standard_output_holds_the_table_alone(labelled, capfd):
    invoke("labels", labelled, "-o", "-", "--only-changed", "--label", "label")
    rows = [json.loads(line) for line in io.StringIO(capfd.readouterr().out)]
    assert [row["label"] for row in rows] == ["rotten", "odd", "rotten"]
