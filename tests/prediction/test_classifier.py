"""A classifier in other hands: pickled, copied, in other processes; and everything that is a text, or is not."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import embedcache as ec
from embedcache.errors import EmbedcacheError
from embedcache.prediction.classifier import Classifier, Predictions
from tests.conftest import document

TEXTS = ["a superb film", "boring and slow", "the best horror"]
FRAME = pd.DataFrame({"n": [1, 2, 3], "text": TEXTS})
GLOBAL: list[Classifier] = []  # what a fork inherits


@pytest.fixture(scope="module")
def classifier(made: Path) -> Classifier:
    return Classifier.load(made / "run", "cpu")


@pytest.fixture(scope="module")
def expected(classifier: Classifier) -> np.ndarray:
    return np.array([list(one.probabilities.values()) for one in classifier.predict(TEXTS)])


# ---- in other hands ----


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickled(classifier: Classifier, expected: np.ndarray, protocol: int) -> None:
    data = pickle.dumps(classifier, protocol)
    assert len(data) < 2000, "where it is, not what it is"
    again = pickle.loads(data)
    assert again.predict_proba(TEXTS).tolist() == expected.tolist()
    assert again.predict(TEXTS) == classifier.predict(TEXTS) == pickle.loads(pickle.dumps(classifier.predict(TEXTS)))


def test_copied(classifier: Classifier, expected: np.ndarray) -> None:
    for other in (copy.copy(classifier), copy.deepcopy(classifier)):
        assert other.predict_proba(TEXTS).tolist() == expected.tolist()
    assert other.run is not classifier.run and other.run.columns["label"] is other.run
    other.run.best.weights["w2"][:] = 0
    assert classifier.predict_proba(TEXTS).tolist() == expected.tolist()


@pytest.mark.parametrize("method", sorted({"spawn", "fork"} & set(multiprocessing.get_all_start_methods())))
def test_in_other_processes(classifier: Classifier, expected: np.ndarray, method: str) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        found = list(pool.map(classifier.predict_proba, TEXTS, timeout=120))
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-6)


def _of_the_parent(text: str) -> list[list[float]]:
    return GLOBAL[0].predict_proba(text).tolist()


def test_a_fork_may_use_its_parents(classifier: Classifier, expected: np.ndarray) -> None:
    """Its threads are not there any more; nothing waits for them."""
    classifier.predict(TEXTS * 50)
    GLOBAL[:] = [classifier]
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(_of_the_parent, TEXTS, timeout=120))
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-6)


def test_by_joblib(classifier: Classifier, expected: np.ndarray) -> None:
    work = (joblib.delayed(classifier.predict)([text]) for text in TEXTS)
    found = joblib.Parallel(n_jobs=2)(work)
    assert [one.label for part in found for one in part] == [one.label for one in classifier.predict(TEXTS)]


def test_options_come_along(made: Path, tmp_path: Path, tiny_bert: Path) -> None:
    moved = shutil.copytree(tiny_bert, tmp_path / "moved")
    calibrated = Classifier.load(made / "run", "cpu", model=moved, calibrated=True)
    again = pickle.loads(pickle.dumps(calibrated))
    assert again.encoder.source == str(moved) and again.calibrated
    assert again.predict_proba(TEXTS).tolist() == calibrated.predict_proba(TEXTS).tolist()
    assert again.predict_proba(TEXTS).tolist() != Classifier.load(made / "run", "cpu").predict_proba(TEXTS).tolist()


def test_another_run_at_its_place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(Classifier.load("run", "cpu"))
    monkeypatch.chdir("/")
    assert pickle.loads(data).run.path == tmp_path / "run"
    document("train-head", made / "reviews.h5", "-o", tmp_path / "run", "--lr", "1e-3", "--epochs", "1")
    with pytest.raises(EmbedcacheError, match=r"has been trained again since this .*Classifier\.load"):
        pickle.loads(data)
    (tmp_path / "run" / "best.safetensors").write_bytes(b"no weights")
    with pytest.raises(EmbedcacheError, match=r"best\.safetensors is damaged"):
        pickle.loads(data)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(EmbedcacheError, match="no run at"):
        pickle.loads(data)


# ---- what is a text ----


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        tuple(TEXTS),
        FRAME["text"],
        FRAME["text"].astype(object),
        FRAME["text"].astype("category"),
        FRAME["text"].to_numpy(),
        FRAME["text"].set_axis([7, 7, 9]),
        np.array(TEXTS),
        np.array(TEXTS, dtype=object),
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
        pa.array(TEXTS).dictionary_encode(),
        dict.fromkeys(TEXTS, 0).keys(),
        [np.str_(text) for text in TEXTS],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_texts_of_any_kind(classifier: Classifier, expected: np.ndarray, texts: Any) -> None:
    predictions = classifier.predict(texts)
    assert predictions.texts == TEXTS and {type(text) for text in predictions.texts} == {str}
    assert classifier.predict_proba(texts).tolist() == expected.tolist()


def test_one_text_and_none(classifier: Classifier, expected: np.ndarray) -> None:
    assert classifier.predict_proba(TEXTS[0]).shape == (1, 2) and len(classifier.predict(np.str_(TEXTS[0]))) == 1
    for nothing in ([], (), np.array([], dtype=object), np.array([], dtype=str), pd.Series([], dtype=object)):
        assert classifier.predict(nothing) == [] and classifier.predict_proba(nothing).shape == (0, 2)
    assert len(classifier.predict(text for text in TEXTS)) == 3


@pytest.mark.parametrize(
    "table", [FRAME, pa.Table.from_pandas(FRAME), FRAME.to_dict("list")], ids=["pandas", "arrow", "dict"]
)
def test_a_column_of_a_table(classifier: Classifier, expected: np.ndarray, table: Any) -> None:
    assert classifier.predict_proba(table, text="text").tolist() == expected.tolist()
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(
            EmbedcacheError, match=r"has columns: say which .*table\['text'\] or text='text'; it has 'n'"
        ):
            method(table)
        with pytest.raises(EmbedcacheError, match="no column 'texts'; the table has 'n', 'text'"):
            method(table, text="texts")


def test_a_cache_is_a_table(classifier: Classifier, made: Path) -> None:
    with ec.open_cache(made / "reviews.h5") as cache:
        assert classifier.predict(cache, text="text").texts == list(cache.texts)
        with pytest.raises(EmbedcacheError, match="has columns"):
            classifier.predict(cache)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "text 1 is missing: None; leave it out, or write a text in its place"),
        (["a", float("nan"), "b", None], r"text 1 is missing: nan \(and 1 more of 4\); leave it out"),
        (pd.Series(["a", pd.NA, "b"]), "text 1 is missing: "),
        (pd.Series([pd.NaT, "b"], dtype=object), "text 0 is missing: NaT"),
        (pa.array(["a", None]), "text 1 is missing: None"),
        (["a", "b", 3], "text 2 is a number: 3; make it a str"),
        (["a", np.float32(3)], "text 1 is a number: "),
        ([["a", "b"]], "text 0 is a list: .*; make it a str; pass vectors by name"),
        ([b"a"], "text 0 is bytes: b'a'; make it a str"),
        (["a", "half \ud800"], "text 1 holds half a surrogate pair"),
        (b"a", "texts must be a str or a list of them, not bytes"),
        (3, "texts must be a str or a list of them, not int"),
        (np.arange(3, dtype="int64"), r"these are numbers \(int64 \[3\]\), not texts: pass vectors by name, vectors=X"),
        (FRAME["n"], r"these are numbers \(int64 \[3\]\)"),
        (None, "give texts, or vectors=X"),
    ],
)
def test_what_is_no_text(classifier: Classifier, texts: Any, message: str) -> None:
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(EmbedcacheError, match=message) as raised:
            method(texts)
        assert "\n" not in str(raised.value)
    if texts is not None and not isinstance(texts, (pd.Series, int, bytes)):
        with pytest.raises(EmbedcacheError, match=r"names a column, and .* has none: leave it out"):
            classifier.predict(texts, text="text")


# ---- vectors ----


def test_vectors_by_name_and_by_their_looks(classifier: Classifier, expected: np.ndarray) -> None:
    import torch

    X = classifier.encode(TEXTS)
    for given in (X, X.astype(np.float32), torch.from_numpy(X)):
        for predictions in (classifier.predict(vectors=given), classifier.predict(given)):
            assert predictions.texts is None and [one.text for one in predictions] == [""] * 3
        for found in (classifier.predict_proba(vectors=given), classifier.predict_proba(given)):
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert classifier.predict(vectors=X[:0]) == [] and classifier.predict_proba(vectors=X[:0]).shape == (0, 2)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((2, 31)), r"vectors must be numbers \[n, 32\], .* not float64 \[2, 31\]"),
        (np.zeros(32), r"not float64 \[32\]"),
        ([["a"]], "not <U1"),
        (np.array([[0.0] * 32, [np.nan] * 32]), "vector 1 holds NaN or infinity"),
    ],
)
def test_vectors_that_are_none(classifier: Classifier, vectors: Any, message: str) -> None:
    with pytest.raises(EmbedcacheError, match=message):
        classifier.predict(vectors=vectors)
    with pytest.raises(EmbedcacheError, match="one of the two"):
        classifier.predict(TEXTS, vectors=vectors)


# ---- what comes back ----


def test_predictions_are_a_sequence_and_a_table(classifier: Classifier, expected: np.ndarray) -> None:
    predictions = classifier.predict(TEXTS)
    assert isinstance(predictions, Predictions) and len(predictions) == 3 and predictions[-1] == predictions[2]
    assert predictions[:2] == list(predictions)[:2] and predictions != predictions[:2] and predictions != "abc"
    with pytest.raises(IndexError):
        predictions[3]
    assert repr(predictions).startswith("Predictions(3: negative ") and sum(predictions.counts.values()) == 3
    frame = predictions.to_pandas()
    assert list(frame.columns) == ["text", "predicted", "predicted_probability"]
    assert list(frame["predicted"]) == [one.label for one in predictions]
    assert list(frame["predicted_probability"]) == expected.max(axis=1).tolist()
    every = predictions.to_arrow(probabilities=True)
    assert every.column_names[3:] == ["predicted_probability_negative", "predicted_probability_positive"]
    assert np.stack([every.column(3), every.column(4)], axis=1).tolist() == expected.tolist()
    assert classifier.predict(vectors=classifier.encode(TEXTS)).to_arrow().column_names == frame.columns[1:].tolist()
    assert predictions._repr_html_().count("<tr>") == 4 and classifier.predict([]).to_pandas().empty
