"""The report of a run: every section with the right numbers, nothing of the data's rendered, one file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.cache import open_cache
from embedcache.common.signed import sign
from embedcache.report import write_report
from embedcache.runs.folder import load_run
from tests.conftest import document, fails, invoke, make_cache
from tests.report.conftest import make_hostile_cache
from tests.report.reading import Page
from tests.runs.caches import make_labelled_cache


def info(run: Path) -> dict[str, Any]:
    return load_run(run).info


def assert_self_contained(page: Page) -> None:
    """Nothing is fetched, no script, every id once, every link and label leads somewhere."""
    assert not page.root.all("script") and not page.root.all("link") and not page.root.all("iframe")
    elements = [
        one
        for tag in ("a", "img", "image", "use", "svg", "div", "p", "meta", "g", "path")
        for one in page.root.all(tag)
    ]
    for one in elements:
        for name in ("src", "href", "srcset", "action"):
            value = one.attributes.get(name, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (one.tag, value)
        assert not [name for name in one.attributes if name.startswith("on")]
    ids = re.findall(r'\sid="([^"]*)"', page.source)
    assert len(ids) == len(set(ids)), "an id is there twice"
    targets = {one.attributes["href"][1:] for one in elements if one.attributes.get("href", "").startswith("#")}
    targets |= set(re.findall(r"url\(#([^)]*)\)", page.source)) | set(
        re.findall(r'aria-labelledby="([^"]*)"', page.source)
    )
    assert targets <= set(ids)
    assert "@import" not in page.source and not re.findall(r"url\((?!#)", page.source)
    (policy,) = page.root.all("meta", http_equiv_="") or [
        one for one in page.root.all("meta") if one.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


@pytest.mark.parametrize("kind", ["plain", "multilabel", "regression", "columns", "folds", "single", "blind"])
def test_every_kind_of_run_has_a_page(runs: Any, kind: str) -> None:
    """train-head wrote it."""
    page = Page.read(runs(kind) / "report.html")
    assert_self_contained(page)
    assert page.root.all("h1")[0].text == kind
    plots = page.root.all("div", role="img")
    assert plots and all(len(one.attributes["aria-label"]) > 20 and one.all("svg") for one in plots)
    assert all(table.all("caption")[0].text for table in page.root.all("table"))
    for what in ("At a glance", "Data", "Leaderboard", "Learning curves", "Time", "Recipe", "Made with"):
        assert what in page.sections(), what
    assert "nan" not in re.findall(r">([^<>]*)<", page.source)


def test_a_sweep_with_its_numbers(runs: Any) -> None:
    run = runs("plain")
    page, about = Page.read(run / "report.html"), info(run)
    best, test = about["best"], about["evaluation"]["test"]
    glance = page.section("At a glance").text
    assert f"{best['test_accuracy']:.3f}" in glance and "41 test rows" in glance
    assert "TF-IDF + logreg" in glance and "Majority class" in glance
    baselines = {row[""]: row for row in page.table("The chosen head and the baselines")}
    assert baselines[f"{best['name']}, chosen"]["test accuracy"] == f"{best['test_accuracy']:.4f}"
    tfidf = about["baselines"]["tfidf_logreg"]
    assert baselines["TF-IDF + logreg"]["test macro F1"] == f"{tfidf['test_macro_f1']:.4f}"
    board = page.table("Every head")
    assert len(board) == 8 and board[0]["head"] == best["name"] and board[0]["val loss"] == f"{best['val_loss']:.4f}"
    assert {row["hidden"] for row in board} == {"0", "16"} and {row["lr"] for row in board} == {"0.001", "0.01"}
    spread = page.table("What the seed alone changes")
    assert len(spread) == 4 and spread[0]["mean"] == f"{about['spread'][0]['mean']:.4f}"
    curve = page.table(f"{best['name']}, epoch by epoch")
    history = about["heads"][best["name"]]["history"]
    assert [row["val accuracy"] for row in curve] == [f"{value:.4f}" for value in history["val_accuracy"]]
    classes = page.table("The chosen head on 41 test rows")
    assert [row["class"] for row in classes] == ["negative", "positive"]
    assert classes[1]["recall"] == f"{test['per_class'][1]['recall']:.4f}"
    matrix = [[int(n) for n in list(row.values())[1:]] for row in page.table("Confusion matrix")]
    assert matrix == test["confusion_matrix"]
    ece = {row[""]: row["ECE"] for row in page.table("Calibration on the test rows")}
    assert ece["as trained"] == f"{test['calibration']['ece']:.4f}"
    bins = page.table("The bins")
    assert sum(int(row["decisions"]) for row in bins if row[""] == "as trained") == 41
    assert page.section("Time").text.count(" s") >= 5 and about["engine"] in page.section("Time").text
    rows = {row["class"]: row for row in page.table("Rows of each class")}
    sides = ("train", "val", "test")
    assert {side: sum(int(row[side]) for row in rows.values()) for side in sides} == {
        s: about["split"][s] for s in sides
    }


def test_the_mistakes_are_the_wrong_rows_the_head_is_surest_of(runs: Any) -> None:
    run = runs("noise")
    about, head = info(run), load_run(run).best
    kept = about["mistakes"]["test"]
    with open_cache(about["cache"]["path"]) as cache:
        codes, classes = cache.labels("stars")
        page = Page.read(run / "report.html").section("Most confident mistakes")
        items = page.all("li")
        assert (len(items), len(kept)) == (20, 25)
        for one, item in zip(kept, items, strict=False):
            proba = head.predict_proba(cache.embeddings()[one["row"]][None])[0]
            assert classes[codes[one["row"]]] == one["label"] != one["predicted"] == classes[proba.argmax()]
            assert proba.max() == pytest.approx(one["probability"], abs=1e-5)
            assert item.all("blockquote")[0].text == cache.texts[one["row"]]
            assert f"row {one['row']}" in item.text and f"{one['probability']:.3f}" in item.text
    sure = [one["probability"] for one in kept]
    assert sure == sorted(sure, reverse=True)


def test_several_labels_a_row(runs: Any) -> None:
    page, about = Page.read(runs("multilabel") / "report.html"), info(runs("multilabel"))
    rows = {row["label"]: row for row in page.table("The chosen head on")}
    for one in about["evaluation"]["test"]["per_class"]:
        assert [rows[one["label"]][key] for key in ("precision", "F1")] == [
            f"{one[k]:.4f}" for k in ("precision", "f1")
        ]
    thresholds = {row["label"]: row for row in page.table("Thresholds")}
    for one in about["thresholds"]:
        row = thresholds[one["label"]]
        assert row["threshold"] == f"{one['threshold']:.3f}"
        assert one["shared"] or float(row["val F1 at the threshold"]) >= float(row["val F1 at 1/2"])
        assert row["test F1 at 1/2"] == rows[one["label"]]["F1"]
    assert "Labels" in page.sections() and "micro F1" in page.section("Labels").text


def test_a_regression(runs: Any) -> None:
    page, about = Page.read(runs("regression") / "report.html"), info(runs("regression"))
    test = about["evaluation"]["test"]
    (row,) = [row for row in page.table("Errors of the chosen head") if row[""] == "test rows"]
    assert (row["R²"], row["RMSE"]) == (f"{test['r2']:.4f}", f"{test['rmse']:.4f}")
    pairs = np.array(about["pairs"]["test"])
    assert len(pairs) == test["rows"] and np.sqrt(((pairs[:, 1] - pairs[:, 0]) ** 2).mean()) == pytest.approx(
        test["rmse"]
    )
    assert len(page.section("Predicted and true").all("div", role="img")) == 2
    errors = [abs(one["predicted"] - one["label"]) for one in about["mistakes"]["test"]]
    assert errors == sorted(errors, reverse=True) and errors[0] == pytest.approx(
        np.abs(pairs[:, 1] - pairs[:, 0]).max()
    )
    assert "Largest errors" in page.sections() and "Calibration" not in page.sections()


def test_a_part_for_every_label_column(runs: Any) -> None:
    page = Page.read(runs("columns") / "report.html")
    assert [one.text for one in page.root.all("h2", class_="part")] == ["Column label", "Column tone", "The run"]
    assert page.sections().count("Leaderboard") == 2 and page.sections().count("Time") == 1
    assert [row["class"] for row in page.table("The chosen head on", 1)] == ["high", "low", "mid"]
    assert Page.read(write_report(runs("columns") / "tone", runs("columns").parent / "tone.html").report).sections()


def test_folds_show_what_is_out_of_fold(runs: Any) -> None:
    page, about = Page.read(runs("folds") / "report.html"), info(runs("folds"))
    folds = page.table(f"The settings of {about['best']['name']}, fold by fold")
    assert [int(row["validation rows"]) for row in folds] == [fold["val"] for fold in about["split"]["folds"]]
    val = about["evaluation"]["val"]
    rows = page.table(f"The chosen head on {val['rows']} rows out of fold")
    assert rows[0]["recall"] == f"{val['per_class'][0]['recall']:.4f}"
    assert "the head that did not train on it" in page.section("Most confident mistakes").text


def test_without_test_rows_the_page_says_that_the_scores_flatter(runs: Any) -> None:
    assert "the number flatters it" in Page.read(runs("single") / "report.html").section("At a glance").text
    page = Page.read(runs("blind") / "report.html")
    assert "neither validation nor test rows" in page.section("At a glance").text
    assert not {"Calibration", "Classes", "Beside the baselines"} & set(page.sections())


def test_names_and_texts_are_shown_and_never_obeyed(hostile: Path) -> None:
    page = Page.read(hostile / "report.html")
    assert_self_contained(page)
    shown = {row["class"] for row in page.table("The chosen head on")}
    assert {"<script>alert(1)</script>", "</style><b>\"'&", "{{ 7 * 7 }}{% raw %}", "$x^2$ `code` | pipe"} <= shown
    assert "'\\u202eright to left\\u202c עברית'" in shown and "'bell\\x07\\nline'" in shown
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08]", page.source)
    assert "<img" not in page.source and "onerror=alert" in page.section("Most confident mistakes").text
    assert page.root.all("h1")[0].text == "<run>" and "<b>label" in page.section("Data").text
    names = [one for one in page.root.all("td") if one.text.startswith("very very")]
    assert names and all(len(one.text) <= 100 for one in names)


def test_the_same_run_gives_the_same_bytes(runs: Any, tmp_path: Path) -> None:
    pages = [Path(write_report(runs("plain"), tmp_path / f"{i}.html").report).read_bytes() for i in range(2)]
    assert pages[0] == pages[1] == (runs("plain") / "report.html").read_bytes()


def test_a_thousand_heads_and_a_hundred_classes_stay_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.runs.leaderboard.BUDGET", 0.5)
    cache = make_hostile_cache(tmp_path / "cache.h5", classes=100, n=1200)
    sweep = ["--hidden", "0,4", "--lr", "1e-4:1e-1", "--random", "200", "--seed", "0,1,2,3,4", "--epochs", "2"]
    made = document("train-head", cache, "-o", tmp_path / "run", *sweep)
    page = Page.read(tmp_path / "run" / "report.html")
    assert made["heads"] == 1000 and len(page.source) < 400_000
    assert [len(page.table("The first 20 of 1,000 heads", part)) for part in (0, 1)] == [6, 14], "the rest is folded"
    assert "1,000 heads: from" in page.section("Leaderboard").text
    assert [len(page.table("The chosen head on", part)) for part in (0, 1)] == [6, 94]
    assert len(page.section("Classes").all("image")) == 1, "the confusion matrix is a picture"
    assert_self_contained(page)


def test_the_texts_are_found_by_content_or_said_to_be_gone(runs: Any, tmp_path: Path) -> None:
    run, about = runs("noise"), info(runs("noise"))
    kept = [one for some in about["mistakes"].values() for one in some]
    first = about["mistakes"]["test"][0]["row"]
    with open_cache(about["cache"]["path"]) as cache:
        texts, x = [cache.texts[one["row"]] for one in kept], cache.embeddings()[[one["row"] for one in kept]]
        expected = [cache.texts[one["row"]] for one in about["mistakes"]["test"]]
    lost = make_cache(
        tmp_path / "lost.h5",
        [text for text in texts if text != expected[0]],
        x[1:],
        {"label": ["a"] * (len(texts) - 1)},
    )
    written = document("report", run, "-o", tmp_path / "report.html", "--cache", lost)
    page = Page.read(tmp_path / "report.html").section("Most confident mistakes")
    items = page.all("li")[1:]  # the first is the note
    assert "has changed since" in page.text and "1 of the 50 texts" in written["texts"]
    assert (
        "not in the cache any more" in items[0].text
        and len(items) == 20
        and items[1].all("blockquote")[0].text == expected[1]
    )
    assert f"row {first}" in items[0].text
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    document_ = json.loads((moved / "run.json").read_text("utf-8"))
    document_["cache"]["path"] = str(tmp_path / "nowhere.h5")
    (moved / "run.json").write_text(json.dumps(document_), "utf-8")
    assert invoke("report", moved).exit_code == 0
    page = Page.read(moved / "report.html").section("Most confident mistakes")
    assert "no such file" in page.text and not page.all("blockquote")
    fails("report", moved, "--cache", tmp_path / "nowhere.h5")


def test_an_audit_has_a_section(runs: Any, tmp_path: Path) -> None:
    run = runs("noise")
    cache = info(run)["cache"]["path"]
    audit = document("audit", cache, "-o", tmp_path / "audit.csv", "--label", "stars", "--folds", "2", "--run", run)
    said = document("report", run, "-o", tmp_path / "report.html", "--audit", tmp_path / "audit.csv")
    page = Page.read(tmp_path / "report.html")
    assert_self_contained(page)
    section = page.section("Audit of the data, column stars")
    assert said["audit"] == audit["found"]
    for item, one in zip(section.all("li"), audit["labels"], strict=False):
        assert (
            item.all("blockquote")[0].text == one["text"]
            and f"{one['label']}, likelier {one['suggested']}" in item.text
        )
        assert f"row {one['row']:,}" in item.text and f"heads {one['heads']:.2f}" in item.text
    assert len(section.all("li")) == min(20, len(audit["labels"])) > 0
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(tmp_path / "audit.json", tmp_path / "run")
    assert document("report", tmp_path / "run")["audit"] == audit["found"], "found in the run's folder"
    assert "Audit of the data, column stars" in Page.read(write_report(runs("plain"), tmp_path / "other.html",
        audit=tmp_path / "audit.json").report).sections()  # fmt: skip
    for wrong in (tmp_path / "nowhere.csv", Path(cache), run / "run.json"):
        assert str(wrong.with_suffix(".json").stem) in fails("report", run, "--audit", wrong)
    (tmp_path / "run" / "audit.json").write_text(json.dumps({**audit, "labels": [{"row": 1}]}), "utf-8")
    assert "damaged" in fails("report", tmp_path / "run")


def test_an_audit_of_hostile_names(hostile: Path, tmp_path: Path) -> None:
    cache = info(hostile)["cache"]["path"]
    document("audit", cache, "-o", tmp_path / "audit.csv", "--folds", "2")
    page = Page.read(write_report(hostile, tmp_path / "report.html", audit=tmp_path / "audit.csv").report)
    assert_self_contained(page)
    assert "Audit of the data, column <b>label" in page.sections() and "<img" not in page.source
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08]", page.source)


def test_runs_of_before_have_a_report(runs: Any, tmp_path: Path) -> None:
    """The first ones kept neither mistakes, spread nor evaluation."""
    old = Path(shutil.copytree(runs("plain"), tmp_path / "old"))
    about = json.loads((old / "run.json").read_text("utf-8"))
    for name in ("mistakes", "targets", "times", "spread", "evaluation", "notes", "head_rows_per_second", "kept"):
        del about[name]
    (old / "run.json").write_text(json.dumps(about), "utf-8")
    page = Page.read(document("report", old)["report"])
    assert "an older embedcache" in page.section("Most confident mistakes").text
    assert "Leaderboard" in page.sections() and "Classes" not in page.sections()


def test_the_screen_and_the_document(runs: Any) -> None:
    run, about = runs("plain"), info(runs("plain"))
    shown = invoke("report", run).stdout
    for text in (about["best"]["name"], "Most confident mistakes", "TF-IDF + logreg", "Calibration: ECE", "baselines"):
        assert text in shown, text
    assert shown.rstrip().endswith("kB") and "evaluation" in shown
    said = document("report", run)
    assert said["report"] == str(run / "report.html") and said["bytes"] == (run / "report.html").stat().st_size
    column = said["columns"]["label"]
    assert column["best"] == about["best"] and column["mistakes"]["test"][0]["text"]
    alone = invoke("report", run, "-o", run.parent / "page.html").stdout
    assert alone.count("\n") == 1 and "page.html" in alone
    assert "Largest errors" in invoke("report", runs("regression")).stdout
    assert invoke("report", runs("multilabel")).exit_code == invoke("report", runs("columns")).exit_code == 0


def test_what_cannot_be_reported(runs: Any, tmp_path: Path) -> None:
    run = runs("single")
    (tmp_path / "file").write_text("text")
    for path in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert str(path) in fails("report", path)
    newer, cut, bad = (Path(shutil.copytree(run, tmp_path / name)) for name in ("newer", "cut", "bad"))
    about = json.loads((run / "run.json").read_text("utf-8"))
    (newer / "run.json").write_text(json.dumps({**about, "format_version": 99}))
    assert "upgrade" in fails("report", newer)
    (cut / "leaderboard.csv").write_text((cut / "leaderboard.csv").read_text()[:-9])
    assert "leaderboard.csv is damaged" in fails("report", cut)
    for wrong in (
        {"heads": {}},
        {"split": 3},
        {"best": None},
        {"mistakes": {"val": [{"row": "x"}]}},
        {"baselines": []},
    ):
        (bad / "run.json").write_text(json.dumps({**about, **wrong}))
        assert "run.json is damaged" in fails("report", bad), wrong
    (cut / "best.safetensors").unlink()
    assert "best.safetensors is missing" in fails("report", cut)
    before = (run / "report.html").read_bytes()
    assert "is a folder" in fails("report", run, "-o", tmp_path)
    assert "cannot write" in fails("report", run, "-o", tmp_path / "none" / "report.html")
    assert (run / "report.html").read_bytes() == before


def test_train_head_leaves_other_peoples_files_and_never_loses_the_run(tmp_path: Path) -> None:
    cache = make_labelled_cache(tmp_path / "cache.h5")
    run = tmp_path / "run"
    made = document("train-head", cache, "-o", run, "--epochs", "1")
    assert made["documents"] == [str(run / "report.html"), str(run / "README.md")]
    (run / "README.md").write_text("my own words", "utf-8")
    again = invoke("train-head", cache, "-o", run, "--epochs", "2")
    assert (
        again.exit_code == 0 and "Note:" in again.stderr and "README.md was not written by embedcache" in again.stderr
    )
    assert (run / "README.md").read_text() == "my own words"
    assert "2 epochs" in Page.read(run / "report.html").source, "the report is of the new run"
    (run / "report.html").write_text("mine", "utf-8")
    assert "nothing was changed" in fails("report", run)
    (run / "report.html").write_bytes(sign("<p>an older one").encode())
    assert invoke("report", run).exit_code == 0 and "<main>" in (run / "report.html").read_text("utf-8")


def test_a_report_that_fails_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> str:
        raise RuntimeError("no plots today")

    monkeypatch.setattr("embedcache.report.page.make_page", broken)
    cache = make_labelled_cache(tmp_path / "cache.h5")
    made = invoke("train-head", cache, "-o", tmp_path / "run", "--epochs", "1", "--json")
    assert made.exit_code == 0 and json.loads(made.stdout)["documents"] == []
    assert "Note:" in made.stderr and "no plots today" in made.stderr and load_run(tmp_path / "run").best
