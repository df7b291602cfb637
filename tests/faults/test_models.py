"""Model folders: none runs code unless that is asked for, and one that changed in the least is another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import embedcache as ec
from embedcache.encoder import Encoder, identify
from embedcache.errors import EmbedcacheError
from embedcache.extraction.job import extract
from tests.conftest import document, fails, make_reviews, write_csv

CODE = """
from pathlib import Path
Path({witness!r}).write_text("code of the model has run")
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MAPS = {
    "config.json": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    "tokenizer_config.json": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
}


@pytest.fixture
def witness(tmp_path):
    """Written by any code of a model that runs."""
    return tmp_path / "witness"


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def with_code(folder: Path, witness: Path, name: str, model_type: str | None = None) -> Path:
    (folder / "own.py").write_text(CODE.format(witness=str(witness)))
    change(folder / name, auto_map=MAPS[name], **({"model_type": model_type} if model_type else {}))
    if name == "tokenizer_config.json":
        change(folder / name, tokenizer_class="OwnTokenizer")
    return folder


@pytest.fixture(params=["unknown type", "known type", "tokenizer"])
def coded(request, bert_copy, witness):
    name = "tokenizer_config.json" if request.param == "tokenizer" else "config.json"
    return with_code(bert_copy, witness, name, "own" if request.param == "unknown type" else None)


def test_no_code_runs_by_itself(coded, witness, tmp_path, monkeypatch):
    """It is loaded without its code where transformers can do that, else refused; nobody is asked."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    table = write_csv(tmp_path / "table.csv", make_reviews(20))
    identify(coded, device="cpu")
    try:
        extract(table, tmp_path / "c.h5", model=coded, device="cpu")
    except EmbedcacheError as error:
        assert "--trust-remote-code" in str(error)
    assert not witness.exists()


def test_code_runs_where_it_is_trusted(bert_copy, witness, tmp_path):
    with_code(bert_copy, witness, "config.json", "own")
    table = write_csv(tmp_path / "table.csv", make_reviews(20))
    extract(table, tmp_path / "c.h5", model=bert_copy, device="cpu", trust_remote_code=True)
    assert witness.exists()


def test_no_code_runs_in_what_comes_after(made, witness, tmp_path):
    """A run and a cache name the encoder's folder: what was put there later is not run, and not used."""
    from embedcache.cache import open_cache

    with open_cache(made / "reviews.h5") as cache:
        source = Path(cache.encoder["source"])
    other = with_code(Path(shutil.copytree(source, tmp_path / "moved")), witness, "config.json", "own")
    assert "config" in fails("predict", made / "run", "great", "--model", other)
    assert not witness.exists()


def test_a_run_whose_encoder_needs_its_code_says_so(bert_copy, witness, tmp_path):
    with_code(bert_copy, witness, "config.json", "own")
    table, path = write_csv(tmp_path / "table.csv", make_reviews(60)), tmp_path / "c.h5"
    extract(table, path, model=bert_copy, device="cpu", trust_remote_code=True)
    document("train-head", path, "-o", tmp_path / "run", "--epochs", "1")
    witness.unlink()
    for command in (["predict", tmp_path / "run", "great"], ["search", path, "great"]):
        assert "--trust-remote-code" in fails(*command)
    assert "code own.py differs (not there now)" in fails("extract", table, "-o", path, "--model", bert_copy)
    assert not witness.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickled_weights_are_never_loaded(bert_copy, witness, name):
    (bert_copy / "model.safetensors").unlink()
    evil = f"cposix\nsystem\n(S'touch {witness}'\ntR."  # a pickle that runs a command
    (bert_copy / name).write_bytes(evil.encode())
    with pytest.raises(
        EmbedcacheError, match="pickled PyTorch weights, which are not loaded because they can run code"
    ):
        Encoder.load(bert_copy, device="cpu")
    assert not witness.exists()


def test_an_index_leads_nowhere_else(bert_copy):
    """The shards are in the folder, whatever their names say."""
    (bert_copy / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"embeddings.word_embeddings.weight": "../../../etc/passwd"}}
    (bert_copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(EmbedcacheError, match="passwd, which its index names, is missing"):
        Encoder.load(bert_copy, device="cpu")


def flip_keeping_its_times(path: Path) -> None:
    """Edited in place, as a tool that preserves times does."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (times.st_size, times.st_mtime_ns)


@pytest.mark.parametrize(("part", "name"), [("weights", "model.safetensors"), ("tokenizer", "tokenizer.json")])
def test_files_edited_in_place_are_noticed(bert_copy, tmp_path, part, name):
    """By content alone, within one process too; the error says what differs and the two ways out."""
    table, path = write_csv(tmp_path / "table.csv", make_reviews(30)), tmp_path / "c.h5"
    if name == "tokenizer.json":  # so that a flipped bit leaves it JSON
        file = bert_copy / name
        file.write_text(file.read_text().rstrip() + " " * 20 + "\n")
    ec.extract(table, path, model=bert_copy, device="cpu")
    before = path.read_bytes()
    flip_keeping_its_times(bert_copy / name)
    words = f"{part} {name} differs; pass --overwrite to replace it, or another -o to keep both"
    with pytest.raises(EmbedcacheError, match=words):
        ec.extract(table, path, model=bert_copy, device="cpu")
    assert path.read_bytes() == before
    flip_keeping_its_times(bert_copy / name)
    assert ec.extract(table, path, model=bert_copy, device="cpu").encoded == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [({"max_length": 99}, "max_length 250 in the cache, 99 asked"), ({"dtype": "bfloat16"}, "compute_dtype .* asked")],
)
def test_other_settings_are_noticed(bert_copy, tmp_path, options, words):
    table, path = write_csv(tmp_path / "table.csv", make_reviews(30)), tmp_path / "c.h5"
    ec.extract(table, path, model=bert_copy, device="cpu", dtype="float32")
    with pytest.raises(EmbedcacheError, match=words + r".*--overwrite .* another -o"):
        ec.extract(table, path, model=bert_copy, device="cpu", **options)
