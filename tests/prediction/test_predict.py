"""Labels for new texts: the same vectors as the cache's, the same head, and no other encoder by mistake."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.heads.head import TrainedHead
from embedcache.heads.spec import HeadSpec
from embedcache.prediction.classifier import Classifier
from embedcache.prediction.job import FileReport, predict_file
from embedcache.runs.write_folder import RunFiles, write_columns, write_run
from tests.conftest import make_reviews

CLASSES = ["negative", "positive", "まあまあ"]
TEXTS = ["a superb film", "", "映画は素晴らしかった 🍿", "dull, \"dull\"\nand 'dull' " * 200]


def make_contents(tiny_bert: Path, kind: str, classes: list[str], **best: Any) -> RunFiles:
    """A run's: a random head on the tiny encoder's mean vectors, stored as float16."""
    encoder = Encoder.load(tiny_bert, max_length=64, device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 32), "b1": (16,), "w2": (len(classes), 16), "b2": (len(classes),)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    head = TrainedHead(HeadSpec(hidden=16), weights, classes, best_epoch=1, epochs_run=1, kind=kind)
    vectors = encoder.encode_texts([text for text, _ in make_reviews(60)], [("mean", -1)])[0]
    weights["b2"] -= np.median(head.logits(vectors), axis=0)  # so that the texts differ in their labels
    info = {"encoder": {"source": encoder.source, "identity": encoder.identity}, "classes": classes, "dim": 32}
    best = {"name": "head-000", "hyperparameters": head.spec.to_dict(), "best_epoch": 1, "epochs_run": 1, **best}
    info |= {"pooling": "mean", "layer": -1, "dtype": "float16", "kind": kind, "best": best}
    return RunFiles(info, head, {"head-000": head}, [{"rank": 1, "name": "head-000"}])


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predict") / "run"
    write_run(path, make_contents(tiny_bert, "classification", CLASSES))
    return path


@pytest.fixture(scope="module")
def classifier(run: Path) -> Classifier:
    return Classifier.load(run, "cpu")


def test_every_text_gets_label_and_probabilities(classifier: Classifier) -> None:
    predictions = classifier.predict(TEXTS)
    assert [one.text for one in predictions] == TEXTS
    for one in predictions:
        assert list(one.probabilities) == CLASSES and sum(one.probabilities.values()) == pytest.approx(1)
        assert one.label == max(one.probabilities, key=lambda label: one.probabilities[label])
    assert json.loads(json.dumps(predictions[2].to_dict()))["text"] == TEXTS[2]
    assert classifier.predict([]) == [] and len(classifier.predict("one text")) == 1


def test_vectors_are_the_encoders_as_the_cache_stores_them(classifier: Classifier) -> None:
    vectors = classifier.encode(TEXTS)
    assert vectors.dtype == np.float16
    for text, vector in zip(TEXTS, vectors, strict=True):
        (alone,) = classifier.encoder.encode(classifier.encoder.tokenize([text]).ids, [("mean", -1)])
        assert np.allclose(vector, alone[0], atol=2e-3)
    expected = np.exp(classifier.run.best.predict_log_proba(vectors))
    assert np.allclose(classifier.predict_proba(vectors), expected, atol=1e-6)


def test_a_table_is_labelled(classifier: Classifier, tmp_path: Path) -> None:
    texts = [*TEXTS, *(text for text, _ in make_reviews(60))]
    with (tmp_path / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["review"], *([text] for text in texts)])
    seen: list[tuple[int, int, int]] = []
    report = predict_file(
        classifier, tmp_path / "in.csv", tmp_path / "out.csv", text="review", progress=lambda *at: seen.append(at)
    )
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = classifier.predict(texts)
    assert [row["review"] for row in rows] == texts
    assert [row["predicted"] for row in rows] == [one.label for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert float(row["predicted_probability"]) == pytest.approx(one.probabilities[str(one.label)], abs=1e-3)
    assert report.to_dict().keys() >= {"input", "output", "rows", "truncated", "labels", "seconds"}
    assert (report.rows, report.truncated, sum(report.labels.values())) == (64, 1, 64)
    assert seen[-1][0] == seen[-1][1] == sum(map(len, texts)) and seen[-1][2] == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


TOPICS = ["plot", "actor, actress", "日本"]


@pytest.fixture(scope="module")
def several(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three label columns: lists, a number, a class."""
    path = tmp_path_factory.mktemp("several") / "run"
    contents = {
        "topics": make_contents(tiny_bert, "multilabel", TOPICS, temperature=2.0),
        "price": make_contents(tiny_bert, "regression", ["price"]),
        "label": make_contents(tiny_bert, "classification", CLASSES, temperature=0.5),
    }
    write_columns(path, {"encoder": contents["topics"].info["encoder"]}, contents)
    return path


def label_file(classifier: Classifier, folder: Path, texts: list[str]) -> tuple[FileReport, list[dict[str, str]]]:
    with (folder / "in.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    report = predict_file(classifier, folder / "in.csv", folder / "out.csv")
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        return report, list(csv.DictReader(file))


def test_lists_of_labels(several: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(several / "topics", "cpu")
    texts = [text for text, _ in make_reviews(60)]
    predictions = classifier.predict(texts)
    logits = classifier.run.best.logits(classifier.encode(texts))
    assert {len(one.label) for one in predictions if isinstance(one.label, list)} == {0, 1, 2, 3}
    for one, row in zip(predictions, logits, strict=True):
        assert one.label == [name for name, z in zip(TOPICS, row, strict=True) if z > 0]
        assert list(one.probabilities.values()) == pytest.approx(1 / (1 + np.exp(-row.astype(float))))
        assert "columns" not in one.to_dict() and json.dumps(one.to_dict(), allow_nan=False)
    report, rows = label_file(classifier, tmp_path, texts)
    assert list(rows[0]) == ["text", "predicted", "predicted_probability"]
    for row, one in zip(rows, predictions, strict=True):
        assert json.loads(row["predicted"]) == one.label
        expected = [one.probabilities[label] for label in one.label] if isinstance(one.label, list) else None
        assert json.loads(row["predicted_probability"]) == pytest.approx(expected, abs=2e-3)
    assert report.labels == {name: sum(name in json.loads(row["predicted"]) for row in rows) for name in TOPICS}
    assert "columns" not in report.to_dict()


def test_values(several: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(several / "price", "cpu", calibrated=True)  # without classes, nothing to calibrate
    texts = [text for text, _ in make_reviews(20)]
    predictions = classifier.predict(texts)
    values = classifier.run.best.predict(classifier.encode(texts))
    assert np.array([one.label for one in predictions], np.float32).tolist() == values.tolist()
    assert all(one.probabilities == {} and len(repr(one.label)) < 12 for one in predictions)
    report, rows = label_file(classifier, tmp_path, texts)
    assert [float(row["predicted"]) for row in rows] == pytest.approx([one.label for one in predictions], abs=2e-2)
    assert list(rows[0]) == ["text", "predicted"] and report.labels == {}
    with pytest.raises(EmbedcacheError, match="no probabilities"):
        classifier.predict_proba(classifier.encode(texts))


def test_a_run_of_several_columns(several: Path, tmp_path: Path) -> None:
    classifier = Classifier.load(several, "cpu")
    predictions = classifier.predict(TEXTS)
    for column in ("topics", "price", "label"):
        for one, alone in zip(predictions, Classifier.load(several / column, "cpu").predict(TEXTS), strict=True):
            assert one.columns[column] == {"label": alone.label, "probabilities": alone.probabilities}
    assert list(predictions[0].to_dict()["columns"]) == ["topics", "price", "label"]
    assert all(one.label == one.columns["topics"]["label"] for one in predictions)
    report, rows = label_file(classifier, tmp_path, TEXTS)
    names = [name for column in ("topics", "price", "label") for name in (column, f"{column}_probability")]
    names = [f"predicted_{name}" for name in names if name != "price_probability"]
    assert list(rows[0]) == ["text", *names] and report.predicted == names
    assert [row["predicted_label"] for row in rows] == [one.columns["label"]["label"] for one in predictions]
    assert list(report.columns) == ["topics", "price", "label"] and report.labels == report.columns["topics"]
    assert sum(report.columns["label"].values()) == len(TEXTS) and report.columns["price"] == {}


def test_calibrated_probabilities(several: Path, run: Path, classifier: Classifier) -> None:
    plain, calibrated = (Classifier.load(several, "cpu", calibrated=one) for one in (False, True))
    vectors = plain.encode(TEXTS)
    before, after = plain.answers(vectors), calibrated.answers(vectors)
    logits = {column: one.best.logits(vectors).astype(float) for column, one in plain.run.columns.items()}
    np.testing.assert_allclose(after["topics"].outputs, 1 / (1 + np.exp(-logits["topics"] / 2)))
    scaled = np.exp(logits["label"] / 0.5)
    np.testing.assert_allclose(after["label"].outputs, scaled / scaled.sum(1, keepdims=True))
    np.testing.assert_array_equal(after["price"].outputs, before["price"].outputs)
    assert all(before[name].label(i) == after[name].label(i) for name in before for i in range(len(TEXTS)))
    with pytest.raises(EmbedcacheError, match=r"run has no temperature: .* leave out --calibrated"):
        Classifier.load(run, "cpu", calibrated=True)


def test_a_temperature_that_does_harm_is_said(tiny_bert: Path, tmp_path: Path) -> None:
    contents = make_contents(tiny_bert, "classification", CLASSES, temperature=2.0)
    per_class = [{"label": name, "precision": 1, "recall": 1, "f1": 1, "support": 1} for name in CLASSES]
    calibration = {"ece": 0.05, "ece_adaptive": 0.05, "brier": 0.2, "loss": 0.5}
    for after, said in ((0.133, True), (0.052, False)):
        test = {"kind": "classification", "rows": 3, "per_class": per_class, "calibration": calibration}
        test |= {"calibration_scaled": {**calibration, "ece": after}}
        contents.info["evaluation"] = {"val": None, "test": test}
        write_run(tmp_path / "run", contents)
        assert Classifier.load(tmp_path / "run", "cpu").notes == []
        notes = Classifier.load(tmp_path / "run", "cpu", calibrated=True).notes
        assert bool(notes) == said and all("ECE 0.050, 0.133 with it" in note for note in notes)


def test_output_is_whole_or_absent(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\nfine\n")
    with pytest.raises(EmbedcacheError, match="is the input"):
        predict_file(classifier, source, source)
    with pytest.raises(EmbedcacheError, match="is a folder"):
        predict_file(classifier, source, tmp_path)
    with pytest.raises(EmbedcacheError, match=r"no[/\\]out\.csv"):
        predict_file(classifier, source, tmp_path / "no" / "out.csv")
    with pytest.raises(EmbedcacheError, match=r"in\.csv[/\\]out\.csv"):
        predict_file(classifier, source, source / "out.csv")
    with pytest.raises(EmbedcacheError, match="'review'"):
        predict_file(classifier, source, tmp_path / "out.csv", text="review")
    (tmp_path / "out.csv").write_text("before")
    monkeypatch.setattr(classifier, "answers", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_file(classifier, source, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_another_encoder_is_refused(run: Path, tiny_bert: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_bert, tmp_path / "other"))
    moved = Classifier.load(run, "cpu", model=other)
    assert moved.predict(["fine"])[0].label in CLASSES
    data = bytearray((other / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (other / "model.safetensors").write_bytes(data)
    with pytest.raises(EmbedcacheError, match=r"model\.safetensors changed"):
        Classifier.load(run, "cpu", model=other)


def test_an_encoder_that_is_gone(run: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="--model FOLDER"):
        Classifier.load(run, "cpu", model=tmp_path / "gone")
    with pytest.raises(EmbedcacheError, match=r"use auto, cpu, cuda or cuda:N$"):
        Classifier.load(run, "gpu")


@pytest.mark.parametrize("key", ["encoder", "pooling", "dtype"])
def test_a_run_json_that_lacks_something(run: Path, tmp_path: Path, key: str) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    info = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    del info[key]
    (copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(EmbedcacheError, match=rf"run\.json is damaged: {key} is missing"):
        Classifier.load(copy, "cpu")


def test_predictions_of_several_columns_are_a_table(several: Path) -> None:
    texts = [text for text, _ in make_reviews(40)]
    predictions = Classifier.load(several, "cpu").predict(texts)
    assert predictions.labels == [one.label for one in predictions] and predictions[3].columns.keys() == {
        "topics", "price", "label"
    }  # fmt: skip
    table = predictions.to_arrow(probabilities=True)
    chances = [f"predicted_label_probability_{name}" for name in CLASSES]
    assert table.column_names == [
        "text", "predicted_topics", "predicted_topics_probability",
        *(f"predicted_topics_probability_{name}" for name in TOPICS),
        "predicted_price", "predicted_label", "predicted_label_probability", *chances,
    ]  # fmt: skip
    for line, one in zip(table.to_pylist(), predictions, strict=True):
        for column in ("topics", "price", "label"):
            assert line[f"predicted_{column}"] == pytest.approx(one.columns[column]["label"])
        said = one.columns["topics"]
        assert line["predicted_topics_probability"] == [said["probabilities"][name] for name in said["label"]]
        assert [line[name] for name in chances] == list(one.columns["label"]["probabilities"].values())
    assert any(not one.label for one in predictions) and any(one.label for one in predictions)
    assert len(predictions.to_pandas()) == 40 and predictions._repr_html_().count("<tr>") == 11
    assert predictions.counts == {name: sum(name in one for one in predictions.labels) for name in TOPICS}


def test_probabilities_of_one_of_several_columns(several: Path) -> None:
    classifier = Classifier.load(several, "cpu")
    found = classifier.predict_proba(["a superb film"], column="label")
    assert found.tolist() == [list(classifier.predict("a superb film")[0].columns["label"]["probabilities"].values())]
    assert classifier.predict_proba("a superb film").shape == (1, len(TOPICS))
    with pytest.raises(EmbedcacheError, match="no label column 'genre'; it has topics, price, label"):
        classifier.predict_proba("a superb film", column="genre")
    with pytest.raises(EmbedcacheError, match="a regression, which has no probabilities"):
        classifier.predict_proba("a superb film", column="price")
