"""--explain: effects against deletion by hand, neighbours against all cosines, and where explanations come out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.cache import open_cache
from embedcache.errors import EmbedcacheError
from embedcache.prediction import explain
from embedcache.prediction.explain import MOST_PARTS, NAMED, NEAREST, parts_of, without
from tests.conftest import document, invoke, make_reviews, write_csv

TEXTS = [text for text, _ in make_reviews(5)] + ["", "!?", "superb", "don't miss this well-made film"]


@pytest.fixture(scope="module")
def classifier(made: Path) -> ec.Classifier:
    return ec.Classifier.load(made / "run", "cpu")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's a well-made film, isn\u2019t it?", ["It's", "a", "well-made", "film", "isn\u2019t", "it"]),
        ("映画は良い film", [*"映画は良い", "film"]),
        ("ดี มาก", ["ด", "ี", "ม", "า", "ก"]),
        ("Ужасно 😴 скучно", ["Ужасно", "скучно"]),
        (" \n!? ", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in parts_of(text)] == words


def test_of_many_words_runs_are_deleted() -> None:
    text = " ".join(f"w{i}" for i in range(MOST_PARTS * 3 + 1))
    parts = parts_of(text)
    assert len(parts) == MOST_PARTS and parts[0][0] == 0 and parts[-1][1] == len(text)
    assert " ".join(text[start:end] for start, end in parts) == text
    assert without("a (good) film", (3, 7)) == "a () film" and without("a good film", (2, 6)) == "a film"


def test_an_effect_is_what_the_deletion_costs(classifier: ec.Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedcache.prediction.classifier.EXPLAINED", 5)  # several passes
    found = classifier.predict(TEXTS, explain=True)
    assert found.labels == classifier.predict(TEXTS).labels
    for text, one in zip(TEXTS, found, strict=True):
        why = one.explanation
        assert why is not None and why["label"] == one.label
        whole = one.probabilities[one.label]
        parts = parts_of(text)
        alone = classifier.predict([without(text, part) for part in parts])
        every = {part: whole - other.probabilities[one.label] for part, other in zip(parts, alone, strict=True)}
        effects = [word["effect"] for word in why["words"]]
        assert effects == sorted(effects, reverse=True) and len(effects) == min(explain.SHOWN, len(every))
        for word in why["words"]:
            assert text[word["start"] : word["end"]] == word["word"]
            assert word["effect"] == pytest.approx(every[word["start"], word["end"]], abs=2e-3)
        left = sorted(map(abs, every.values()), reverse=True)[: len(effects)]
        np.testing.assert_allclose(sorted(map(abs, effects), reverse=True), left, atol=2e-3)


def test_neighbours_are_the_nearest_training_rows(classifier: ec.Classifier, made: Path) -> None:
    texts = TEXTS[:4]
    sides = pq.read_table(made / "run" / "predictions.parquet", columns=["side", "label"]).to_pydict()
    with open_cache(made / "reviews.h5") as cache:
        x = np.asarray(cache.embeddings(classifier.run.info["pooling"]), np.float64)
        known = list(cache.texts)
    train = np.array([i for i, side in enumerate(sides["side"]) if side == "train"])
    q = classifier.encode(texts).astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ unit[train].T
    for row, one in zip(cosines, classifier.predict(texts, explain=True), strict=True):
        why = one.explanation
        assert why is not None
        nearest = np.argsort(-row)[:NEAREST]
        has = np.array([sides["label"][train[i]] == one.label for i in nearest])
        assert abs(why["agreeing"] - has.sum()) <= 1 and why["nearest"] == NEAREST  # a tie at the end
        for title, some in (("supporting", nearest[has]), ("opposing", nearest[~has])):
            expected = row[some[:NAMED]]
            np.testing.assert_allclose([r["similarity"] for r in why[title]], expected, atol=2e-3)
            for r in why[title]:
                assert r["row"] in train and r["text"] == known[r["row"]] and r["label"] == sides["label"][r["row"]]


def test_tables_have_words_and_rows(made: Path, tmp_path: Path, classifier: ec.Classifier) -> None:
    write_csv(tmp_path / "in.csv", [(text,) for text in TEXTS], ("text",))
    report = document(
        "predict", made / "run", "--input", tmp_path / "in.csv", "-o", tmp_path / "o.parquet", "--explain"
    )
    names = [f"predicted{end}" for end in ("", "_probability", "_words", "_effects", "_for", "_against")]
    assert report["predicted"] == names
    rows = pq.read_table(tmp_path / "o.parquet").to_pylist()
    for row, one in zip(rows, classifier.predict(TEXTS, explain=True), strict=True):
        carrying = [word for word in one.explanation["words"] if word["effect"] > 0]
        assert row["predicted_words"] == [word["word"] for word in carrying]
        assert row["predicted_effects"] == pytest.approx([word["effect"] for word in carrying], abs=1e-5)
        assert row["predicted_for"] == [near["row"] for near in one.explanation["supporting"]]
        assert row["predicted_against"] == [near["row"] for near in one.explanation["opposing"]]
    few = ["--where", "film=film 1", "--explain", "--reject", "auto"]
    document("predict", made / "run", made / "reviews.h5", "-o", tmp_path / "c.csv", *few)
    header = (tmp_path / "c.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header.endswith("predicted,predicted_probability,predicted_reason,predicted_words,predicted_effects,"
                           "predicted_for,predicted_against")  # fmt: skip


def test_the_screen_and_a_run_without_its_cache(made: Path, tmp_path: Path) -> None:
    shown = invoke("predict", made / "run", "a superb film", "--explain")
    assert "without each word it loses: " in shown.stdout and "nearest training rows have this label" in shown.stdout
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    info = (run / "run.json").read_text(encoding="utf-8")
    names = [json.dumps(str(path)) for path in (made / "reviews.h5", tmp_path / "gone.h5")]
    assert names[0] in info
    (run / "run.json").write_text(info.replace(*names), encoding="utf-8")
    alone = invoke("predict", run, "a superb film", "--explain")
    assert alone.exit_code == 0 and "without each word it loses: " in alone.stdout
    assert "no training rows are named: " in alone.stderr and "gone.h5" in alone.stderr
    assert "like row" not in alone.stdout
    with pytest.raises(EmbedcacheError, match="no words to explain"):
        ec.Classifier.load(run, "cpu").predict(vectors=np.ones((1, 32), np.float32), explain=True)
