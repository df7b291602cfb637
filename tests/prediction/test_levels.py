"""Labels of a hierarchy: paths in every format, --sure, and what it promises."""

from __future__ import annotations

import csv
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.runs.hierarchy import Hierarchy
from tests.conftest import document, fails, invoke, make_reviews, write_csv

REVIEWS = make_reviews(400)


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """new.csv, c.h5, run (coarse>fine), paths (one column), flat."""
    folder = tmp_path_factory.mktemp("levels")
    flip = np.random.default_rng(0).random(len(REVIEWS)) < 0.1  # of the finer labels
    rows = []
    for i, (text, label) in enumerate(REVIEWS):
        fine = f"{label[:3]}{'ab'[int((' the ' in text) ^ flip[i])]}"
        rows.append((text, fine, label, f"{label}>{fine}" if i % 9 else label))
    write_csv(folder / "new.csv", rows, ("text", "fine", "coarse", "path"))
    document("extract", folder / "new.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--pooling", "mean",
             "--label", "coarse,fine,path", "--device", "cpu")  # fmt: skip
    train: dict[str, Any] = {"device": "cpu", "epochs": 60, "lr": 1e-2, "hidden": [0], "val": 0.3}
    ec.train_run(folder / "c.h5", folder / "run", hierarchy="coarse>fine", **train)
    ec.train_run(folder / "c.h5", folder / "paths", label="path", hierarchy=">", **train)
    ec.train_run(folder / "c.h5", folder / "flat", label="fine", **train)
    return folder


TEXTS = [text for text, _ in REVIEWS[:60]]


def test_every_label_has_its_path(folder: Path) -> None:
    classifier = ec.Classifier.load(folder / "run", "cpu")
    for one in classifier.predict(TEXTS):
        coarse, fine = one.levels
        assert (coarse["level"], fine["level"]) == ("coarse", "fine")
        assert fine["label"] == one.label and coarse["label"][:3] == fine["label"][:3]
        assert fine["probability"] == pytest.approx(one.probabilities[one.label])
        both = [p for name, p in one.probabilities.items() if name[:3] == coarse["label"][:3]]
        assert coarse["probability"] == pytest.approx(sum(both))
    assert not ec.Classifier.load(folder / "flat", "cpu").predict(TEXTS[0])[0].levels


@pytest.mark.parametrize("name", ["run", "paths"])
@pytest.mark.parametrize("sure", [0.4, 0.65])
def test_no_deeper_than_sure(folder: Path, name: str, sure: float) -> None:
    classifier = ec.Classifier.load(folder / name, "cpu", sure=sure)
    plain = ec.Classifier.load(folder / name, "cpu", calibrated=True)
    tree = Hierarchy.of(classifier.run.info)
    assert tree is not None
    every = tree.probabilities(plain.predict_proba(TEXTS))
    depths = set()
    for one, p in zip(classifier.predict(TEXTS), every, strict=True):
        if one.label is None:
            assert (p < sure).all() and one.reason == "unsure" and not one.levels
            continue
        assert one.levels[-1]["label"] == one.label and one.levels[-1]["probability"] >= sure
        deeper = [p[i] for i, path in enumerate(tree.nodes) if len(path) > len(one.levels)]
        assert not deeper or max(deeper) < sure
        depths.add(len(one.levels))
    assert depths >= {1}
    again = pickle.loads(pickle.dumps(classifier))
    assert again.predict(TEXTS) == classifier.predict(TEXTS)


def test_the_promise_is_what_the_validation_rows_do(folder: Path) -> None:
    classifier = ec.Classifier.load(folder / "run", "cpu", sure=0.6)
    tree = classifier.rules["fine"].tree
    assert tree is not None and tree.promise is not None
    promise = tree.promise
    sides = pq.read_table(folder / "run" / "predictions.parquet")["side"].to_pylist()
    rows = [i for i, side in enumerate(sides) if side == "val"]
    with ec.open_cache(folder / "c.h5") as cache:
        vectors, texts = cache.embeddings("mean")[rows], [cache.texts[row] for row in rows]
        codes, names = cache.labels("fine")
        fine = [names[codes[row]] for row in rows]
    assert promise.rows == len(rows)
    found = classifier.label(texts, vectors)
    assert {len(one.levels) for one in found} == {0, 1, 2}
    answered = [(one, gold) for one, gold in zip(found, fine, strict=True) if one.label is not None]
    assert sum(promise.levels.values()) == pytest.approx(len(answered) / len(found))
    deep = [one for one, _ in answered if len(one.levels) == 2]
    assert promise.levels["fine"] == pytest.approx(len(deep) / len(found))
    right = [one.label in (gold, {"pos": "positive", "neg": "negative"}[gold[:3]]) for one, gold in answered]
    assert promise.accuracy == pytest.approx(np.mean(right))
    assert promise.accuracy_interval is not None and promise.accuracy_interval[0] < np.mean(right)
    assert any("the deepest level with a calibrated probability of 0.6 or more" in note for note in classifier.notes)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_levels_in_files(folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    report = document("predict", folder / "run", "--input", folder / "new.csv", "-o", out, "--sure", 0.6)
    names = ["predicted", "predicted_probability", "predicted_reason", "predicted_coarse",
             "predicted_coarse_probability", "predicted_fine", "predicted_fine_probability"]  # fmt: skip
    assert report["predicted"] == names
    if suffix == "csv":
        with out.open(newline="") as file:
            rows = [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)]
    elif suffix == "jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = pq.read_table(out).to_pylist()
    expected = ec.Classifier.load(folder / "run", "cpu", sure=0.6).predict([text for text, _ in REVIEWS])
    for row, one in zip(rows, expected, strict=True):
        assert row["predicted"] == one.label
        on = {step["level"]: step for step in one.levels}
        for level in ("coarse", "fine"):
            step = on.get(level)
            assert row[f"predicted_{level}"] == (step and step["label"])
            said = row[f"predicted_{level}_probability"]
            assert (said is None) == (step is None)
            assert step is None or float(said) == pytest.approx(step["probability"], abs=1e-6)
    counted = {name: count for name, count in report["labels"].items() if count}
    assert counted == {name: sum(row["predicted"] == name for row in rows) for name in counted}
    assert sum(counted.values()) + report["refused"]["fine"]["unsure"] == len(rows)
    assert report["rules"]["fine"]["sure"] == 0.6


def test_a_level_with_the_name_of_another_column_keeps_its_own(tmp_path: Path, folder: Path) -> None:
    from embedcache.heads.kinds import kind_of
    from embedcache.prediction.levels import ClassTree
    from embedcache.prediction.predictions import ColumnOutputs
    from embedcache.prediction.rule import Rule

    tree = ClassTree(Hierarchy(("probability", "fine"), (("x", "a"), ("x", "b"))))
    rule = Rule(kind_of("classification"), tree=tree)
    found = ColumnOutputs("classification", ["a", "b"], np.array([[0.7, 0.3]]), rule).columns("p", probabilities=False)
    assert found["p_probability"].to_pylist() == [0.7] and found["p_probability_2"].to_pylist() == ["x"]


def test_on_the_screen(folder: Path) -> None:
    shown = invoke("predict", folder / "run", TEXTS[0], "--device", "cpu").output
    assert "coarse" in shown and "fine" in shown
    said = document("predict", folder / "paths", TEXTS[0], "--sure", "0.6")[0]
    assert said["label"] is None or said["levels"][-1]["label"] == said["label"]
    assert "labelled" in invoke("predict", folder / "run", folder / "c.h5", "--sure", "0.9").output


def test_what_is_refused(folder: Path) -> None:
    line = fails("predict", folder / "flat", "x", "--sure", 0.6)
    assert "has no levels: train it with --hierarchy, or refuse labels with --reject" in line
    assert "leave it or --reject out" in fails("predict", folder / "run", "x", "--sure", 0.8, "--reject", "auto")
    with pytest.raises(EmbedcacheError, match="between 0 and 1"):
        ec.Classifier.load(folder / "run", "cpu", sure=1.5)
    rejected = ec.Classifier.load(folder / "run", "cpu", reject=0.999).predict(TEXTS)
    assert all(not one.levels for one in rejected if one.label is None) and any(one.label is None for one in rejected)


def test_a_run_without_validation_rows_says_so(folder: Path, tmp_path: Path) -> None:
    train: dict[str, Any] = {"device": "cpu", "epochs": 2, "lr": 1e-2, "seed": [0], "val": 0.0}
    ec.train_run(folder / "c.h5", tmp_path / "r", hierarchy="coarse>fine", **train)
    assert "no validation rows" in ec.Classifier.load(tmp_path / "r", "cpu", sure=0.7).notes[0]


def test_explain_beside_levels(folder: Path) -> None:
    one = ec.Classifier.load(folder / "run", "cpu", sure=0.6).predict(TEXTS[:2], explain=True)[0]
    assert one.explanation is not None and one.explanation["label"].startswith(("pos", "neg"))


def test_serve_answers_levels(folder: Path) -> None:
    from embedcache.serve.service import Service
    from tests.serve.serving import make_client

    service = Service.open(folder / "c.h5", folder / "run", device="cpu")
    try:
        client = make_client(service)
        plain = client.post("/predict", json={"texts": TEXTS[:5]}).json()
        assert [[step["level"] for step in one["levels"]] for one in plain] == [["coarse", "fine"]] * 5
        sure = client.post("/predict", json={"texts": TEXTS, "sure": 0.9}).json()
        expected = ec.Classifier.load(folder / "run", "cpu", sure=0.9).predict(TEXTS)
        assert [one["label"] for one in sure] == [one.label for one in expected]
        assert client.post("/predict", json={"texts": ["x"], "sure": 1.5}).status_code == 422
    finally:
        service.close()


def test_a_narrow_screen_keeps_the_labels_and_the_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = {}
    for width in ("80", "200"):
        monkeypatch.setenv("COLUMNS", width)
        heads[width] = invoke("predict", folder / "run", folder / "c.h5", "--sure", 0.6).stdout.splitlines()[0].split()
    assert heads["80"] == ["row", "predicted", "predicted_coarse", "predicted_fine", "text"]
    assert {"predicted_probability", "predicted_reason"} < set(heads["200"])
