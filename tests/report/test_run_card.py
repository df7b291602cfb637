"""README.md of a run: what Hugging Face reads of it is true, and its code gives what predict gives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedcache.prediction.classifier import Classifier
from embedcache.runs.folder import load_run
from tests.conftest import document

TEXTS = ["A tender, funny film.", "Two hours of my life that I want back."]


def front_matter(run: Path) -> dict[str, Any]:
    start, front, _ = (run / "README.md").read_text("utf-8").split("---\n", 2)
    assert start == ""
    document: dict[str, Any] = yaml.safe_load(front)
    return document


def test_the_front_matter_holds_the_test_scores(runs: Any) -> None:
    about, front = load_run(runs("plain")).info, front_matter(runs("plain"))
    assert (front["library_name"], front["pipeline_tag"]) == ("embedcache", "text-classification")
    (result,) = front["model-index"][0]["results"]
    assert result["dataset"] == {"type": "cache", "name": "cache", "split": "test"}
    metrics = {one["type"]: one["value"] for one in result["metrics"]}
    assert metrics == {
        "accuracy": pytest.approx(about["best"]["test_accuracy"]),
        "f1": pytest.approx(about["best"]["test_macro_f1"]),
    }
    regression = front_matter(runs("regression"))["model-index"][0]["results"][0]["metrics"]
    assert [one["type"] for one in regression] == ["r_squared", "rmse"]
    assert front_matter(runs("single"))["model-index"][0]["results"][0]["dataset"]["split"] == "validation"
    assert "model-index" not in front_matter(runs("blind")), "nothing was measured"


def test_hugging_face_reads_it(runs: Any, hostile: Path) -> None:
    from huggingface_hub import ModelCard

    for run in (runs("plain"), hostile):
        card = ModelCard.load(run / "README.md")
        (first, *_) = card.data.eval_results
        assert first.metric_type == "accuracy" and first.metric_value == pytest.approx(
            load_run(run).info["best"]["test_accuracy"], abs=1e-6
        )


def test_the_text_says_what_the_run_knows(runs: Any) -> None:
    run = runs("plain")
    about, card = load_run(run).info, (run / "README.md").read_text("utf-8")
    best, (low, high) = about["best"], about["best"]["test_accuracy_interval"]
    assert f"| this head | {best['val_accuracy']:.4f} |" in card and f"{low:.3f} to {high:.3f}" in card
    assert f"| TF-IDF + logistic regression | {about['baselines']['tfidf_logreg']['val_accuracy']:.4f} |" in card
    for title in ("Intended use", "Data", "Training", "Evaluation", "Limitations", "How to use it"):
        assert f"\n## {title}\n" in card
    assert "8 heads were trained" in card and "`negative`, `positive`" in card and str(run.parent) not in card
    assert "no test rows" in (runs("single") / "README.md").read_text("utf-8")
    assert "on all folds" in (runs("folds") / "README.md").read_text("utf-8")


def test_a_card_for_every_column_and_one_above(runs: Any) -> None:
    run = runs("columns")
    assert "`tone/README.md`" in (run / "README.md").read_text("utf-8") and front_matter(run)["tags"]
    assert "`high`, `low`, `mid`" in (run / "tone" / "README.md").read_text("utf-8")


def test_names_from_the_data_stay_code(hostile: Path) -> None:
    card = (hostile / "README.md").read_text("utf-8")
    assert front_matter(hostile)["model-index"][0]["name"] == "<run>"
    outside = re.sub(r"`[^`\n]*`", "", re.sub(r"```.*?```", "", card.split("---\n", 2)[2], flags=re.DOTALL))
    assert "<script>" in card and "<script>" not in outside and "<b>" not in outside and "very very" not in outside
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", card)
    for line in card.splitlines():
        if line.startswith("| `"):
            assert len(re.findall(r"(?<!\\)\|", line)) in (3, 6), line


@pytest.mark.parametrize(  # the lines of all poolings are run in test_poolings
    "pooling", [pytest.param(name, marks=() if name == "mean" else pytest.mark.slow) for name in ("cls", "mean", "max")]
)
def test_the_code_gives_what_predict_gives(made: Path, tiny_bert: Path, tmp_path: Path, pooling: str) -> None:
    """Both blocks, in a process of their own; the second without embedcache."""
    run = tmp_path / "run"
    document("train-head", made / "reviews.h5", "-o", run, "--lr", "1e-2", "--pooling", pooling, "--epochs", "3")
    first, second = re.findall(r"```python\n(.*?)```", (run / "README.md").read_text("utf-8"), re.DOTALL)
    assert "embedcache as ec" in first and "import embedcache" not in second
    expected = [(p.label, max(p.probabilities.values())) for p in Classifier.load(run).predict(TEXTS)]
    assert f'encoder = "{tiny_bert.name}"' in second
    second = second.replace(f'"{tiny_bert.name}"', repr(str(tiny_bert)), 1)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=run, capture_output=True, text=True, env=environment, check=False
        )
        for code in (first, second)
    ]
    assert not done[0].returncode and not done[1].returncode, done[0].stderr + done[1].stderr
    rounded = load_run(run).info["encoder"]["identity"]["compute_dtype"] != "float32"
    assert rounded == ("computed in float32" in (run / "README.md").read_text("utf-8"))
    assert [line.split()[0] for line in done[0].stdout.splitlines()] == [label for label, _ in expected]
    for line, (label, probability) in zip(done[1].stdout.splitlines(), expected, strict=True):
        room = 0.02 if pooling == "max" else 0.01  # bfloat16 or not; the largest of rounded numbers is off by more
        assert line.split()[0] == label and float(line.split()[1]) == pytest.approx(probability, abs=room)


@pytest.mark.parametrize("kind", ["multilabel", "regression"])
def test_the_code_of_every_kind_compiles_and_ends_alike(runs: Any, kind: str) -> None:
    _, code = re.findall(r"```python\n(.*?)```", (runs(kind) / "README.md").read_text("utf-8"), re.DOTALL)
    compile(code, "README.md", "exec")
    assert ("sigmoid" in code) == (kind == "multilabel") and "softmax" not in code
