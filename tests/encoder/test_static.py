"""Static models are what sentence-transformers' StaticEmbedding makes of the folder, and model2vec's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from embedcache.cache.file import Cache
from embedcache.encoder import Encoder
from embedcache.errors import EmbedcacheError
from tests.conftest import document, fails, make_reviews, write_csv, write_tokenizer
from tests.encoder.sentence_folders import write_json
from tests.encoder.test_prescription import MODEL, TEXTS, assert_same, load, theirs


def write_static(folder: Path, inner: str = "", vectors: str = "embedding.weight", **more: Any) -> Path:
    """A folder with a random table; more: further arrays, as model2vec has them."""
    (folder / inner).mkdir(parents=True, exist_ok=True)
    size = write_tokenizer(folder / inner)
    (folder / inner / "tokenizer_config.json").unlink()
    rows = int(more["mapping"].max()) + 1 if "mapping" in more else size
    table = np.random.default_rng(0).normal(0, 1, (rows, 32)).astype(np.float32)
    save_file({vectors: table, **more}, folder / inner / "model.safetensors")
    listed = [("StaticEmbedding", inner), ("Normalize", "1_Normalize")]
    modules = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
               for i, (kind, path) in enumerate(listed)]  # fmt: skip
    write_json(folder / "modules.json", modules)
    (folder / "1_Normalize").mkdir()
    return folder


def model2vec(folder: Path, **more: Any) -> Path:
    write_static(folder, vectors="embeddings", **more)
    write_json(folder / "config.json", {"model_type": "model2vec", "normalize": True, "hidden_dim": 32})
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [{**one, "path": one["path"] or "."} for one in modules])
    return folder


def smaller(size: int = 400) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {"mapping": rng.integers(0, 90, size).astype(np.int64), "weights": rng.random(size).astype(np.float32) + 0.1}


KINDS = {
    "in the folder": write_static,
    "in a folder of its own": lambda folder: write_static(folder, "0_StaticEmbedding"),
    "cut by its tokenizer": lambda folder: cut(write_static(folder)),
    "model2vec": model2vec,
    "model2vec with a vocabulary in clusters": lambda folder: model2vec(folder, **smaller()),
}


def cut(folder: Path) -> Path:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    cut = {"direction": "Right", "max_length": 20, "strategy": "LongestFirst", "stride": 0}
    write_json(folder / "tokenizer.json", {**tokenizer, "truncation": cut})
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_sentence_transformers(kind: str, tmp_path: Path) -> None:
    if "clusters" in kind:
        pytest.importorskip("sentence_transformers", "6.2", reason="older ones do not read the clusters")
    folder = KINDS[kind](tmp_path)
    encoder = load(folder)
    assert (encoder.kernel, encoder.layers, encoder.invariant) == ("static", 0, True)
    found, wanted = encoder.encode_texts(TEXTS, MODEL)[0], theirs(folder)
    some = np.array([bool(text) for text in TEXTS])
    assert_same(found[some], wanted[some])
    assert not found[~some].any() and not wanted[~some].any()
    alone = np.concatenate([encoder.encode_texts([text], MODEL)[0] for text in TEXTS])
    assert np.array_equal(alone, found)


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.float64])
def test_weights_of_other_types(dtype: Any, tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    folder = write_static(tmp_path)
    table = (20 * load_file(folder / "model.safetensors")["embedding.weight"]).astype(dtype)
    save_file({"embedding.weight": table}, folder / "model.safetensors")
    encoder = load(folder)
    (found,) = encoder.encode_texts(["superb film", "dull"], [("mean", -1)])
    rows = encoder.tokenize(["superb film", "dull"]).ids
    wanted = np.stack([table[row].astype(np.float64).mean(0) for row in rows])
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_extract_and_what_reads_the_cache(tmp_path: Path) -> None:
    folder, table, cache = write_static(tmp_path / "model"), tmp_path / "rows.csv", tmp_path / "cache.h5"
    write_csv(table, [*make_reviews(80), ("long " * 3000, "positive")])
    about = document("extract", table, "-o", cache, "--model", folder, "--label", "label")
    assert Cache(cache).poolings == ["model"] and about["truncated"] == 0
    assert any("model is mean, unit length, by modules.json of" in one and one.endswith("; texts of any length")
               for one in about["notes"])  # fmt: skip
    document("train-head", cache, "-o", tmp_path / "run", "--hidden", 8, "--epochs", 2)
    document("predict", tmp_path / "run", "a superb film")
    found = document("search", cache, "a superb film", "-k", 3)
    assert len(found["results"]) == 3
    line = fails("extract", table, "-o", tmp_path / "cls.h5", "--model", folder, "--pooling", "cls")
    assert "is a static model, which only has means: use --pooling mean" in line
    line = fails("export", tmp_path / "run", "--to", "onnx", "-o", tmp_path / "out")
    assert "is a static model, a table of tokens' vectors" in line
    (folder / "modules.json").unlink()
    about = document("extract", table, "-o", tmp_path / "mean.h5", "--model", folder)
    assert Cache(tmp_path / "mean.h5").poolings == ["mean"]
    assert any("stored mean (the mean of its tokens' vectors): it is a static model" in one for one in about["notes"])


def test_damaged_folders(tmp_path: Path) -> None:
    folder = write_static(tmp_path)
    good = (folder / "model.safetensors").read_bytes()
    save_file({"embedding.weight": np.zeros((9, 4), np.float32)}, folder / "model.safetensors")
    with pytest.raises(EmbedcacheError, match=r"the tokenizer has ids up to .*, the weights only 9 embeddings"):
        Encoder.load(folder, device="cpu")
    save_file({"embeddings": np.zeros((9, 4), np.float32), "mapping": np.full(300, 9)}, folder / "model.safetensors")
    with pytest.raises(EmbedcacheError, match=r"the parts of model\.safetensors do not fit together"):
        Encoder.load(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(good[:-7])
    with pytest.raises(EmbedcacheError, match=r"model\.safetensors is damaged"):
        Encoder.load(folder, device="cpu")
    (folder / "model.safetensors").write_bytes(good)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(EmbedcacheError, match=r"tokenizer\.json"):
        Encoder.load(folder, device="cpu")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EmbedcacheError, match="no tokenizer"):
        Encoder.load(folder, device="cpu")
