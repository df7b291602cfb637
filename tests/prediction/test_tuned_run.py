"""Thresholds, refusals and explanations of a tuned run, whose vectors no cache has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import embedcache as ec
from embedcache.prediction.explain import parts_of, without
from tests.conftest import document, invoke, write_csv
from tests.finetune.token_caches import make_token_cache

TEXTS = ["a fine film", "dull and slow", "not the best story, and the worst ending"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    folder = tmp_path_factory.mktemp("tuned")
    cache = make_token_cache(folder, tiny_bert, n=160)
    ec.finetune(cache, folder / "run", epochs=2, lr=1e-3, val=0.3, seed=0)
    return folder / "run"


def test_rows_are_refused_by_their_probability_alone(run: Path) -> None:
    plain = ec.Classifier.load(run, calibrated=True).predict(TEXTS)
    sure = [max(one.probabilities.values()) for one in plain]
    least = float(np.median(sure))
    classifier = ec.Classifier.load(run, reject=least)
    found = classifier.predict(TEXTS)
    assert [one.label for one in found] == [
        one.label if p >= least else None for one, p in zip(plain, sure, strict=True)
    ]
    assert {one.reason for one in found} == {"", "unsure"}
    assert any("a tuned run knows no distance to its training rows" in line for line in classifier.notes)
    auto = ec.Classifier.load(run, reject="auto")
    assert all(one.reason in ("", "unsure") for one in auto.predict(TEXTS))


def test_a_threshold_is_tuned_on_its_validation_rows(run: Path) -> None:
    tuned = ec.Classifier.load(run, threshold="tuned")
    (cut,) = ec.load_run(run).info["thresholds"]  # of the second class
    p = tuned.predict_proba(TEXTS)[:, 1]
    assert [one.label for one in tuned.predict(TEXTS)] == [tuned.classes[int(one >= cut["threshold"])] for one in p]


def test_its_words_are_those_of_the_tuned_encoder(run: Path, tmp_path: Path) -> None:
    classifier = ec.Classifier.load(run)
    (one,) = classifier.predict(TEXTS[2:], explain=True)
    why = one.explanation
    assert why is not None and why["supporting"] == why["opposing"] == [] and why["nearest"] == 0
    assert "is a tuned run" in classifier.no_neighbours
    label = classifier.classes.index(one.label)
    without_it = {part: without(TEXTS[2], part) for part in parts_of(TEXTS[2])}
    rest = classifier.predict_proba(list(without_it.values()))[:, label]
    effects = dict(zip(without_it, one.probabilities[one.label] - rest, strict=True))
    for word in why["words"]:
        assert word["effect"] == pytest.approx(effects[word["start"], word["end"]], abs=1e-5)
    write_csv(tmp_path / "new.csv", [(text, "positive") for text in TEXTS], ("text", "label"))
    done = document("predict", run, "--input", tmp_path / "new.csv", "-o", tmp_path / "p.parquet", "--explain")
    assert done["rows"] == len(TEXTS) and "predicted_words" in pq.read_table(tmp_path / "p.parquet").column_names
    shown = invoke("predict", run, TEXTS[0], "--explain", "--reject", "auto")
    assert "is a tuned run" in shown.stderr + shown.stdout
