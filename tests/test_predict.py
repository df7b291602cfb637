"""Labels for new texts: the same vectors as the cache's, the same head, and no other encoder by mistake."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.heads.run import Contents, write_run
from embedcache.heads.spec import HeadSpec
from embedcache.heads.trained import TrainedHead
from embedcache.predict import Classifier, predict_file
from tests.conftest import make_reviews

CLASSES = ["negative", "positive", "まあまあ"]
TEXTS = ["a superb film", "", "映画は素晴らしかった 🍿", "dull, \"dull\"\nand 'dull' " * 200]


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a random head on the tiny encoder's mean vectors, stored as float16."""
    path = tmp_path_factory.mktemp("predict") / "run"
    encoder = Encoder.load(tiny_bert, max_length=64, device="cpu", dtype="float32")
    rng = np.random.default_rng(0)
    shapes = {"w1": (16, 32), "b1": (16,), "w2": (3, 16), "b2": (3,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    head = TrainedHead(HeadSpec(hidden=16), weights, CLASSES, best_epoch=0, epochs_run=1)
    info = {"encoder": {"source": encoder.source, "identity": encoder.identity}, "classes": CLASSES, "dim": 32}
    info |= {"pooling": "mean", "layer": -1, "dtype": "float16"}
    write_run(path, Contents(info, head, {"head-000": head}, [{"rank": 1, "name": "head-000"}]))
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
    assert [row["text"] for row in rows] == texts
    assert [row["label"] for row in rows] == [one.label for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert float(row["probability"]) == pytest.approx(one.probabilities[one.label], abs=1e-3)
    assert report.to_dict().keys() >= {"input", "output", "rows", "truncated", "labels", "seconds"}
    assert (report.rows, report.truncated, sum(report.labels.values())) == (64, 1, 64)
    assert seen[-1][0] == seen[-1][1] == sum(map(len, texts)) and seen[-1][2] == 64
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_output_is_whole_or_absent(classifier: Classifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\nfine\n")
    with pytest.raises(EmbedcacheError, match="is the input"):
        predict_file(classifier, source, source)
    with pytest.raises(EmbedcacheError, match="is a folder"):
        predict_file(classifier, source, tmp_path)
    with pytest.raises(EmbedcacheError, match=r"no/out\.csv"):
        predict_file(classifier, source, tmp_path / "no" / "out.csv")
    with pytest.raises(EmbedcacheError, match=r"in\.csv/out\.csv"):
        predict_file(classifier, source, source / "out.csv")
    with pytest.raises(EmbedcacheError, match="'review'"):
        predict_file(classifier, source, tmp_path / "out.csv", text="review")
    (tmp_path / "out.csv").write_text("before")
    monkeypatch.setattr(classifier, "predict_proba", lambda _: 1 / 0)
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
    info = json.loads((copy / "run.json").read_text())
    del info[key]
    (copy / "run.json").write_text(json.dumps(info))
    with pytest.raises(EmbedcacheError, match=rf"run\.json is damaged: it lacks '{key}'"):
        Classifier.load(copy, "cpu")
