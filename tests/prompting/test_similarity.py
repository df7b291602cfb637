"""Similarity: cosines of the cache's own vectors and the labels' descriptions; only these are encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from embedcache.prompting.labels import read_labels
from embedcache.prompting.method import AskedPrompt
from embedcache.prompting.methods.similarity import Similarity
from embedcache.prompting.start import start_probabilities

LABELS = {"positive": ["a wonderful film", "superb"], "negative": ["a dull film"]}


def expected(vectors: np.ndarray, encoder: Encoder, pooling: str) -> np.ndarray:
    """float64 [n, labels]: probabilities by the definition."""
    said = [one for some in LABELS.values() for one in some]
    found = encoder.encode_texts(said, [(pooling, -1)])[0].astype(np.float64)
    x, d = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (vectors.astype(np.float64), found))
    cosines = np.stack([(x @ d[:2].T).mean(axis=1), x @ d[2]], axis=1)
    powers = np.exp(20 * cosines)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_the_rows_of_a_cache_are_not_encoded(
    reviews_cache: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    tokenize = Encoder.tokenize
    monkeypatch.setattr(Encoder, "tokenize", lambda self, texts: (encoded.extend(texts), tokenize(self, texts))[1])
    report = ec.zero_shot(reviews_cache, LABELS, tmp_path / "out.parquet", device="cpu")
    assert encoded == [one for some in LABELS.values() for one in some] and report.encoded == 0
    monkeypatch.undo()
    import pyarrow.parquet as pq

    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.names == ["row", "text", "label", "predicted", "predicted_probability"]
    cache = ec.open_cache(reviews_cache)
    chances = expected(cache.embeddings("cls"), Encoder.load(tiny_bert, dtype="float32", device="cpu"), "cls")
    assert report.template == "{label}" and report.method == "similarity" and not report.calibrated
    assert table["predicted"].to_pylist() == [list(LABELS)[i] for i in chances.argmax(axis=1)]
    assert np.abs(table["predicted_probability"].to_numpy() - chances.max(axis=1)).max() < 1e-5


def test_a_table_has_the_probabilities_of_its_cache(reviews_cache: Path, tiny_bert: Path, tmp_path: Path) -> None:
    table = reviews_cache.with_name("reviews.csv")
    one = ec.zero_shot(reviews_cache, LABELS, pooling="mean", device="cpu")
    two = ec.zero_shot(table, LABELS, model=tiny_bert, method="similarity", device="cpu")  # no modules.json: the mean
    assert two.encoded == 40 and one.labels == two.labels and one.scores == two.scores
    for a, b in zip(one.first, two.first, strict=True):
        assert abs(a["predicted_probability"] - b["predicted_probability"]) < 0.01  # bfloat16 where the CPU has it


def test_a_template_goes_around_each_description(reviews_cache: Path) -> None:
    with ec.open_cache(reviews_cache) as cache:
        labels = read_labels("positive: a joy; negative: a bore")
        asked = AskedPrompt(cache.encoder["source"], labels, "This film is {label}!", device="cpu", cache=cache)
        said = ["This film is a joy!", "This film is a bore!"]
        found = Similarity(asked).directions
        (vectors,) = Encoder.load(cache.encoder["source"], dtype="float32", device="cpu").encode_texts(
            said, [("cls", -1)]
        )
        assert np.abs(found - vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).max() < 1e-6


def test_refused(reviews_cache: Path, tiny_masked: Path, tiny_models: dict[str, Path]) -> None:
    with pytest.raises(EmbedcacheError, match=r"--template 'x' has no \{label\}: similarity needs it once"):
        ec.zero_shot(reviews_cache, LABELS, template="x")
    for other in ({"model": tiny_masked, "method": "similarity"}, {"model": tiny_models["roberta"]}):
        with pytest.raises(
            EmbedcacheError, match=r"is not the encoder of .* leave --model out, or give the table"
        ) as no:
            ec.zero_shot(reviews_cache, LABELS, **other)
        assert "restore" not in str(no.value) and "pass the encoder" not in str(no.value)
    with pytest.raises(EmbedcacheError, match="has no max vectors"):
        ec.zero_shot(reviews_cache, LABELS, pooling="max")


def test_what_labelling_from_nothing_begins_with(reviews_cache: Path, tiny_bert: Path) -> None:
    with ec.open_cache(reviews_cache) as cache:
        names, found = start_probabilities(cache, LABELS, device="cpu")
        pooling = cache.preferred()
        encoder = Encoder.load(
            tiny_bert, device="cpu", dtype="float32", max_length=cache.encoder["identity"]["max_length"]
        )
        wanted = expected(np.asarray(cache.embeddings(pooling)), encoder, pooling)
    assert names == ["positive", "negative"]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
