"""A family's record says what transformers' own code of it says; pages and tables follow from the records."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from embedcache.encoder import Encoder
from embedcache.encoder.families import FAMILIES, behind_id
from embedcache.encoder.folder import positions_of
from embedcache.encoder.runner_native import backend

needs_native = pytest.mark.skipif(not backend("float32"), reason="this processor has no AVX2")
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "extraction.md"


def model_class(family: str) -> Any:
    module, name = FAMILIES[family].model.rsplit(".", 1)
    return getattr(importlib.import_module(f"transformers.models.{module}"), name)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_record_agrees_with_transformers(family: str) -> None:
    known, model = FAMILIES[family], model_class(family)
    config = model.config_class()
    assert config.model_type == family
    assert MODEL_MAPPING_NAMES[family] == model.__name__
    assert model.base_model_prefix == (known.prefix or family)
    assert all(hasattr(config, own) for own in known.keys.values())
    assert (known.epsilon is None) == hasattr(config, "layer_norm_eps")


@pytest.mark.parametrize("family", [name for name in FAMILIES if FAMILIES[name].tokenizers])
def test_the_tokenizers_are_those_of_transformers(family: str) -> None:
    tokenizers = FAMILIES[family].tokenizers
    assert tokenizers is not None
    assert str(TOKENIZER_MAPPING_NAMES[family]).removesuffix("Fast") in tokenizers.classes
    for name in tokenizers.classes:
        made = getattr(transformers, name)()
        assert {role: getattr(made, role) for role in tokenizers.special} == tokenizers.special


def test_positions_of_families_that_have_no_record() -> None:
    assert behind_id({"model_type": "longformer", "pad_token_id": 1}) == 1
    assert behind_id({"model_type": "longformer", "pad_token_id": None}) is None
    assert behind_id({"model_type": "modernbert", "pad_token_id": 7}) is None
    assert behind_id({"model_type": ["bert"]}) is None
    assert behind_id({"model_type": "mpnet", "pad_token_id": 0}) == 1  # its code has the 1, whatever the setting


def docs_table() -> str:
    lines = [
        "| family | `model_type` | read without torch | bfloat16 by `auto` on a CPU |",
        "| --- | --- | --- | --- |",
    ]
    for name, family in FAMILIES.items():
        cells = [family.title, f"`{name}`", *("yes" if one else "no" for one in (family.tokenizers, family.bfloat16))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_lists_the_families() -> None:
    found = re.search(r"<!-- families -->\n(.*?)\n<!-- end -->", PAGE.read_text("utf-8"), re.DOTALL)
    assert found and found[1] == docs_table(), f"docs/extraction.md should have\n{docs_table()}"


@pytest.mark.parametrize("variant", ["an encoder family", "a pooling"])
def test_the_recipe_names_files_that_are_there(variant: str) -> None:
    """What the recipes say is done by the tests of a newcomer's record, here and in test_poolings.py."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    recipe = re.search(rf"^- \*\*{variant}\*\*: (.*?)^- ", page, re.MULTILINE | re.DOTALL)
    assert recipe
    paths = re.findall(r"`([\w/]+/[\w./]+)`", recipe[1])
    assert len(paths) >= 3
    for path in paths:
        assert (ROOT / path).exists() or (ROOT / "embedcache" / path).exists(), path


@needs_native
def test_a_newcomers_record(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A BERT under other names (its own, its settings', its weights') needs a record, and nothing more."""
    from safetensors.numpy import load_file, save_file

    for file in tiny_bert.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tiny_bert / "config.json").read_text("utf-8"))
    config |= {"model_type": "newbert", "depth": config.pop("num_hidden_layers")}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(tiny_bert / "model.safetensors")
    renamed = {f"inner.{name.replace('attention.self.query', 'attention.q')}": one for name, one in weights.items()}
    save_file(renamed, tmp_path / "model.safetensors")
    bert = FAMILIES["bert"]
    names = replace(bert.names, attention=("attention.q", *bert.names.attention[1:]))
    record = replace(bert, prefix="inner", names=names, keys={"num_hidden_layers": "depth"})
    monkeypatch.setitem(FAMILIES, "newbert", record)
    texts, outputs = ["a superb film", "dull"], [("cls", -1), ("mean", 1)]
    found, wanted = (
        Encoder.load(folder, max_length=60, dtype="float32", device="cpu") for folder in (tmp_path, tiny_bert)
    )
    assert (found.identity["architecture"], found.kernel, positions_of(tmp_path)) == ("newbert", "native", 512)
    for got, want in zip(*(one.encode_texts(texts, outputs) for one in (found, wanted)), strict=True):
        np.testing.assert_array_equal(got, want)
    assert found._loaded is None, "transformers does not know it"
