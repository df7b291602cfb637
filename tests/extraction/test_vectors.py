"""Which vectors extract stores where none are named, and what follows: resume, runs, search, predictions, merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.cache import verify
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from tests.conftest import document, fails, invoke, make_reviews, write_csv
from tests.encoder.sentence_folders import NORMALIZE, dense, make_folder

REVIEWS = make_reviews(60)
EXACT: dict[str, Any] = {"device": "cpu", "dtype": "float32", "store": "float32"}
PROMPTS = {"prompts": {"query": "find this: ", "passage": "read: "}, "default_prompt_name": "query"}


@pytest.fixture(scope="module")
def sentence_model(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentence-transformers: the mean, a Dense that halves it, unit length; 60 tokens; a prompt."""
    folder = tmp_path_factory.mktemp("sentence-model")
    mean = {"pooling_mode_mean_tokens": True}
    return make_folder(
        tiny_bert, folder, mean, dense(32, 16), NORMALIZE, settings={"max_seq_length": 60}, config=PROMPTS
    )


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "reviews.csv", REVIEWS)


def theirs(folder: Path, texts: list[str], **options: Any) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(texts, show_progress_bar=False, **options))


def test_auto_is_the_models_own_vector(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """And cls beside it; it says so, in extract and in info, and does nothing the second time."""
    path = tmp_path / "c.h5"
    report = ec.extract(table, path, model=sentence_model, **EXACT)
    said = report.notes[-1]
    assert "model is mean, Dense to 16 (Tanh), unit length, by modules.json, 1_Pooling/config.json" in said
    assert "after the prompt 'find this: '; texts of up to 60 tokens" in said
    before = path.read_bytes()
    again = ec.extract(table, path, model=sentence_model, device="cpu", store="float32")
    assert again.encoded == 0 and again.notes == [] and path.read_bytes() == before
    with ec.open_cache(path) as cache:
        assert set(cache.outputs) == {("cls", -1), ("model", -1)} and verify(path).ok
        texts = list(cache.texts)
        np.testing.assert_allclose(cache.embeddings("model"), theirs(sentence_model, texts), atol=1e-6)
        assert cache.embeddings("cls").shape == (60, 32) and np.array_equal(
            cache.embeddings(), cache.embeddings("model")
        )
        assert [(one["pooling"], one["dim"]) for one in cache.info()["outputs"]] == [("cls", 32), ("model", 16)]
    shown = invoke("info", path).output
    assert "model     mean, Dense to 16 (Tanh), unit length" in shown
    assert "prompt    'find this: ' before every text" in shown


def test_runs_search_and_predictions_follow(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """All read the model's vectors where none are named, and put the cache's prompt before a text by themselves."""
    path, run = tmp_path / "c.h5", tmp_path / "run"
    ec.extract(table, path, model=sentence_model, prompt="passage", **EXACT)
    trained = document("train-head", path, "-o", run, "--hidden", "8", "--epochs", 2, "--lr", "1e-2")
    assert trained["pooling"] == "model"
    texts = ["a superb film", "a dull film"]
    wanted = theirs(sentence_model, texts, prompt="read: ")
    classifier = ec.Classifier.load(run)
    np.testing.assert_allclose(classifier.encode(texts), wanted, atol=1e-6)
    with ec.open_cache(path) as cache:
        stored = np.array(cache.embeddings("model"))
        assert classifier.run.info["encoder"] == cache.encoder
    scores = wanted @ stored.T
    found = document("search", path, texts[0], "-k", 3)
    assert [one["row"] for one in found["results"]] == np.argsort(-scores[0])[:3].tolist()
    assert found["results"][0]["score"] == pytest.approx(scores[0].max(), abs=1e-4)
    index = ec.SearchIndex.build(path)
    assert (index.pooling, index.dim) == ("model", 16)
    assert np.array_equal(index.search(texts, 3).rows, np.argsort(-scores, axis=1)[:, :3])
    assert document("predict", run, path, "-o", tmp_path / "out.csv")["rows"] == 60


def test_a_cache_of_today_stays_as_it_is(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """Made before there were such vectors; they can be added, and what was there, runs and indexes too, stays."""
    path, run = tmp_path / "c.h5", tmp_path / "run"
    ec.extract(table, path, model=sentence_model, pooling="cls", **EXACT)
    with ec.open_cache(path) as cache:
        assert "model" not in cache.encoder and "prompt" not in cache.encoder["identity"]
        assert cache.encoder["identity"]["max_length"] == 250
        cls = np.array(cache.embeddings("cls"))
    before = path.read_bytes()
    assert ec.extract(table, path, model=sentence_model, **EXACT).encoded == 0 and path.read_bytes() == before
    document("train-head", path, "-o", run, "--hidden", "8", "--epochs", 2, "--lr", "1e-2")
    document("index", path)
    with pytest.raises(EmbedcacheError, match=r"max_length 250 in the cache, 60 asked; prompt absent in the cache"):
        ec.extract(table, path, model=sentence_model, pooling="model", **EXACT)
    added = ec.extract(table, path, model=sentence_model, pooling="model", max_length=250, prompt="", **EXACT)
    assert added.encoded == 60
    with ec.open_cache(path) as cache:
        assert np.array_equal(cache.embeddings("cls"), cls)
        np.testing.assert_allclose(cache.embeddings("model"), theirs(sentence_model, list(cache.texts), prompt=""),
                                   atol=1e-6)  # fmt: skip
    assert document("predict", run, path, "-o", tmp_path / "out.csv")["rows"] == 60
    assert len(document("search", path, "--row", 3, "-k", 2)["results"]) == 2, "by the index of cls"


def test_where_the_folder_says_nothing(tiny_bert: Path, table: Path, tmp_path: Path) -> None:
    report = ec.extract(table, tmp_path / "c.h5", model=tiny_bert, **EXACT)
    assert "stored cls (the first token's vector)" in report.notes[-1] and "no modules.json" in report.notes[-1]
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert cache.outputs == [("cls", -1)]
    for options in (["--pooling", "model"], ["--dims", "8"]):
        line = fails("extract", table, "-o", tmp_path / "d.h5", "--model", tiny_bert, *options)
        assert "has no modules.json" in line and "--pooling mean" in line
    assert not (tmp_path / "d.h5").exists()


def test_prompts(sentence_model: Path, tiny_bert: Path, table: Path, tmp_path: Path) -> None:
    def stored(name: str, **options: Any) -> np.ndarray:
        ec.extract(table, tmp_path / name, **{"model": sentence_model, **EXACT, **options})
        with ec.open_cache(tmp_path / name) as cache:
            return np.array(cache.embeddings())

    texts = [text for text, _ in REVIEWS]
    for prompt, text in (("passage", "read: "), ("in short: ", "in short: "), ("", "")):
        found = stored(f"{prompt}.h5", prompt=prompt)
        np.testing.assert_allclose(found, theirs(sentence_model, texts, prompt=text), atol=1e-6)
    encoder = Encoder.load(tiny_bert, device="cpu", dtype="float32")
    (wanted,) = encoder.encode_texts([f"a story: {text}" for text in texts], [("mean", -1)])
    found = stored("bare.h5", model=tiny_bert, prompt="a story: ", pooling="mean")
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    line = fails("extract", table, "-o", tmp_path / "d.h5", "--model", sentence_model, "--prompt", "qurey")
    assert "has no prompt 'qurey'; it has query, passage; to pass a prompt's text, end it with a space or" in line
    line = fails("extract", table, "-o", tmp_path / "passage.h5", "--model", sentence_model, "--prompt", "query")
    assert "prompt read: in the cache, find this: asked" in line


def test_dims(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """Refused where the model does not declare them, unless forced; of resumed caches as they are."""
    arguments = ["extract", table, "-o", tmp_path / "c.h5", "--model", sentence_model, "--dims", 10]
    assert "declares no dimensions" in fails(*arguments)
    arguments += ["--force-dims", "--store", "float32", "--dtype", "float32", "--device", "cpu"]
    assert document(*arguments)["encoded"] == 60 and document(*arguments)["encoded"] == 0
    without = arguments[:6] + arguments[8:]
    assert document(*without)["encoded"] == 0
    with ec.open_cache(tmp_path / "c.h5") as cache:
        wanted = theirs(sentence_model, list(cache.texts), truncate_dim=10, normalize_embeddings=True)
        np.testing.assert_allclose(cache.embeddings(), wanted, atol=1e-6)
    arguments[7] = 12
    assert "model steps" in fails(*arguments)
    assert "add --pooling model" in fails(*arguments[:2], "-o", tmp_path / "d.h5", *arguments[4:], "--pooling", "cls")


def test_layers(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """The model's vector is of the last layer."""
    ec.extract(table, tmp_path / "c.h5", model=sentence_model, layers=[-1, 1], **EXACT)
    with ec.open_cache(tmp_path / "c.h5") as cache:
        assert set(cache.outputs) == {("cls", -1), ("cls", 1), ("model", -1)}
        assert cache.preferred(1) == "cls" and cache.preferred() == "model"
    with pytest.raises(EmbedcacheError, match="called model exist for the last layer only"):
        ec.extract(table, tmp_path / "d.h5", model=sentence_model, layers=1, pooling=["cls", "model"], **EXACT)
    ec.extract(table, tmp_path / "d.h5", model=sentence_model, layers=1, **EXACT)
    with ec.open_cache(tmp_path / "d.h5") as cache:
        assert cache.outputs == [("cls", 1)] and "model" not in cache.encoder


def test_shards_of_vectors_of_two_widths(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    parts = [tmp_path / f"part{i}.h5" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        ec.extract(table, part, model=sentence_model, shard=(i, 2), **EXACT)
    ec.merge(parts, tmp_path / "joined.h5")
    ec.extract(table, tmp_path / "whole.h5", model=sentence_model, **EXACT)
    with ec.open_cache(tmp_path / "joined.h5") as joined, ec.open_cache(tmp_path / "whole.h5") as whole:
        for output in whole.outputs:
            np.testing.assert_allclose(joined.embeddings(*output), whole.embeddings(*output), atol=1e-6)


def test_changed_modules_are_another_model(sentence_model: Path, table: Path, tmp_path: Path) -> None:
    """The Dense's weights are a part of the vectors called model, of the others not."""
    import shutil

    path, other = tmp_path / "c.h5", Path(shutil.copytree(sentence_model, tmp_path / "other"))
    ec.extract(table, path, model=sentence_model, **EXACT)
    weights = other / "2_Dense" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x3f")
    with pytest.raises(EmbedcacheError, match="made with another encoder or other settings: model steps"):
        ec.extract(table, path, model=other, **EXACT)
    replaced = ec.extract(table, path, model=other, overwrite=True, **EXACT)
    assert replaced.encoded == 60
    run = tmp_path / "run"
    document("train-head", path, "-o", run, "--hidden", "8", "--epochs", 2, "--lr", "1e-2")
    assert "but these vectors were made differently" in fails("predict", run, "a film", "--model", sentence_model)
    document("train-head", path, "-o", run, "--pooling", "cls", "--hidden", "8", "--epochs", 2, "--lr", "1e-2")
    assert document("predict", run, "a film", "--model", sentence_model)
