"""Runs as classifiers of transformers: opened by its own loader, the logits are those of the run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from embedcache.export import TEXTS, export_run
from embedcache.finetune.job import finetune
from embedcache.prediction.classifier import Classifier
from embedcache.runs.job import train_head
from tests.conftest import document, fails, make_reviews, write_csv
from tests.finetune.token_caches import write_states


@pytest.fixture(scope="module")
def make_cache(tiny_models, tmp_path_factory):
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            write_csv(folder / "t.csv", make_reviews(80))
            document(
                "extract", folder / "t.csv", "-o", folder / "c.h5", "--model", tiny_models[family],
                "--dtype", "float32", "--store", "float32", "--max-length", 64,
            )  # fmt: skip
            made[family] = folder / "c.h5"
        return made[family]

    return make


def logits(folder: Path, texts: list[str]) -> np.ndarray:
    """As a stranger gets them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return AutoModelForSequenceClassification.from_pretrained(folder)(**inputs).logits.numpy()


@pytest.mark.parametrize(
    ("family", "hidden"),
    [
        ("bert", 0),
        pytest.param("distilbert", 16, marks=pytest.mark.slow),
        *[
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (
                ("distilbert", 0),
                ("roberta", 0),
                ("xlm-roberta", 0),
                ("camembert", 0),
                ("mpnet", 0),
                ("ernie", 0),
            )
        ],
    ],
)
def test_the_logits_are_the_runs(family, hidden, make_cache, tmp_path) -> None:
    cache = make_cache(family)
    train_head(cache, tmp_path / "run", pooling="cls", hidden=hidden, lr=1e-2, epochs=8)
    report = export_run(tmp_path / "run", tmp_path / "out", "transformers")
    run = Classifier.load(tmp_path / "run")
    expected = run.run.best.logits(run.encode(TEXTS))
    assert np.ptp(expected, axis=0).min() > 0.01
    np.testing.assert_allclose(logits(tmp_path / "out", TEXTS), expected, atol=1e-4)
    assert report.checked["max_difference"] < 1e-5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "positive"}
    assert config["architectures"][0].endswith("ForSequenceClassification")


@pytest.mark.slow
def test_heads_that_no_classifier_computes(make_cache, tmp_path) -> None:
    train_head(make_cache("bert"), tmp_path / "run", pooling="cls", hidden=8, lr=1e-2, epochs=1)
    line = fails("export", tmp_path / "run", "--to", "transformers", "-o", tmp_path / "out")
    assert "bert classifier has a tanh where this head has ReLUs: train with --hidden 0" in line
    train_head(make_cache("distilbert"), tmp_path / "wide", pooling="cls", hidden=48, lr=1e-2, epochs=1)
    line = fails("export", tmp_path / "wide", "--to", "transformers", "-o", tmp_path / "out")
    assert "has 32 hidden units, and this head 48" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_tuned_run(make_cache, tiny_models, tmp_path) -> None:
    cache = make_cache("bert")
    write_states(cache, tiny_models["bert"], 1)
    train_head(cache, tmp_path / "heads", pooling="cls", hidden=0, lr=1e-2, epochs=2)
    finetune(cache, tmp_path / "run", from_run=tmp_path / "heads", lr=1e-3, epochs=2)
    export_run(tmp_path / "run", tmp_path / "out", "transformers")
    run = Classifier.load(tmp_path / "run")
    np.testing.assert_allclose(logits(tmp_path / "out", TEXTS), run.run.best.logits(run.encode(TEXTS)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "way"), [("bert", "lora:last"), ("roberta", "lora"), ("distilbert", "lora")])
def test_a_lora_run_as_an_adapter_of_peft(family, way, make_cache, tiny_models, tmp_path, monkeypatch) -> None:
    """By both of its loaders; the folder holds nothing of the base."""
    from peft import AutoPeftModelForSequenceClassification, PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    cache = make_cache(family)
    if way != "lora":
        write_states(cache, tiny_models[family], 1)
    train_head(cache, tmp_path / "heads", pooling="cls", hidden=0, lr=1e-2, epochs=2)
    finetune(cache, tmp_path / "run", train=way, from_run=tmp_path / "heads", rank=3, alpha=5, lr=1e-2, epochs=2)
    export_run(tmp_path / "run", tmp_path / "out", "peft")
    run = Classifier.load(tmp_path / "run")
    expected = run.run.best.logits(run.encode(TEXTS))
    frozen = Classifier.load(tmp_path / "heads")
    assert np.abs(frozen.run.best.logits(frozen.encode(TEXTS)) - expected).max() > 0.05
    inputs = AutoTokenizer.from_pretrained(tmp_path / "out")(TEXTS, padding=True, truncation=True, return_tensors="pt")

    def base() -> torch.nn.Module:
        return AutoModelForSequenceClassification.from_pretrained(tiny_models[family], num_labels=2)

    for model in (
        AutoPeftModelForSequenceClassification.from_pretrained(tmp_path / "out", num_labels=2),
        PeftModel.from_pretrained(base(), tmp_path / "out"),
        PeftModel.from_pretrained(base(), tmp_path / "out").merge_and_unload(),
    ):
        with torch.inference_mode():
            np.testing.assert_allclose(model.eval()(**inputs).logits.numpy(), expected, atol=1e-4)
    assert not (tmp_path / "out" / "config.json").exists() and not list((tmp_path / "out").glob("model*"))
    card = (tmp_path / "out" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "out")
    names: dict[str, object] = {}
    exec(card.split("```python\n")[1].split("```")[0], names)
    np.testing.assert_allclose(names["logits"], run.run.best.logits(run.encode(names["texts"])), atol=1e-4)  # type: ignore[arg-type]
    line = fails("export", tmp_path / "heads", "--to", "peft", "-o", tmp_path / "no")
    assert "--to peft is for runs of finetune --train lora, and this one trained no layers" in line
    assert not (tmp_path / "no").exists()
