"""Runs on rows with known labels: the scores are scikit-learn's, and what could flatter them is said."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, r2_score, roc_auc_score

import embedcache as ec
from embedcache.cli import main
from embedcache.evaluation.curves import class_curves, confidence_curve
from tests.conftest import document, fails, invoke, make_cache, make_reviews, write_csv
from tests.runs.caches import labelled, make_labelled_cache

SWEEPS: dict[str, list[str]] = {
    "plain": ["--hidden", "16"],
    "probe": ["--hidden", "0", "--pooling", "mean"],
    "tone": ["--label", "tone", "--hidden", "16"],
    "tags": ["--label", "tags", "--hidden", "16"],
    "score": ["--label", "score", "--task", "regression", "--hidden", "16"],
    "columns": ["--label", "label,tone", "--hidden", "16"],
    "grouped": ["--group", "film", "--hidden", "16"],
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_labelled_cache(tmp_path_factory.mktemp("evaluate") / "cache.h5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Any:
    """Name of a sweep -> its run, trained when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def run(name: str) -> Path:
        if name not in made:
            made[name] = folder / name
            sweep = ["--lr", "1e-2", "--epochs", "4", *SWEEPS[name]]
            document("train-head", cache, "-o", made[name], *sweep)
        return made[name]

    return run


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of other rows."""
    texts, x, labels = labelled(seed=7)
    texts = [f"new {text}" for text in texts]
    names = [*labels[:390], *["unheard"] * 10]
    films = [f"film {i // 8}" for i in range(len(texts))]
    path = tmp_path_factory.mktemp("fresh") / "fresh.h5"
    return make_cache(path, texts, {"cls": x, "mean": -x}, {"label": labels, "more": names}, columns={"film": films})


def test_scores_are_those_of_scikit_learn(runs: Any, fresh: Path) -> None:
    report = ec.evaluate(runs("plain"), fresh)
    run = ec.load_run(runs("plain"))
    with ec.open_cache(fresh) as opened:
        x = np.array(opened.embeddings("cls"))
        truth = np.array(opened.labels("label").names)
    guess = run.best.predict(x)
    (one,) = report.runs
    assert report.rows == one.rows == len(truth) and one.trained == 0 and one.unknown == {}
    assert one.scores["accuracy"].value == pytest.approx(accuracy_score(truth, guess))
    assert one.scores["macro_f1"].value == pytest.approx(f1_score(truth, guess, average="macro"))
    low, high = one.scores["accuracy"].interval or (1, 0)
    assert low < one.scores["accuracy"].value < high
    proba = run.best.predict_proba(x)
    (curve,) = one.curves
    column = run.classes.index(curve["label"])
    assert curve["roc_auc"] == pytest.approx(roc_auc_score(truth == curve["label"], proba[:, column]), abs=1e-6)
    found = average_precision_score(truth == curve["label"], proba[:, column])
    assert curve["average_precision"] == pytest.approx(found, abs=1e-6)
    assert sum(map(sum, one.confusion["matrix"])) == len(truth)
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_runs_own_test_rows_give_its_own_test_score(runs: Any, cache: Path) -> None:
    document_ = document("evaluate", runs("plain"), cache, "--unseen")
    best = ec.load_run(runs("plain")).info["best"]
    assert document_["scores"]["accuracy"]["value"] == pytest.approx(best["test_accuracy"])
    assert document_["left_out"] + document_["rows"] == 393 and document_["unlabelled"] == 7
    seen = document("evaluate", runs("plain"), cache)
    assert seen["runs"][0]["trained"] == document_["left_out"]
    assert any("--unseen leaves such rows out" in note for note in seen["notes"])


def test_a_table_is_encoded_and_scores_as_its_cache_does(made: Path, tmp_path: Path) -> None:
    by_cache = document("evaluate", made / "run", made / "reviews.h5")
    by_table = document("evaluate", made / "run", made / "reviews.csv", "--group", "film")
    # Of cls alone the vectors differ in their rounding from those of cls and mean: a row between two classes may turn.
    accuracy = [one["scores"]["accuracy"]["value"] for one in (by_table, by_cache)]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.03)
    assert by_table["groups"] == 41 and by_cache["groups"] is None
    assert by_table["scores"]["accuracy"]["interval"] != by_cache["scores"]["accuracy"]["interval"]
    lines = "\n".join(json.dumps({"text": text, "label": label}) for text, label in make_reviews(20))
    (tmp_path / "some.jsonl").write_text(lines + "\n", encoding="utf-8")
    assert document("evaluate", made / "run", tmp_path / "some.jsonl")["rows"] == 20
    piped = CliRunner().invoke(main, ["evaluate", str(made / "run"), "-", "--json"], input=lines + "\n")
    assert piped.exit_code == 0 and json.loads(piped.stdout)["rows"] == 20, piped.output


def test_labels_that_the_run_never_learnt_are_wrong_and_said(runs: Any, fresh: Path) -> None:
    report = ec.evaluate(runs("plain"), fresh, label="more")
    (one,) = report.runs
    assert one.unknown == {"unheard": 10} and "loss" not in one.scores
    assert any("'unheard'" in note and "10 rows" in note for note in report.notes)
    assert one.confusion["labels"] == ["negative", "positive", "unheard"]
    assert sum(one.confusion["matrix"][2]) == 10 and one.confusion["matrix"][2][2] == 0
    every = ec.evaluate(runs("plain"), fresh).runs[0]
    assert one.scores["accuracy"].value < every.scores["accuracy"].value


def test_baselines_learn_from_the_runs_training_rows(runs: Any, cache: Path) -> None:
    """On the run's own test rows they are what train-head said."""
    report = ec.evaluate(runs("plain"), cache, unseen=True)
    said = ec.load_run(runs("plain")).info["baselines"]
    assert set(report.runs[0].baselines) == set(said)
    for name, one in report.runs[0].baselines.items():
        assert one.scores["accuracy"].value == pytest.approx(said[name]["test_accuracy"]), name
    assert {one["second"] for one in report.comparisons} == set(said)


def test_baselines_of_a_cache_that_is_gone_are_a_note(runs: Any, fresh: Path, cache: Path) -> None:
    run = runs("plain")
    moved = cache.with_name("moved.h5")
    cache.rename(moved)
    try:
        report = ec.evaluate(run, fresh)
        assert all(not one.scores and "no such file" in (one.note or "") for one in report.runs[0].baselines.values())
    finally:
        moved.rename(cache)
    assert ec.evaluate(run, fresh, baselines=False).runs[0].baselines == {}


def test_groups_that_a_run_learnt_from_are_counted(runs: Any, cache: Path, tmp_path: Path) -> None:
    """New texts, of which half are about films of the training side; the other films the run has never seen."""
    run = runs("grouped")
    with ec.open_cache(cache) as opened:
        films, x = list(opened.column("film")), np.array(opened.embeddings("cls"))
        names = list(opened.labels("label").names)
        hashes = [key.tobytes().hex() for key in opened.hashes]
    table = pq.read_table(run / "predictions.parquet")
    side = dict(zip(table["text_hash"].to_pylist(), table["side"].to_pylist(), strict=True))
    learnt = {film for film, key in zip(films, hashes, strict=True) if side[key] in ("train", "val")}
    tested = {film for film, key in zip(films, hashes, strict=True) if side[key] == "test"}
    assert learnt and tested and not learnt & tested
    texts = [f"another {i}" for i in range(len(films))]
    shown = [
        f" {film} " if film in learnt and i % 16 < 8 else "" if i % 9 == 0 else f"new {film}"
        for i, film in enumerate(films)
    ]
    expected = [film.strip() in learnt for film in shown]
    other = make_cache(tmp_path / "other.h5", texts, {"cls": x}, {"label": names}, columns={"film": shown})
    found = document("evaluate", run, other)
    (one,) = found["runs"]
    labelled_rows = [i for i, name in enumerate(names) if name]
    rows = sum(expected[i] for i in labelled_rows)
    assert 0 < rows < len(labelled_rows) and one["trained"] == 0
    assert one["trained_groups"] == {
        "column": "film", "rows": rows, "share": pytest.approx(rows / len(labelled_rows)),
        "groups": len({film.strip() for i, film in enumerate(shown) if expected[i] and names[i]}),
    }  # fmt: skip
    (note,) = [note for note in found["notes"] if "flatter" in note]
    assert (
        f"the groups (film) of {rows:,} of these {len(labelled_rows):,} rows ({rows / len(labelled_rows):.0%}" in note
    )
    assert "the texts" not in note
    unseen = document("evaluate", run, other, "--unseen")
    assert unseen["left_out"] == rows and unseen["runs"][0]["trained_groups"]["rows"] == 0
    assert not any("flatter" in note for note in unseen["notes"])
    again = document("evaluate", run, cache, "--unseen")  # its own rows: of the films and texts that tested
    best = ec.load_run(run).info["best"]
    assert again["scores"]["accuracy"]["value"] == pytest.approx(best["test_accuracy"])
    bare = make_cache(tmp_path / "bare.h5", texts, {"cls": x}, {"label": names})
    (none,) = (report := ec.evaluate(run, bare, baselines=False)).runs
    assert none.trained_groups is None and any("no such column" in note for note in report.notes)


def test_groups_are_counted_in_tables_too_and_old_runs_say_nothing(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    document("train-head", made / "reviews.h5", "-o", run, "--group", "film", "--hidden", "0", "--lr", "1e-2")
    stored = pq.read_table(run / "predictions.parquet").to_pylist()
    side = {line["group_hash"]: line["side"] for line in stored}
    films = [f"film {i}" for i in range(40)]
    keys = [hashlib.blake2b(film.encode(), digest_size=16).hexdigest() for film in films]
    rows = [(f"a new text {i}", "positive" if i % 2 else "negative", film) for i, film in enumerate(films)]
    table = write_csv(tmp_path / "new.csv", rows, ("text", "label", "film"))
    expected = sum(side[key] in ("train", "val") for key in keys)
    assert 0 < expected < 40
    groups = document("evaluate", run, table)["runs"][0]["trained_groups"]
    assert groups == {"column": "film", "rows": expected, "share": pytest.approx(expected / 40), "groups": expected}
    bare = pq.read_table(run / "predictions.parquet").drop_columns(["group_hash"])  # as written before
    pq.write_table(bare, run / "predictions.parquet")
    info = json.loads((run / "run.json").read_text("utf-8"))
    info["files"]["predictions.parquet"] = hashlib.sha256((run / "predictions.parquet").read_bytes()).hexdigest()
    (run / "run.json").write_text(json.dumps(info), "utf-8")
    found = document("evaluate", run, table)
    assert found["runs"][0]["trained_groups"] is None and found["runs"][0]["trained"] == 0
    assert not any("film" in note for note in found["notes"])


def test_runs_are_compared_in_pairs(runs: Any, fresh: Path) -> None:
    report = ec.evaluate([runs("plain"), runs("probe")], fresh, baselines=False)
    accuracy = [run.scores["accuracy"].value for run in report.runs]
    one = next(one for one in report.comparisons if one["metric"] == "accuracy")
    assert one["difference"] == pytest.approx(accuracy[0] - accuracy[1])
    assert one["interval"][0] <= one["difference"] <= one["interval"][1]
    same = ec.evaluate([runs("plain"), runs("grouped")], fresh, baselines=False).comparisons
    assert {one["first"] for one in same} == {str(runs("plain"))}


def test_several_labels_and_numbers(runs: Any, cache: Path) -> None:
    tags = ec.evaluate(runs("tags"), cache, unseen=True)
    (one,) = tags.runs
    assert one.kind == "multilabel" and {curve["label"] for curve in one.curves} == {"good", "high"}
    assert one.scores["accuracy"].value == pytest.approx(ec.load_run(runs("tags")).info["best"]["test_accuracy"])
    score = ec.evaluate(runs("score"), cache, unseen=True)
    run = ec.load_run(runs("score"))
    assert score.runs[0].scores["r2"].value == pytest.approx(run.info["best"]["test_r2"])
    with ec.open_cache(cache) as opened:
        x, cells = np.array(opened.embeddings("cls")), opened.labels("score").names
    rows = [i for i, cell in enumerate(cells) if cell is not None]
    every = ec.evaluate(runs("score"), cache)
    expected = r2_score([float(cells[i]) for i in rows], run.best.predict(x[rows]))
    assert every.runs[0].scores["r2"].value == pytest.approx(expected, abs=1e-5)


def test_the_column_of_the_name_is_scored(runs: Any, cache: Path) -> None:
    assert ec.evaluate(runs("columns"), cache, label="tone").runs[0].column == "tone"
    assert ec.evaluate(runs("columns"), cache).runs[0].column == "label"
    assert "it has" in fails("evaluate", runs("columns"), cache, "--label", "same")


def test_curves() -> None:
    right = np.array([True, True, False, True, False])
    curve = confidence_curve(right, np.array([0.9, 0.8, 0.8, 0.6, 0.5]))
    assert [one["kept"] for one in curve] == pytest.approx([0.2, 0.6, 0.8, 1.0])
    assert [one["accuracy"] for one in curve] == pytest.approx([1.0, 2 / 3, 0.75, 0.6])
    truth = np.eye(3, dtype=bool)[[0, 1, 2, 0]]
    assert [one["label"] for one in class_curves(truth, truth.astype(float), ["a", "b", "c"])] == ["a", "b", "c"]
    assert class_curves(np.ones((3, 1), bool), np.ones((3, 1)), ["always"]) == []


def test_the_page_and_the_screen(runs: Any, fresh: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for more in ([runs("plain")], [runs("plain"), runs("probe")]):
        result = invoke("evaluate", *more, fresh, "--group", "film", "-o", page)
        assert result.exit_code == 0, result.output
        assert all(word in result.stdout for word in ("95% interval", "TF-IDF + logreg", "Differences"))
        text = page.read_text("utf-8")
        assert "<script" not in text and "http://" not in text and "https://" not in text
        assert "Differences on the same rows" in text and "<svg" in text
    assert "Most confident mistakes" in invoke("evaluate", runs("plain"), fresh).stdout
    for name in ("tags", "score"):
        cache = runs(name).parent  # a page for each kind
        result = invoke(
            "evaluate", runs(name), ec.load_run(runs(name)).info["cache"]["path"], "-o", cache / f"{name}.html"
        )
        assert result.exit_code == 0, result.output


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    texts, x, labels = labelled(200)
    names = {"positive": "<img src=x onerror=alert(1)>", "negative": "{{ 7 * 7 }}"}
    cache = make_cache(
        tmp_path / "c.h5", [f"<b>{text}" for text in texts], x, {"label": [names[one or ""] for one in labels]}
    )
    document("train-head", cache, "-o", tmp_path / "run", "--epochs", "1", "--hidden", "0", "--lr", "1e-2")
    assert invoke("evaluate", tmp_path / "run", cache, "-o", tmp_path / "p.html").exit_code == 0
    page = (tmp_path / "p.html").read_text("utf-8")
    assert "<img" not in page and "<b>" not in page.replace("<b>0", "").replace("<b>1", "") and "49" not in page[:200]


def test_bad_input_is_one_line(runs: Any, fresh: Path, cache: Path, made: Path, tmp_path: Path) -> None:
    run = runs("plain")
    assert "run" in fails("evaluate", tmp_path / "none", fresh)
    assert "after them the TABLE or CACHE" in fails("evaluate", run, code=2)
    assert "named twice" in fails("evaluate", run, run, fresh)
    assert "such column" in fails("evaluate", run, fresh, "--label", "nothing")
    assert "such column" in fails("evaluate", run, fresh, "--group", "nothing")
    assert "no label in column 'film'" in fails("evaluate", run, fresh, "--label", "film")
    assert "another encoder" in fails("evaluate", made / "run", fresh)
    assert "--where" in fails("evaluate", made / "run", made / "reviews.csv", "--where", "film=x")
    assert "one label a row" in fails("evaluate", runs("tags"), fresh, "--label", "label")
    assert "predicts numbers" in fails("evaluate", runs("score"), fresh, "--label", "label")
    assert "no such file" in fails("evaluate", made / "run", tmp_path / "none.csv")
    blank = write_csv(tmp_path / "blank.csv", [("a text", ""), ("another", "NA")])
    assert "nothing to score" in fails("evaluate", made / "run", blank)
    train = write_csv(tmp_path / "train.csv", make_reviews(200))
    assert ec.evaluate(made / "run", train, unseen=True).left_out > 100
    assert "a folder" in fails("evaluate", run, fresh, "-o", tmp_path)
