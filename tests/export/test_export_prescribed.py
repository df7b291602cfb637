"""A model's own vector, with Dense, LayerNorm, cut and prompt, is exported whole; the cards' lines give the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embedcache as ec
from embedcache.export import TARGETS, export_run
from embedcache.prediction.classifier import Classifier
from tests.conftest import document, make_reviews, write_csv
from tests.encoder.sentence_folders import NORMALIZE, dense, layer_norm, make_folder

TEXTS = ["superb", *(text for text, _ in make_reviews(6)), "", "a dull film " * 60]


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prescribed")
    pooling = {"embedding_dimension": 32, "pooling_mode": ["mean", "cls"]}
    config = {"prompts": {"query": "find this: "}, "default_prompt_name": "query", "truncate_dim": 20}
    steps = dense(64, 24, use_residual=True), layer_norm(24), NORMALIZE
    model = make_folder(tiny_bert, folder / "model", pooling, *steps, settings={"max_seq_length": 64}, config=config)
    table = write_csv(folder / "reviews.csv", make_reviews(80))
    exact = {"device": "cpu", "dtype": "float32", "store": "float32"}
    ec.extract(table, folder / "c.h5", model=model, dims=12, **exact)
    document("train-head", folder / "c.h5", "-o", folder / "run", "--hidden", 8, "--epochs", 2, "--lr", "1e-2")
    return folder / "run"


def wanted(run: Path) -> np.ndarray:
    classifier = Classifier.load(run, "cpu")
    return classifier.run.best.logits(classifier.encode(TEXTS))


def given(to: str, folder: Path, prompt: str) -> np.ndarray:
    """Logits by the ecosystem's loaders."""
    if to == "sentence-transformers":
        from sentence_transformers import SentenceTransformer

        return np.asarray(SentenceTransformer(str(folder), device="cpu").encode(TEXTS))
    from transformers import AutoTokenizer

    texts = [prompt + text for text in TEXTS]
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    if to == "torch":
        import torch

        return torch.export.load(folder / "model.pt2").module()(**inputs).detach().numpy()
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return np.asarray(session.run(None, {name: ids.numpy() for name, ids in inputs.items()})[0])


@pytest.mark.parametrize(
    "to",
    [
        pytest.param(to, marks=() if to == "sentence-transformers" else pytest.mark.slow)
        for to in TARGETS
        if to not in ("transformers", "peft")
    ],
)
def test_every_target_has_all_of_it(to: str, run: Path, tmp_path: Path) -> None:
    export_run(run, tmp_path / "out", to)
    about = json.loads((tmp_path / "out" / "embedcache.json").read_text("utf-8"))
    assert (about["pooling"], about["prompt"], about["max_length"]) == ("model", "find this: ", 64)
    assert about["model"] == Classifier.load(run, encode=False).run.info["encoder"]["model"]
    expected = wanted(run)
    np.testing.assert_allclose(given(to, tmp_path / "out", about["prompt"]), expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 0.01, "texts that all get the same would prove nothing"


@pytest.mark.slow
def test_the_cards_lines_do_the_same(run: Path, tmp_path: Path) -> None:
    """Of the run, and of an export; in processes without embedcache."""
    export_run(run, tmp_path / "out", "torch")
    model = str(Classifier.load(run, encode=False).run.info["encoder"]["source"])
    said = []
    for folder in (run, tmp_path / "out"):
        blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
        code = blocks[-1].replace('"model"  # its name', f"{model!r}  # its name")
        code = f"import sys\nsys.modules['embedcache'] = None\n{code}"
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stderr
        said.append([line.split()[0] for line in done.stdout.splitlines()])
    texts = ["A tender, funny film.", "Two hours of my life that I want back."]
    assert said[0] == said[1] == [one.label for one in Classifier.load(run).predict(texts)]
