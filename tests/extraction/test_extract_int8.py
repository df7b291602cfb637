"""Caches in int8: which products stay in bfloat16 is chosen once and kept by all that use the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import open_cache
from embedcache.encoder import Encoder, int8
from embedcache.encoder.load_again import encoder_of
from embedcache.encoder.runner_native import backend
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import ExtractReport, extract
from tests.conftest import make_reviews, write_csv

pytestmark = pytest.mark.skipif(not backend("int8"), reason="no native encoder, or none for this processor")
KEPT = ["1 qkv", "2 down"]


@pytest.fixture
def run(tiny_bert: Path, tmp_path: Path) -> Callable[..., ExtractReport]:
    def run(rows: list[tuple[str, str]], **options: Any) -> ExtractReport:
        table = write_csv(tmp_path / "table.csv", rows, ("text", "label"))
        return extract(table, tmp_path / "cache.h5", **{"model": tiny_bert, "dtype": "int8", **options})

    return run


def choose(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Makes the choice KEPT, and lists the texts of each call."""
    calls: list[list[str]] = []

    def stand_in(source: str, settings: dict[str, Any], texts: list[str]) -> int8.Int8Choice:
        calls.append(texts)
        return int8.Int8Choice(KEPT, 8, (0.9, 0.8), (0.9995, 0.9991), True)

    monkeypatch.setattr(int8, "choose_kept", stand_in)
    return calls


def test_vectors_are_close_and_the_choice_is_told(run: Callable[..., ExtractReport], tmp_path: Path) -> None:
    rows = make_reviews(40)
    report = run(rows, store="float32")
    (note,) = [one for one in report.notes if one.startswith("int8")]
    assert "all products of linear layers (8); cosine to float32 of the first texts 0.99" in note
    with open_cache(tmp_path / "cache.h5") as cache:
        assert cache.encoder["identity"]["kept"] == []
        found = np.array(cache.embeddings("cls", -1))
    run(rows, dtype="float32", store="float32", overwrite=True)
    with open_cache(tmp_path / "cache.h5") as cache:
        exact = np.array(cache.embeddings("cls", -1))
    cosines = (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
    assert not (found == exact).all() and np.median(cosines) > 0.999


def test_it_is_chosen_once_and_stays(
    run: Callable[..., ExtractReport], tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = make_reviews(60), choose(monkeypatch)
    report = run(rows[:40])
    assert calls == [[text for text, _ in rows[:40]]]
    assert report.encoder["identity"]["kept"] == KEPT
    assert any("but 2 of 8 in bfloat16, 1 qkv, 2 down; cosine" in note for note in report.notes)
    for dtype in ("auto", "int8"):
        assert run(rows, dtype=dtype).encoded == (20 if dtype == "auto" else 0)
    assert len(calls) == 1
    with open_cache(tmp_path / "cache.h5") as cache:
        found, about = np.array(cache.embeddings("cls", -1)), cache.encoder
    again = encoder_of(about, "the cache")
    (vectors,) = again.encode_texts([text for text, _ in rows], [("cls", -1)])
    assert (vectors.astype(np.float16) == found).all() and again.identity["kept"] == KEPT
    (others,) = Encoder.load(tiny_bert, dtype="int8").encode_texts([rows[0][0]], [("cls", -1)])
    assert (others[0].astype(np.float16) != found[0]).any()
    with pytest.raises(EmbedcacheError, match="compute_dtype int8 in the cache, float32 asked"):
        run(rows, dtype="float32")


def test_all_parts_of_a_table_choose_by_its_first_texts(
    run: Callable[..., ExtractReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, calls = make_reviews(30), choose(monkeypatch)
    for part in ("1/2", "2/2"):
        run(rows, shard=part)
        (tmp_path / "cache.h5").rename(tmp_path / f"part{part[0]}.h5")
    assert calls == [[text for text, _ in rows]] * 2


def test_a_damaged_choice_is_no_choice(
    run: Callable[..., ExtractReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch)
    run(make_reviews(10))
    from embedcache.common.encoder_schema import parse_encoder

    with open_cache(tmp_path / "cache.h5") as cache:
        about = json.loads(json.dumps(cache.encoder))
    assert parse_encoder(json.dumps(about)) == about
    for kept in ("1 qkv", [1], ["first qkv"], ["1 query"]):
        about["identity"]["kept"] = kept
        assert parse_encoder(json.dumps(about)) is None


def test_a_cache_that_another_version_of_int8_made_is_not_continued(
    run: Callable[..., ExtractReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch)
    with monkeypatch.context() as earlier:
        earlier.setattr("embedcache.encoder.folder.INT8_VERSION", 1)
        run(make_reviews(10))
    with pytest.raises(
        EmbedcacheError, match=r"other settings: int8_version 1 in the cache, 2 asked; pass --overwrite"
    ):
        run(make_reviews(20))


def test_weights_that_are_not_finite_are_refused(
    run: Callable[..., ExtractReport], bert_copy: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(bert_copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.intermediate.dense.weight"))
    weights[name][3, 5] = np.nan
    save_file(weights, bert_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EmbedcacheError, match="is not finite"):
        run(make_reviews(10), model=bert_copy)
    assert not (tmp_path / "cache.h5").exists()


def test_a_run_on_int8_vectors_predicts_with_them(
    run: Callable[..., ExtractReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch)
    rows = make_reviews(60)
    run(rows)
    ec.train_run(tmp_path / "cache.h5", tmp_path / "run", epochs=2)
    classifier = ec.Classifier.load(tmp_path / "run")
    classifier.predict([rows[0][0]])
    assert (classifier.encoder.compute_dtype, classifier.encoder.identity["kept"]) == ("int8", KEPT)
