"""A LoRA adapter is merged when its folder is loaded: alone, beside its base, below sentence-transformers' modules."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embedcache as ec
from embedcache.encoder import Encoder, identify
from embedcache.errors import EmbedcacheError
from tests.encoder.sentence_folders import NORMALIZE, make_folder, write_json
from tests.encoder.test_prescription import MODEL, TEXTS, assert_same, load, theirs

OUTPUTS = [("cls", -1), ("mean", 1)]


def encoded(folder: Path) -> list[np.ndarray]:
    return Encoder.load(folder, max_length=64, dtype="float32", device="cpu").encode_texts(TEXTS, OUTPUTS)


def write_adapter(base: Path, to: Path, head: bool = False, seed: int = 3, **options: Any) -> Path:
    """A LoRA of visible size; head: trained with a classifier on top, which names the encoder's parts otherwise."""
    peft = pytest.importorskip("peft")
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM

    model = (AutoModelForMaskedLM if head else AutoModel).from_pretrained(base)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"], **options}
    torch.manual_seed(seed)
    adapted = peft.get_peft_model(model, peft.LoraConfig(**settings))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted.save_pretrained(to)
    config = json.loads((to / "adapter_config.json").read_text())
    write_json(to / "adapter_config.json", config | {"base_model_name_or_path": str(base)})
    return to


def merged(base: Path, adapter: Path, head: bool = False) -> list[np.ndarray]:
    """Each text alone through peft's own model, not merged."""
    import peft
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

    model = (AutoModelForMaskedLM if head else AutoModel).from_pretrained(base)
    whole = peft.PeftModel.from_pretrained(model, adapter).eval()
    inner, tokenizer = whole.base_model.model, AutoTokenizer.from_pretrained(base)
    inner = inner.bert if head else inner
    rows = []
    for text in TEXTS:
        ids = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            states = inner(input_ids=ids, output_hidden_states=True)
        rows.append([states.last_hidden_state[0, 0].numpy(), states.hidden_states[1][0].mean(0).numpy()])
    return [np.stack(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("head", [False, True])
def test_vectors_are_pefts(head: bool, tiny_bert: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_bert, tmp_path / "adapter", head, use_dora=head)
    found, plain, wanted = encoded(adapter), encoded(tiny_bert), merged(tiny_bert, adapter, head)
    for got, without, want in zip(found, plain, wanted, strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert np.abs(got - without).max() > 0.1
    beside = tmp_path / "beside"
    shutil.copytree(tiny_bert, beside)
    shutil.copytree(adapter, beside, dirs_exist_ok=True)
    for got, want in zip(encoded(beside), found, strict=True):
        np.testing.assert_array_equal(got, want)


def test_below_the_modules_of_sentence_transformers(tiny_bert: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tiny_bert, tmp_path / "adapter")
    for path in tiny_bert.glob("*token*"):
        shutil.copy(path, adapter)  # where sentence-transformers looks for it
    folder = make_folder(adapter, tmp_path / "folder", {}, NORMALIZE, settings={"max_seq_length": 64})
    assert_same(load(folder).encode_texts(TEXTS, MODEL)[0], theirs(folder))


def test_both_are_in_the_identity(tiny_bert: Path, bert_copy: Path, tmp_path: Path) -> None:
    adapter = write_adapter(bert_copy, tmp_path / "adapter")

    def identity() -> dict[str, Any]:
        return identify(adapter, max_length=64, dtype="float32", device="cpu")[0]

    first = identity()
    plain = identify(bert_copy, max_length=64, dtype="float32", device="cpu")[0]
    assert first == plain | {"adapter": first["adapter"]} and len(first["adapter"]) == 2
    config = json.loads((adapter / "adapter_config.json").read_text())
    write_json(adapter / "adapter_config.json", config | {"base_model_name_or_path": str(tiny_bert)})
    assert identity() == first, "the same base elsewhere"
    write_json(adapter / "adapter_config.json", config | {"lora_alpha": 9})
    assert identity() != first
    write_json(adapter / "adapter_config.json", config)
    data = bytearray((bert_copy / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (bert_copy / "model.safetensors").write_bytes(data)
    assert identity() != first


def damaged(tiny_bert: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    from safetensors.torch import load_file, save_file

    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    if how == "kind":
        write_json(config, json.loads(config.read_text()) | {"peft_type": "PROMPT_TUNING"})
    elif how == "base":
        write_json(config, json.loads(config.read_text()) | {"base_model_name_or_path": "/none/such"})
    elif how == "pickled":
        weights.rename(folder / "adapter_model.bin")
    elif how == "part":
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights)
    elif how == "bytes":
        weights.write_bytes(b"x" * 99)
    elif how == "modules":
        write_json(config, json.loads(config.read_text()) | {"target_modules": ["q_proj"]})
    else:
        monkeypatch.setitem(sys.modules, "peft", None)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("kind", "is of the kind PROMPT_TUNING, but only LORA can be merged here"),
        ("base", "/none/such: no such folder"),
        ("pickled", r"its PEFT adapter has no adapter_model\.safetensors"),
        ("part", r"does not fit its base: .*lora_A.* is missing, or has no counterpart in the base"),
        ("bytes", "does not fit its base, or is damaged"),
        ("modules", "does not fit its base, or is damaged"),
        ("no peft", r'holds a PEFT adapter: pip install "embedcache\[peft\]"'),
    ],
)
def test_what_cannot_be_merged(
    how: str, said: str, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tiny_bert, tmp_path / "adapter")
    damaged(tiny_bert, adapter, monkeypatch, how)
    with pytest.raises(EmbedcacheError, match=said) as caught:
        encoded(adapter)
    assert "\n" not in str(caught.value)


def test_an_adapter_for_each_task(tiny_bert: Path, tmp_path: Path) -> None:
    """In a subfolder each, as Jina v3 has them; one is merged, or none."""
    folder = make_folder(tiny_bert, tmp_path / "model", {})
    for task, seed in (("retrieval_query", 3), ("classification", 4)):
        write_adapter(tiny_bert, folder / task, seed=seed)
    plain = Encoder.load(folder, max_length=64, dtype="float32", device="cpu")
    expected = {task: merged(tiny_bert, folder / task) for task in ("retrieval_query", "classification")}
    for task, vectors in expected.items():
        encoder = Encoder.load(folder, max_length=64, dtype="float32", device="cpu", task=task)
        assert encoder.identity["task"] == task and set(encoder.identity["adapter"]) == {
            "adapter_config.json",
            "adapter_model.safetensors",
        }
        for found, wanted in zip(encoder.encode_texts(TEXTS, OUTPUTS), vectors, strict=True):
            np.testing.assert_allclose(found, wanted, atol=2e-6)
            assert np.abs(found - plain.encode_texts(TEXTS, OUTPUTS)[0]).max() > 0.01
    assert "task" not in plain.identity and "adapter" not in plain.identity
    with pytest.raises(EmbedcacheError, match="no adapter for the task 'other'; it has classification, retr"):
        identify(folder, device="cpu", task="other")


def test_a_cache_keeps_its_task(tiny_bert: Path, tmp_path: Path) -> None:
    folder, table, cache = make_folder(tiny_bert, tmp_path / "model", {}), tmp_path / "t.csv", tmp_path / "c.h5"
    write_adapter(tiny_bert, folder / "classification")
    table.write_text("text\n" + "\n".join(TEXTS[1:4]) + "\n")
    ec.extract(table, cache, model=folder, task="classification", store="float32", dtype="float32")
    table.write_text("text\n" + "\n".join(TEXTS[1:5]) + "\n")
    again = ec.extract(table, cache, model=folder, store="float32")
    assert (again.encoded, again.reused) == (1, 3) and again.encoder["identity"]["task"] == "classification"
    with pytest.raises(EmbedcacheError, match="task classification in the cache, absent asked"):
        ec.extract(table, cache, model=folder, task="", store="float32")
    other = ec.extract(table, tmp_path / "plain.h5", model=folder)
    assert any("has adapters for the tasks classification; none is used" in note for note in other.notes)
