"""--threshold and --reject: which rows get which label, what is promised, in every place where labels come out."""

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
from embedcache.heads.kinds import kind_of
from embedcache.prediction.rule import REASONS, Rule, refusing
from embedcache.runs.calibration_set import CalibrationSet, Familiar
from tests.conftest import document, fails, invoke, make_reviews, write_csv

REVIEWS = make_reviews(600)
CLASSES = ["negative", "positive"]


@pytest.fixture(scope="module")
def folder(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """reviews.csv, c.h5, run of label (two classes), topics (lists), numbers (a regression), three (classes)."""
    folder = tmp_path_factory.mktemp("rules")
    rng = np.random.default_rng(0)
    flip = rng.random(len(REVIEWS)) < 0.15  # labels that no head can know
    rows = []
    for i, (text, label) in enumerate(REVIEWS):
        label = CLASSES[1 - CLASSES.index(label)] if flip[i] else label
        topics = [label, *(["long"] if len(text.split()) > 20 else [])]
        rows.append((text, label, json.dumps(topics), str(len(text)), f"c{i % 3}", f"film {i // 4}"))
    write_csv(folder / "reviews.csv", rows, ("text", "label", "topics", "stars", "three", "film"))
    document(
        "extract", folder / "reviews.csv", "-o", folder / "c.h5", "--model", tiny_bert, "--pooling", "mean",
        "--label", "label,topics,stars,three", "--keep", "film", "--device", "cpu",
    )  # fmt: skip
    train: dict[str, Any] = {"device": "cpu", "epochs": 8, "lr": 1e-2, "seed": [0], "val": 0.3, "test": 0.2}
    for run, label, more in (
        ("run", "label", {"group": "film"}),
        ("topics", "topics", {}),
        ("numbers", "stars", {"task": "regression"}),
        ("three", "three", {}),
        ("both", ["label", "stars"], {"task": "stars=regression"}),
    ):
        ec.train_run(folder / "c.h5", folder / run, label=label, **train, **more)
    return folder


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for text, _ in REVIEWS[:80]]


# ---- thresholds ----


def test_a_threshold_is_of_the_second_class(folder: Path, texts: list[str]) -> None:
    p = ec.Classifier.load(folder / "run", "cpu").predict_proba(texts)[:, 1]
    middle = float(np.median(p))
    found = ec.Classifier.load(folder / "run", "cpu", threshold=middle).predict(texts)
    assert [one.label for one in found] == [CLASSES[int(one >= middle)] for one in p]
    assert found.counts == {"negative": int((p < middle).sum()), "positive": int((p >= middle).sum())}
    arrow = found.to_arrow()
    assert arrow["predicted_probability"].to_pylist() == pytest.approx(np.where(p >= middle, p, 1 - p))


def test_tuned_thresholds_are_those_of_the_run_at_any_temperature(folder: Path, texts: list[str]) -> None:
    (tuned,) = json.loads((folder / "run" / "run.json").read_text())["thresholds"]
    plain = ec.Classifier.load(folder / "run", "cpu").predict_proba(texts)[:, 1]
    expected = [CLASSES[int(one >= tuned["threshold"])] for one in plain]
    for calibrated in (False, True):
        one = ec.Classifier.load(folder / "run", "cpu", threshold="tuned", calibrated=calibrated)
        assert one.predict(texts).labels == expected
        (note, *_) = one.notes
        assert f"accuracy {tuned['val_accuracy_at_half']:.4f} at 1/2 and {tuned['val_accuracy']:.4f} there" in note
        assert f"{tuned['test_accuracy']:.4f} there on the test rows" in note
        assert pickle.loads(pickle.dumps(one)).predict(texts).labels == expected
    of = {one["label"]: one["threshold"] for one in json.loads((folder / "topics/run.json").read_text())["thresholds"]}
    classifier = ec.Classifier.load(folder / "topics", "cpu", threshold="tuned")
    p = classifier.predict_proba(texts)
    for row, one in zip(p, classifier.predict(texts), strict=True):
        assert one.label == [name for name, value in zip(classifier.classes, row, strict=True) if value >= of[name]]


# ---- rows that are refused ----


def make_known(n: int, seed: int = 0) -> CalibrationSet:
    """Validation rows whose outputs are calibrated: label 1 with the probability that they say."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n) * 2
    y = (rng.random(n) < 1 / (1 + np.exp(-z))).astype(np.int64)
    vectors = rng.normal(size=(n, 4))
    familiar = Familiar.of(rng.normal(size=(50, 4)))
    outputs = np.stack([np.zeros(n), z], axis=1).astype(np.float32)
    return CalibrationSet(y, outputs, None, familiar, familiar.distances(vectors))


def test_auto_halves_the_errors_and_keeps_what_it_can() -> None:
    known = make_known(4000)
    rule = refusing(Rule(kind_of("classification")), known, "auto", 1.0)
    p = 1 / (1 + np.exp(-known.outputs[:, 1].astype(float)))
    sure, right = np.maximum(p, 1 - p), (p > 0.5) == known.y
    near = known.distances <= rule.farthest
    assert near.mean() == pytest.approx(0.95, abs=0.002)
    promise = rule.promise
    assert promise is not None and rule.least is not None and promise.rows == 4000 and promise.groups is None
    kept = near & (sure >= rule.least)
    assert promise.kept == pytest.approx(kept.mean()) and promise.accuracy == pytest.approx(right[kept].mean())
    assert 1 - promise.accuracy <= (1 - right.mean()) / 2
    for limit in np.sort(sure[near & (sure < rule.least)])[-200:]:  # a lower limit would not do
        assert (~right[near & (sure >= limit)]).mean() > (1 - right.mean()) / 2


def test_what_is_promised_holds_on_rows_like_those_of_validation() -> None:
    """The head and its calibration are fixed here, so that an interval of 95% holds as often as it says."""
    truth = make_known(100_000, seed=99)
    p = 1 / (1 + np.exp(-truth.outputs[:, 1].astype(float)))
    outputs = np.stack([1 - p, p], axis=1)
    right = (p > 0.5) == truth.y
    inside = []
    for seed in range(100):
        rule = refusing(Rule(kind_of("classification")), make_known(300, seed), 0.8, 1.0)
        kept = (np.maximum(p, 1 - p) >= 0.8) & (truth.distances <= rule.farthest)
        assert rule.promise is not None and rule.promise.accuracy_interval is not None
        low, high = rule.promise.accuracy_interval
        inside.append(low <= right[kept].mean() <= high)
    assert np.mean(inside) >= 0.91
    assert rule.reasons(outputs[:0], np.zeros((0, 4))).tolist() == []


def test_refused_rows_have_no_label_and_a_reason(folder: Path, texts: list[str]) -> None:
    calibrated = ec.Classifier.load(folder / "run", "cpu", calibrated=True)
    p = calibrated.predict_proba(texts).max(axis=1)
    limit = float(np.median(p))
    found = ec.Classifier.load(folder / "run", "cpu", reject=limit).predict(texts)
    for one, sure in zip(found, p, strict=True):
        assert (one.label is None) == (one.reason != "") and (one.reason != "unsure" or sure < limit)
        assert one.label is None or sure >= limit
        assert ("reason" in one.to_dict()) == (one.label is None)
    refused = found.refused
    assert list(refused) == list(REASONS[1:]) and refused["unsure"] > 0 and sum(refused.values()) < len(texts)
    assert sum(found.counts.values()) + sum(refused.values()) == len(texts)
    assert found[:7].refused != refused and [one.label for one in found[:7]] == found.labels[:7]
    far = ec.Classifier.load(folder / "run", "cpu", reject=0.5).predict(vectors=-calibrated.encode(texts))
    assert far.refused["unfamiliar"] == len(texts)  # the opposite direction of every training row


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_files_have_an_empty_label_and_the_reason(folder: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    report = document("predict", folder / "run", folder / "c.h5", "-o", out, "--reject", "auto", "--threshold", "tuned")
    assert report["predicted"] == ["predicted", "predicted_probability", "predicted_reason"]
    promise = report["rules"]["label"]["promise"]
    assert promise["kept_interval"][0] <= promise["kept"] <= promise["kept_interval"][1]
    if suffix == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif suffix == ".csv":
        with out.open(encoding="utf-8", newline="") as file:
            rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]
    else:
        rows = list(map(json.loads, out.read_text().splitlines()))
    assert all((row["predicted"] is None) == bool(row["predicted_reason"]) for row in rows)
    refused = report["refused"]["label"]
    assert sum(row["predicted"] is None for row in rows) == sum(refused.values()) > 0
    assert sum(report["labels"].values()) == len(rows) - sum(refused.values())
    assert all(float(row["predicted_probability"]) > 0 for row in rows)


def test_a_run_with_numbers_refuses_where_there_are_labels(folder: Path, tmp_path: Path) -> None:
    report = document("predict", folder / "both", folder / "c.h5", "-o", tmp_path / "o.csv", "--reject", "0.55")
    assert report["predicted"] == [
        "predicted_label", "predicted_label_probability", "predicted_label_reason", "predicted_stars",
    ]  # fmt: skip
    assert list(report["refused"]) == list(report["rules"]) == ["label"]


def test_the_screen_says_what_was_chosen(folder: Path, tmp_path: Path) -> None:
    result = invoke("predict", folder / "run", "a great film", "--reject", "auto", "--threshold", "tuned")
    assert result.exit_code == 0
    assert "tuned on the validation rows: accuracy" in result.stderr and "of those are right" in result.stderr
    assert "groups)" in result.stderr  # of films
    shown = invoke("predict", folder / "run", folder / "c.h5", "-o", tmp_path / "o.csv", "--reject", "0.99")
    assert "without a label" in shown.stdout and "unsure" in shown.stdout
    labelled = invoke("predict", folder / "run", "a great film", "--reject", "0.999999")
    assert "(unsure)" in labelled.stdout or "(unfamiliar)" in labelled.stdout


@pytest.mark.parametrize(
    ("run", "options", "code", "said"),
    [
        ("run", ["--reject", "1"], 2, "neither auto nor a number above 0 to below 1"),
        ("run", ["--threshold", "auto"], 2, "neither tuned nor a number"),
        ("numbers", ["--reject", "0.5"], 1, "predicts numbers, which have no probability"),
        ("three", ["--threshold", "tuned"], 1, "no column of two classes or of several labels a row"),
        ("numbers", ["--threshold", "0.4"], 1, "no column of two classes"),
    ],
)
def test_what_cannot_be(folder: Path, run: str, options: list[str], code: int, said: str) -> None:
    assert said in fails("predict", folder / run, "a great film", *options, code=code)


def test_what_a_run_does_not_know(folder: Path, tmp_path: Path) -> None:
    ec.train_run(folder / "c.h5", tmp_path / "run", label="label", val=0.0, device="cpu", epochs=1)
    assert "without validation rows" in fails("predict", tmp_path / "run", "fine", "--reject", "auto")
    assert "no thresholds" in fails("predict", tmp_path / "run", "fine", "--threshold", "tuned")
    with pytest.raises(EmbedcacheError, match="between 0 and 1, or auto"):
        ec.Classifier.load(folder / "run", "cpu", reject=2)
